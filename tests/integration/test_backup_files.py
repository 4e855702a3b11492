"""Backups and what restore refuses: nothing is written unless all of it can be."""

import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from schemas.errors import (
    ConflictError,
    EvidenceError,
    NotAllowedError,
    NoticeBusError,
    RejectedError,
)
from services.backup import restoring, snapshot
from services.backup.files import new_file
from services.backup.restoring import restore
from services.backup.snapshot import Backup, listed, place, verify_backup
from services.backup.store import snapshot as statements
from services.exchange import rotation
from services.keys import KeyRing
from services.ledger.store import Store, Transaction
from services.ledger.store.migration import migrate
from tests.agencies import Pair, a_notice, accept, two_agencies, until, value
from tests.agencies import answered as are_answered
from tests.restores import Database, a_backup, an_empty_database


@pytest.fixture
async def pair(home: Path, database: Database, redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def with_traffic(pair: Pair, number: int = 5) -> None:
    drafts = [a_notice() for _ in range(number)]
    async with pair.running():
        await accept(pair.ice, *drafts)
        await until(lambda: are_answered(pair.ice, drafts), "the receipts")


def rows_of(url: str) -> dict[str, list[str]]:
    """Return every row of every table, as text."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        return {
            name: sorted(
                str(row[0])
                for row in connection.execute(
                    f'SELECT to_jsonb(t) FROM "{name}" AS t'.encode()  # noqa: S608 - of its own catalogue
                ).fetchall()
            )
            for (name,) in names
        }


async def test_a_restored_store_holds_every_row_that_was_backed_up(
    pair: Pair, home: Path, database: Database
) -> None:
    await with_traffic(pair)
    url = pair.hhs.settings.database_url_required
    before = rows_of(url)

    backup = await a_backup(pair.hhs, home)
    fresh = database("hhs")
    restore(fresh, pair.hhs.ring, backup.path)

    after = rows_of(fresh)
    assert len(after.pop("restoration")) == 1
    del before["restoration"]
    assert after == before
    assert backup.rows == sum(map(len, before.values())) - len(before["alembic_version"])


async def test_a_backup_is_for_its_owner_alone_and_holds_nothing_in_clear(
    pair: Pair, home: Path
) -> None:
    await with_traffic(pair, 1)

    backup = await a_backup(pair.ice, home)

    assert stat.S_IMODE(backup.path.stat().st_mode) == 0o600
    clear = backup.path.read_bytes()
    for word in (b"a_number", b"Invented", b"fta/1.0", b"message.sent"):
        assert word not in clear
    assert [each.header for each in listed(home)] == [backup.header]
    assert await value(pair.ice, "SELECT count(*) FROM record WHERE action = 'db.backup'") == 1


async def test_numbers_go_on_above_those_that_were_drawn(
    pair: Pair, home: Path, database: Database
) -> None:
    await with_traffic(pair)
    backup = await a_backup(pair.ice, home)
    highest = await value(pair.ice, "SELECT max(record_id) FROM record WHERE action <> 'db.backup'")

    fresh = database("ice")
    restore(fresh, pair.ice.ring, backup.path)

    with psycopg.connect(fresh, connect_timeout=10) as connection:
        row = connection.execute("SELECT nextval('record_record_id_seq')").fetchone()
    assert row is not None
    assert isinstance(highest, int)
    assert row[0] > highest


async def test_a_backup_of_an_older_revision_is_migrated(
    pair: Pair, home: Path, database: Database
) -> None:
    """Tables of the first revision, filled, backed up, and restored by this build."""
    old = an_empty_database(database("ice"))
    migrate(old, "ice", revision="0001")
    with psycopg.connect(old, connect_timeout=10) as connection:
        connection.execute(
            "INSERT INTO payload (message_id) VALUES ('00000000-0000-7000-8000-000000000001')"
        )
    async with await Store.open(old) as store:
        backup = await snapshot.back_up(store, pair.ice.ring, home, actor="tester")
    fresh = database("ice")

    restore(fresh, pair.ice.ring, backup.path)

    assert backup.header.about["revision"] == "0001"
    async with await Store.open(fresh) as store, store.transaction() as tx:
        found = await (await tx.execute("SELECT count(*) FROM payload")).fetchone()
        assert found == (1,)
        await tx.execute("SELECT FROM lost")


async def refused(url: str, ring: KeyRing, path: Path) -> NoticeBusError:
    """Return why a backup is refused; the database is as it was."""
    before = rows_of(url)
    with pytest.raises(NoticeBusError) as error:
        restore(url, ring, path)
    assert rows_of(url) == before
    return error.value


async def test_a_database_that_holds_anything_is_refused(pair: Pair, home: Path) -> None:
    backup = await a_backup(pair.ice, home)

    error = await refused(pair.ice.settings.database_url_required, pair.ice.ring, backup.path)

    assert (type(error), error.code) == (ConflictError, "NB-5044")


async def test_a_damaged_backup_is_refused_before_anything_is_written(
    pair: Pair, home: Path, database: Database
) -> None:
    backup = await a_backup(pair.ice, home)
    data = bytearray(backup.path.read_bytes())
    data[len(data) // 2] ^= 1
    backup.path.write_bytes(data)

    error = await refused(database("ice"), pair.ice.ring, backup.path)

    assert (type(error), error.code) == (EvidenceError, "NB-3061")


async def test_the_backup_of_another_agency_is_refused(
    pair: Pair, home: Path, database: Database
) -> None:
    backup = await a_backup(pair.hhs, home)

    error = await refused(database("ice"), pair.ice.ring, backup.path)

    assert (type(error), error.code) == (RejectedError, "NB-5042")


async def test_the_backup_of_another_home_is_refused(
    pair: Pair, home: Path, database: Database
) -> None:
    backup = await a_backup(pair.ice, home)
    other = KeyRing.generate(home / "other", pair.ice.settings.domain, "ice")

    error = await refused(database("ice"), other, backup.path)

    assert (type(error), error.code) == (NotAllowedError, "NB-5043")


async def test_a_backup_of_a_later_build_is_refused(
    pair: Pair, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a later build writes: a migration that this one does not have."""
    kept = statements.facts

    async def later(tx: Transaction) -> statements.Facts:
        return replace(await kept(tx), revision="9999")

    monkeypatch.setattr(statements, "facts", later)
    backup = await a_backup(pair.ice, home)

    error = await refused(database("ice"), pair.ice.ring, backup.path)

    assert (type(error), error.code) == (RejectedError, "NB-5040")


async def test_a_backup_that_is_exchanged_while_it_is_restored_changes_nothing(
    pair: Pair, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are whole and ours; what is written has to be what was verified."""
    backup = await a_backup(pair.ice, home)
    (home / "second").mkdir()
    other = await a_backup(pair.ice, home / "second")

    def exchanged(path: Path, ring: KeyRing) -> Backup:
        verified = verify_backup(path, ring)
        path.write_bytes(other.path.read_bytes())
        return verified

    monkeypatch.setattr(restoring, "verify_backup", exchanged)

    error = await refused(database("ice"), pair.ice.ring, backup.path)

    assert (type(error), error.code) == (ConflictError, "NB-5052")
    assert error.sentence == f"{backup.path} is another file than a moment ago"
    assert "nothing was changed" in error.fix


async def test_a_rotated_key_ring_reads_what_its_older_keys_made(pair: Pair, home: Path) -> None:
    backup = await a_backup(pair.ice, home)

    await rotation.rotate_signing_key(pair.ice, actor="tester")
    await rotation.rotate_encryption_key(pair.ice, actor="tester")

    assert verify_backup(backup.path, pair.ice.ring).digest == backup.digest


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"kept")

    with pytest.raises(ConflictError, match="NB-7013"), new_file(path):
        pass

    assert path.read_bytes() == b"kept"


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_file(tmp_path / "f") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".old.partial").write_bytes(b"half")

    with new_file(tmp_path / "f") as file:
        file.write(b"whole")

    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_two_do_not_write_one_file(tmp_path: Path) -> None:
    with new_file(tmp_path / "f") as file:
        with pytest.raises(ConflictError, match="NB-5048"), new_file(tmp_path / "f"):
            pass
        file.write(b"whole")

    assert (tmp_path / "f").read_bytes() == b"whole"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="NB-5049"), new_file(tmp_path / "absent" / "f"):
        pass


def test_in_a_folder_a_backup_names_itself(tmp_path: Path) -> None:
    now = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)

    assert place(tmp_path, "ice", now).name == "noticebus-ice-20261123T040506Z.backup"
    assert place(tmp_path / "a", "ice", now) == tmp_path / "a"
