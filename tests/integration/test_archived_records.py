"""Records of closed notices leave the store for an archive, and everything still proves."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from psycopg.errors import RestrictViolation

from schemas.errors import ConflictError, EvidenceError, NotFoundError, RejectedError
from services.backup import archive as archives
from services.backup.archive import Back, bring_back
from services.backup.archive_file import Verified, verify_archive
from services.backup.beside import beside
from services.exchange.agency import Agency, open_agency
from services.exchange.contents import verify_contents
from services.exchange.trace import Trace
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import notices
from services.ice.effects import IceEffects
from services.ledger.erasures import gone
from services.ledger.export import export
from services.ledger.records import make_record
from services.ledger.store import append
from services.ledger.verify import Report, verify
from services.replay.shadow import shadow
from services.reports.as_of import knowing
from services.watch import Cursor, watch
from tests.agencies import running, until
from tests.bundles import members_of
from tests.ledgers import tamper
from tests.restores import (
    REASON,
    Database,
    archived,
    at_rest,
    closed,
    closed_and_open,
    count,
)

AWAY = "SELECT count(*) FROM public.record WHERE record IS NULL"
# What was there when the archive was made: later acts are records of their own.
ROWS = (
    "SELECT jsonb_build_array("
    " (SELECT jsonb_agg(to_jsonb(r) ORDER BY record_id) FROM record AS r"
    "  WHERE record_id <= %(last)s),"
    " (SELECT jsonb_agg(to_jsonb(o) ORDER BY record_id) FROM opening AS o"
    "  WHERE record_id <= %(last)s),"
    " (SELECT jsonb_agg(to_jsonb(p) ORDER BY message_id) FROM payload AS p),"
    " (SELECT jsonb_agg(to_jsonb(e) ORDER BY message_id) FROM envelope AS e))"
)


Way = Callable[[Agency], Awaitable[object]]


async def sealed(agency: Agency) -> bool:
    return not await count(agency, "SELECT count(*) FROM unsealed")


async def rows(agency: Agency, last: int) -> object:
    async with agency.store.transaction() as tx:
        row = await (await tx.execute(ROWS, {"last": last})).fetchone()
    assert row is not None
    return row[0]


async def traced(agency: Agency, notice_id: UUID) -> Trace:
    if agency.name == "ice":
        return await notices.traced(agency, notice_id)
    return await queue.traced(agency, notice_id)


async def rebuilt(agency: Agency) -> object:
    found = await shadow(agency.store, agency.name)
    assert not found.differing, found.differences
    return found.rows


async def report_of(agency: Agency) -> Report:
    found = await verify(agency.store, log_keys=[agency.ring.log_key.verifier])
    contents = await verify_contents(agency.store)
    assert (found.difference, contents.difference) == (None, None)
    return found


async def with_archives(agency: Agency, files: Sequence[Path], work: Way) -> object:
    prepare = await beside(agency.store, agency.ring, files)
    async with open_agency(agency.settings, prepare=prepare) as together:
        return await work(together)


async def put_back(agency: Agency, made: Verified) -> Back:
    return await bring_back(
        agency.store,
        agency.ring,
        made.path,
        log_keys=[agency.ring.log_key.verifier],
        actor="tester",
        reason=REASON,
    )


def ways_of(notice_id: UUID, folder: Path, size: int, at: datetime) -> list[Way]:
    """Return everything that needs the bytes of records."""

    async def steps(agency: Agency) -> object:
        found = await traced(agency, notice_id)
        assert found.holds
        return [step for step in found.steps if step.step != "proof.built"]

    async def seen(agency: Agency) -> object:
        after = Cursor(agency.name, 1, 0)
        lines = watch(agency.store, agency.name, after=after, follow=False)
        return [line async for line in lines if line.index < size]

    async def exported(agency: Agency) -> object:
        place = folder / f"log-{uuid4()}"
        await export(agency.store, place, entries=True, actor="tester")
        [bundle] = [file for file in (place / "tile/entries").rglob("*") if file.is_file()]
        return bundle.read_bytes()

    async def known(agency: Agency) -> object:
        async with (
            knowing(agency.store, agency.name, at) as then,
            then.reading.transaction() as tx,
        ):
            statement = (
                "SELECT to_jsonb(t) FROM obligation AS t ORDER BY notice_id"
                if agency.name == "ice"
                else "SELECT to_jsonb(t) FROM case_file AS t ORDER BY notice_id"
            )
            return await (await tx.execute(statement)).fetchall()

    async def proven(agency: Agency) -> object:
        members = await members_of(agency, folder, notice_id)
        shown = {
            name: data
            for name, data in members.items()
            if "/messages/" in name or ("/records/" in name and name.endswith(".json"))
        }
        assert len(shown) > 6
        return shown

    return [steps, seen, exported, rebuilt, known, proven]


async def test_all_that_needs_records_says_so_takes_the_archive_and_they_come_back(
    home: Path, database: Database, redis_url: str, tmp_path: Path
) -> None:
    async with closed_and_open(home, database, redis_url) as pair:
        notice_id = await closed(pair)
        for agency in (pair.ice, pair.hhs):
            folder = tmp_path / agency.name
            folder.mkdir()
            last = await count(agency, "SELECT max(record_id) FROM record")
            size = await count(agency, "SELECT max(size) FROM checkpoint")
            at = datetime.now(UTC)
            ways = ways_of(notice_id, folder, size, at)
            whole = await rows(agency, last)
            before = [await way(agency) for way in ways]

            made = await archived(agency, folder)

            assert made is not None
            theirs = "SELECT count(*) FROM record WHERE notice_id = %s AND record IS NULL"
            assert (
                made.records == await count(agency, AWAY) == await count(agency, theirs, notice_id)
            )
            assert made.records > 4
            names = (
                "SELECT count(*) FROM opening JOIN record USING (record_id) WHERE record IS NULL"
            )
            assert await count(agency, names) == 0
            alone = await report_of(agency)
            assert (alone.size, alone.verified, alone.archived) == (size, size, made.records)
            assert (await gone(agency.store)).records == made.records
            for way in ways:
                with pytest.raises(NotFoundError) as error:
                    await way(agency)
                assert error.value.code == "NB-3070"
            hashes = folder / "hashes"
            assert (await export(agency.store, hashes, entries=False, actor="x")).size == size
            async with agency.store.transaction() as tx:
                cursor = await tx.execute(
                    "SELECT notice_id FROM record WHERE notice_id <> %s LIMIT 1", [notice_id]
                )
                [(other,)] = await cursor.fetchall()
            assert (await traced(agency, other)).holds

            files = [made.path]
            assert [await with_archives(agency, files, way) for way in ways] == before
            together = await with_archives(agency, files, report_of)
            assert isinstance(together, Report)
            assert (together.verified, together.archived) == (together.size, 0)
            assert await count(agency, AWAY) == made.records

            assert await put_back(agency, made) == Back(messages=3, records=made.records)
            assert await rows(agency, last) == whole
            assert await put_back(agency, made) == Back(messages=0, records=0)
            assert (await report_of(agency)).archived == 0


async def test_what_is_away_is_held_to_the_log_and_further_archives_build_on_it(
    home: Path, database: Database, redis_url: str, tmp_path: Path
) -> None:
    async with closed_and_open(home, database, redis_url) as pair:
        hhs, url = pair.hhs, pair.hhs.settings.database_url_required
        made = await archived(hhs, tmp_path)
        assert made is not None

        # The one change that a record can see is its own way out and back.
        for change in (
            "UPDATE record SET leaf = sha256('x') WHERE record IS NULL",
            "UPDATE record SET record = 'x', leaf = NULL, archive_id = NULL WHERE record IS NULL",
            "UPDATE record SET action = 'x'",
            "DELETE FROM record WHERE record IS NULL",
            "TRUNCATE record",
        ):
            with pytest.raises(RestrictViolation):
                async with hhs.store.transaction() as tx:
                    await tx.execute(change.encode())

        async with running(pair.ice, IceEffects()), running(hhs, CaseWork()):
            [taken] = [each for each in await queue.listed(hhs.store) if each.state == "taken"]
            await queue.outcome(hhs.store, taken.notice_id, code="SAFE_MOVED", actor="clerk")
            await until(lambda: at_rest(pair), "the second outcome")
        second = await archived(hhs, tmp_path / "second")
        assert second is not None
        assert second.leaves == made.records
        keys = [hhs.ring.log_key.verifier]
        assert verify_archive(second.path, hhs.ring, log_keys=keys) == second
        assert (await report_of(hhs)).archived == made.records + second.records
        files = [made.path, second.path]
        assert (await with_archives(hhs, files, report_of)).archived == 0  # type: ignore[attr-defined]  # a Report
        half = await with_archives(hhs, [second.path], report_of)
        assert isinstance(half, Report)
        assert half.archived == made.records
        foreign = await archived(pair.ice, tmp_path)
        assert foreign is not None
        with pytest.raises(RejectedError, match="NB-5042"):
            await beside(hhs.store, hhs.ring, [foreign.path])

        # Records that vanish under a leaf hash of their own are missed all the same.
        tamper(
            url,
            "UPDATE record SET record = NULL, leaf = sha256('\\x00'::bytea || record), archive_id ="
            " (SELECT archive_id FROM archive ORDER BY made_at LIMIT 1)"
            " WHERE record_id = (SELECT min(record_id) FROM record WHERE record IS NOT NULL)",
        )
        with pytest.raises(EvidenceError) as error:
            await gone(hhs.store)
        assert error.value.code == "NB-3071"
        tamper(
            url,
            "UPDATE record SET leaf = sha256('x')"
            " WHERE record_id = (SELECT min(record_id) FROM record WHERE leaf IS NOT NULL)",
        )
        changed = await verify(hhs.store, log_keys=keys)
        assert changed.difference is not None
        assert changed.difference.code in {"NB-3031", "NB-3032"}


async def test_nothing_moves_that_something_rests_on(
    home: Path, database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with closed_and_open(home, database, redis_url) as pair:
        notice_id = await closed(pair)
        hhs, url = pair.hhs, pair.hhs.settings.database_url_required
        holds = (
            ("INSERT INTO lost (lost_id, cause, notice_id, found_at)"
             " VALUES (gen_random_uuid(), 'work', %s, now())", "DELETE FROM lost"),
            ("UPDATE inbox SET state = 'held' WHERE notice_id = %s",
             "UPDATE inbox SET state = 'applied' WHERE notice_id IS NOT NULL"),
            ("UPDATE sent SET answer = NULL WHERE notice_id = %s",
             "UPDATE sent SET answer = 'receipt' WHERE notice_id IS NOT NULL"),
        )  # fmt: skip
        for hold, release in holds:
            async with hhs.store.transaction() as tx:
                await tx.execute(hold.encode(), [notice_id])
            assert await archived(hhs, tmp_path) is None, hold
            async with hhs.store.transaction() as tx:
                await tx.execute(release.encode())

        # A notice that goes on while the file is written stays whole.
        verify_then = verify_archive

        def meanwhile(*given: object, **named: object) -> Verified:
            tamper(url, "UPDATE case_file SET state = 'unowned' WHERE state = 'closed'")
            return verify_then(*given, **named)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(archives, "verify_archive", meanwhile)
        with pytest.raises(ConflictError) as error:
            await archived(hhs, tmp_path / "first.archive")
        assert error.value.code == "NB-3072"
        assert await count(hhs, AWAY) == 0
        assert await count(hhs, "SELECT count(*) FROM archived") == 0

        # The file of that attempt is whole, but nothing moved to it.
        whole = tmp_path / "first.archive"
        with pytest.raises(RejectedError) as beside_it:
            await beside(hhs.store, hhs.ring, [whole])
        assert str(beside_it.value) == f"NB-3073 nothing of this store moved to {whole}"
        assert "Name the file that was made when they moved" in beside_it.value.fix

        # Nor does anything move to a file that another one took the place of.
        def exchanged(path: Path, *given: object, **named: object) -> Verified:
            path.write_bytes(whole.read_bytes())
            return verify_then(path, *given, **named)  # type: ignore[arg-type]  # as they came

        tamper(url, "UPDATE case_file SET state = 'closed' WHERE state = 'unowned'")
        monkeypatch.setattr(archives, "verify_archive", exchanged)
        with pytest.raises(ConflictError) as error:
            await archived(hhs, tmp_path / "second.archive")
        assert error.value.code == "NB-5052"
        assert error.value.sentence.endswith("second.archive is another file than a moment ago")
        assert await count(hhs, AWAY) == 0
        monkeypatch.undo()

        # What waited for a person is found by its record alone, so that record stays with it.
        ice, content = pair.ice, uuid4()
        asked = make_record(
            "notice.to_confirm",
            time=datetime.now(UTC),
            notice_id=notice_id,
            detail={"content": str(content)},
        )
        async with running(ice, IceEffects(), ["sealer"]):
            async with ice.store.transaction() as tx:
                await append(tx, [asked])
                await tx.execute(
                    "INSERT INTO payload (message_id, salt, body) VALUES (%s, '', '{}')", [content]
                )
            await until(lambda: sealed(ice), "the record of the question")
        made = await archived(ice, tmp_path)
        assert made is not None
        stays = "SELECT count(record) FROM record WHERE notice_id = %s"
        assert await count(ice, stays, notice_id) == 1
