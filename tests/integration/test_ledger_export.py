"""The log as files and over HTTP: C2SP tlog-tiles, incremental, resumable, and only what proves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.checkpoint import Signer, sign_checkpoint, verify_checkpoint
from schemas.errors import ConflictError, EvidenceError, NotFoundError, RejectedError
from schemas.proof import append as grow_frontier
from schemas.proof import leaf_hash, root_of
from services.exchange.anchors import hold
from services.ledger import access
from services.ledger.export import Exported, export
from services.ledger.exported import verify_exported
from services.ledger.serving import log_routes
from services.ledger.store import Store
from services.ledger.tiles import frontier_of, grow, tile_path
from services.settings import HttpSettings
from services.telemetry.health import HealthServer
from tests.command_line import CommandLine
from tests.ledgers import (
    LOG_KEY,
    ORIGIN,
    a_sealer,
    anchor_of,
    keep,
    opened,
    seal_all,
    some_records,
)

Database = Callable[[str], str]


async def sealed(store: Store, count: int) -> None:
    await keep(store, some_records(count))
    await seal_all(a_sealer(store))


async def exported(store: Store, folder: Path, *, entries: bool = True) -> Exported:
    return await export(store, folder, entries=entries, actor="an operator")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def records_in(folder: Path, size: int) -> list[bytes]:
    """Read entries as the specification says, with nothing of ours but the arithmetic of paths."""
    records: list[bytes] = []
    while len(records) < size:
        n, width = len(records) // 256, min(256, size - len(records))
        bundle = (folder / tile_path("entries", n, width)).read_bytes()
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            records.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
    return records


def assert_proves(folder: Path) -> int:
    """Check that entries and tiles of a folder give the root that its checkpoint signs."""
    checkpoint = verify_checkpoint((folder / "checkpoint").read_text(), [LOG_KEY.verifier])
    leaves = [leaf_hash(record) for record in records_in(folder, checkpoint.size)]
    assert root_of(grow_frontier([], 0, leaves)) == checkpoint.root
    edge, tiles = grow((), 0, leaves)
    for tile in tiles:
        assert (folder / tile_path(tile.level, tile.n)).read_bytes() == tile.hashes
    for level, hashes in enumerate(edge):
        if hashes:
            path = tile_path(level, checkpoint.size >> 8 * (level + 1), len(hashes))
            assert (folder / path).read_bytes() == b"".join(hashes)
    return checkpoint.size


async def test_a_folder_is_held_to_its_checkpoint_without_a_store(
    database: Database, tmp_path: Path, home: Path
) -> None:
    folder, hashes = tmp_path / "log", tmp_path / "hashes"
    keys = [LOG_KEY.verifier]
    async with opened(database("ice")) as store:
        with pytest.raises(RejectedError, match="NB-7006"):
            verify_exported(folder, log_keys=keys)
        await sealed(store, 700)
        await exported(store, folder)
        await exported(store, hashes, entries=False)
    seen: list[tuple[int, int]] = []

    whole = verify_exported(folder, log_keys=keys, progress=lambda *done: seen.append(done))

    assert (whole.size, whole.tiles, whole.entries) == (700, 4, True)
    assert seen == [(256, 700), (512, 700), (700, 700)]
    assert verify_exported(hashes, log_keys=keys).entries is False
    command = CommandLine(home)
    line = f"ledger verify --exported {folder} --vkey {LOG_KEY.verifier.vkey()}"
    assert command.json(line)["size"] == 700
    entries = folder / tile_path("entries", 1)
    content = entries.read_bytes()
    entries.write_bytes(content.replace(b"taken", b"gone!", 1))
    done = command(line)
    assert done.code == 6
    assert f"NB-3213: {tile_path('entries', 1)}" in done.err
    assert "record 256 was changed" in done.err
    entries.write_bytes(content)
    other = Signer(ORIGIN, Ed25519PrivateKey.generate()).verifier
    with pytest.raises(EvidenceError, match="checkpoint"):
        verify_exported(folder, log_keys=[other])


@pytest.mark.parametrize(
    ("n", "width", "path"),
    [
        (0, 256, "tile/0/000"),
        (67, 256, "tile/0/067"),
        (1_234_067, 256, "tile/0/x001/x234/067"),
        (1_000, 12, "tile/0/x001/000.p/12"),
    ],
)
def test_tiles_stand_where_the_specification_says(n: int, width: int, path: str) -> None:
    assert tile_path(0, n, width) == path


@given(st.integers(min_value=0, max_value=70_000))
def test_an_edge_and_a_frontier_are_the_same_tree(size: int) -> None:
    leaves = [leaf_hash(b"%d" % (number % 7)) for number in range(size)]
    edge, _ = grow((), 0, leaves)

    assert frontier_of(edge) == list(grow_frontier([], 0, leaves))


async def test_an_export_proves_its_checkpoint_and_grows_by_what_is_new(
    database: Database, tmp_path: Path
) -> None:
    async with opened(database("ice")) as store:
        with pytest.raises(NotFoundError, match="NB-7018"):
            await exported(store, tmp_path / "log")
        await sealed(store, 700)
        first = await exported(store, tmp_path / "log")
        assert assert_proves(tmp_path / "log") == first.size == first.added == 700
        full = tmp_path / "log" / tile_path(0, 1)
        before = full.stat()

        await sealed(store, 100)
        second = await exported(store, tmp_path / "log")

        # That somebody exported it is a record, too.
        assert assert_proves(tmp_path / "log") == second.size == 801
        assert second.added == 801 - 512
        assert (full.stat().st_ino, full.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        # What is full now needs no partial tiles any more.
        assert not (tmp_path / "log/tile/0/002.p").exists()
        assert not (tmp_path / "log/tile/entries/002.p").exists()


async def test_hashes_alone_hold_no_record_and_records_can_be_added_later(
    database: Database, tmp_path: Path
) -> None:
    async with opened(database("ice")) as store:
        await sealed(store, 300)
        await exported(store, tmp_path / "log", entries=False)
        assert not (tmp_path / "log/tile/entries").exists()
        assert b"message.received" not in b"".join(files(tmp_path / "log").values())

        await exported(store, tmp_path / "log", entries=True)

        assert_proves(tmp_path / "log")


async def test_an_interrupted_export_goes_on(database: Database, tmp_path: Path) -> None:
    async with opened(database("ice")) as store:
        await sealed(store, 6_000)

        def interrupt(done: int, _: int) -> None:
            if done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await export(
                store, tmp_path / "log", entries=True, actor="an operator", progress=interrupt
            )
        assert not (tmp_path / "log/checkpoint").exists()
        went_on = await exported(store, tmp_path / "log")

        assert went_on.added == 6_000 - 4_096
        assert assert_proves(tmp_path / "log") == 6_000


async def test_a_folder_of_another_log_is_refused(database: Database, tmp_path: Path) -> None:
    async with opened(database("ice")) as ours, opened(database("ice")) as theirs:
        await sealed(ours, 300)
        await sealed(theirs, 400)
        await exported(theirs, tmp_path / "log")
        before = files(tmp_path / "log")

        with pytest.raises(EvidenceError, match="NB-3091"):
            await exported(ours, tmp_path / "log")
        await sealed(ours, 300)
        with pytest.raises(EvidenceError, match="NB-3090"):
            await exported(ours, tmp_path / "log")
        (tmp_path / "log/checkpoint").unlink()
        with pytest.raises(EvidenceError, match="NB-3090"):
            await exported(ours, tmp_path / "log")

        assert files(tmp_path / "log") == {
            path: content for path, content in before.items() if path != "checkpoint"
        }


async def test_a_changed_record_is_never_published_under_a_checkpoint(
    database: Database, tmp_path: Path
) -> None:
    async with opened(database("ice")) as store:
        await sealed(store, 300)
        async with store.transaction() as tx:
            await tx.execute("ALTER TABLE record DISABLE TRIGGER ALL")
            await tx.execute(
                "UPDATE record SET record = record || ' ' WHERE record_id ="
                " (SELECT record_id FROM log_entry WHERE record_index = 290)"
            )
        with pytest.raises(EvidenceError, match="NB-3036"):
            await exported(store, tmp_path / "log")
        async with store.transaction() as tx:
            await tx.execute(
                "DELETE FROM record WHERE record_id ="
                " (SELECT record_id FROM log_entry WHERE record_index = 290)"
            )
        with pytest.raises(EvidenceError, match=r"NB-3030.* 290 "):
            await exported(store, tmp_path / "log")

        assert not (tmp_path / "log/checkpoint").exists()


async def test_a_folder_that_cannot_be_written_is_said(database: Database, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    async with opened(database("ice")) as store:
        await sealed(store, 3)

        with pytest.raises(RejectedError, match="NB-3092"):
            await exported(store, tmp_path / "log")


@asynccontextmanager
async def served(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async def held() -> None:
        async with store.glance() as look:
            await hold(look, anchor_of(store))

    async with (
        HealthServer(HttpSettings(port=0), {}, routers=[log_routes(store, held)]) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client,
    ):
        yield client


async def test_http_serves_the_same_bytes_as_the_export(database: Database, tmp_path: Path) -> None:
    async with opened(database("ice")) as store, served(store) as client:
        assert (await client.get("/log/checkpoint")).status_code == 404
        # One tile of level 1, full, and one of each kind that is not.
        await sealed(store, 256 * 256 + 300)
        token = await access.create(
            store, "inspector-general", lifetime=timedelta(days=1), actor="an operator"
        )
        await exported(store, tmp_path / "log")
        bearer = {"Authorization": f"Bearer {token.secret}"}
        kept = files(tmp_path / "log")
        assert {"tile/1/000", "tile/2/000.p/1", "tile/entries/256"} <= kept.keys()

        for path, content in sorted(kept.items())[::37]:
            answer = await client.get(f"/log/{path}", headers=bearer)
            assert (answer.status_code, answer.content) == (200, content), path
            immutable = "immutable" in answer.headers["cache-control"]
            assert immutable == (".p/" not in path and path != "checkpoint")


async def test_http_serves_nothing_of_a_store_that_does_not_continue_its_anchor(
    database: Database,
) -> None:
    async with opened(database("ice")) as store, served(store) as client:
        await sealed(store, 300)
        anchor = anchor_of(store)
        note = anchor.read()
        assert note is not None
        paths = ("/log/checkpoint", "/log/tile/0/000", "/log/tile/entries/000")

        anchor.write(sign_checkpoint(301, bytes(32), LOG_KEY))

        for path in paths:
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (500, "NB-3150")
        anchor.write(note)
        assert [(await client.get(path)).status_code for path in paths] == [200, 200, 401]


async def test_records_are_for_bearers_of_a_valid_token(database: Database) -> None:
    async with opened(database("ice")) as store, served(store) as client:
        await sealed(store, 5)
        token = await access.create(
            store, "inspector-general", lifetime=timedelta(days=1), actor="an operator"
        )
        with pytest.raises(ConflictError, match="NB-4052"):
            await access.create(
                store, "inspector-general", lifetime=timedelta(days=1), actor="an operator"
            )
        ended = await access.create(
            store, "auditor", lifetime=timedelta(days=-1), actor="an operator"
        )
        address = "/log/tile/entries/000.p/5"

        async def status(authorization: str | None) -> int:
            headers = {} if authorization is None else {"Authorization": authorization}
            return (await client.get(address, headers=headers)).status_code

        assert (await client.get("/log/tile/0/000.p/5")).status_code == 200
        assert await status(f"Bearer {token.secret}") == 200
        for wrong in (None, "", "Bearer", "Bearer wrong", f"Basic {token.secret}"):
            assert await status(wrong) == 401
        assert await status(f"Bearer {ended.secret}") == 401
        refused = await client.get(address)
        assert refused.json()["code"] == "NB-4050"
        assert refused.headers["www-authenticate"] == "Bearer"

        await access.revoke(store, "inspector-general", actor="an operator")

        assert await status(f"Bearer {token.secret}") == 401
        with pytest.raises(NotFoundError, match="NB-4051"):
            await access.revoke(store, "inspector-general", actor="an operator")
        async with store.transaction() as tx:
            found = await (
                await tx.execute("SELECT string_agg(t::text, '') FROM access_token t")
            ).fetchone()
        assert found is not None
        assert token.secret not in found[0]


async def test_addresses_that_no_checkpoint_covers_are_not_there(database: Database) -> None:
    async with opened(database("ice")) as store, served(store) as client:
        await sealed(store, 300)
        for path in (
            "tile/0/001",
            "tile/0/001.p/45",
            "tile/0/001.p/256",
            "tile/0/0",
            "tile/0/x000/000",
            "tile/1/000.p/2",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/000.p/0",
            "nothing",
        ):
            answer = await client.get(f"/log/{path}")
            assert answer.status_code == 404, path
            if path != "nothing":
                said = answer.json()
                assert (said["code"], said["sentence"]) == (
                    "NB-3093",
                    "no file of the log has this address",
                )
                assert "C2SP tlog-tiles, below the newest checkpoint" in said["fix"]
