"""The sealer when it is stopped in the middle: no fork, no gap, and nothing lost."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from schemas.checkpoint import Signer, verify_checkpoint
from schemas.errors import EvidenceError, UnavailableError
from services.embedded import PostgresServer
from services.ledger.sealer import SEALER_LOCK, Sealed, Sealer
from services.ledger.store import Session, Store, Transaction, append, migrate
from services.ledger.verify import verify
from services.settings import SealerSettings
from tests.ledgers import (
    LOG_KEY,
    a_sealer,
    anchor_of,
    assert_verifies,
    keep,
    log_of,
    opened,
    seal_all,
    some_records,
    until,
)

Database = Callable[[str], str]
ROOT = Path(__file__).parent.parent.parent


async def test_ten_writers_and_a_sealer_that_is_cancelled_again_and_again(
    database: Database,
) -> None:
    """Cancelled between signing and commit, or anywhere else: no fork, no gap, none lost."""
    rng = random.Random(7)
    signed: list[Sealed] = []
    kept: list[str] = []

    async def answer(tx: Transaction, sealed: Sealed) -> None:
        signed.append(sealed)
        task = asyncio.current_task()
        if task is not None and rng.random() < 0.5:
            asyncio.get_running_loop().call_later(rng.random() * 0.002, task.cancel)
        await asyncio.sleep(rng.random() * 0.002)

    async def write(store: Store) -> None:
        while len(signed) < 30:
            async with store.transaction() as tx:
                await append(tx, some_records(rng.randint(1, 9)), owes="hhs")
                await asyncio.sleep(rng.random() * 0.01)

    async def seal(store: Store, stop: asyncio.Event) -> None:
        while not stop.is_set():
            sealer = Sealer(
                store,
                log_key=LOG_KEY,
                settings=SealerSettings(interval_seconds=0.01),
                answer=answer,
                anchor=anchor_of(store),
            )
            await asyncio.gather(sealer.run(stop), return_exceptions=True)

    async with opened(database("ice")) as store:
        stop = asyncio.Event()
        sealing = asyncio.create_task(seal(store, stop))
        await asyncio.gather(*(write(store) for _ in range(10)))
        stop.set()
        await sealing
        await seal_all(a_sealer(store))

        async with store.transaction() as tx:
            cursor = await tx.execute("SELECT note FROM checkpoint ORDER BY size")
            kept = [row[0] for row in await cursor.fetchall()]
            cursor = await tx.execute("SELECT count(*) FROM record")
            row = await cursor.fetchone()
        assert row is not None
        log = await log_of(store)
        assert [index for index, _ in log] == list(range(row[0]))
        assert len({record_id for _, record_id in log}) == row[0]
        await assert_verifies(store, size=row[0])
    # Some were cancelled after signing; what they signed was kept by nobody.
    assert any(sealed.checkpoint not in kept for sealed in signed)
    assert len(kept) > 1


DIES = """
import asyncio, os, signal, sys
from services.ledger.sealer import Sealer
from services.ledger.store import Store
from services.settings import SealerSettings
from tests.ledgers import LOG_KEY, anchor_of

async def answer(tx, sealed):
    os.write(1, sealed.checkpoint.encode())
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = await Store.open(sys.argv[1])
    settings, anchor = SealerSettings(), anchor_of(store)
    sealer = Sealer(store, log_key=LOG_KEY, settings=settings, answer=answer, anchor=anchor)
    await sealer.seal_once()

asyncio.run(main())
"""


async def test_process_that_is_killed_after_signing_leaves_no_fork(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:
        await keep(store, some_records(3), owes="hhs")
        killed = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DIES, url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        note, _ = await asyncio.wait_for(killed.communicate(), 60)
        assert killed.returncode == -signal.SIGKILL
        assert verify_checkpoint(note.decode(), [LOG_KEY.verifier]).size == 3
        await keep(store, some_records(3), owes="hhs")
        # The server frees the lock of a dead client when it next reads from it.
        await until(lambda: _lock_is_free(store))

        await seal_all(a_sealer(store))

        await assert_verifies(store, size=6)


async def _lock_is_free(store: Store) -> bool:
    async with store.session() as session:
        return await session.try_lock(SEALER_LOCK)


async def test_connection_that_ends_after_signing_leaves_no_fork(database: Database) -> None:
    url = database("ice")
    notes: list[str] = []

    async def answer(tx: Transaction, sealed: Sealed) -> None:
        notes.append(sealed.checkpoint)
        if len(notes) == 1:
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with opened(url) as store:
        await keep(store, some_records(3), owes="hhs")
        sealer = Sealer(
            store,
            log_key=LOG_KEY,
            settings=SealerSettings(),
            answer=answer,
            anchor=anchor_of(store),
        )
        with pytest.raises(UnavailableError):
            await sealer.seal_once()
        assert await log_of(store) == []
        # Another record comes first now, so the same size means another root.
        await keep(store, some_records(3), owes="hhs")

        assert await sealer.seal_once() is not None

        assert len(notes) == 2
        await assert_verifies(store, size=6, also=notes[1:])
        report = await verify(store, log_keys=[LOG_KEY.verifier], also=notes)
        assert report.difference is not None


async def test_commit_whose_outcome_is_unknown_is_read_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit happens, its answer is lost: the sealer goes on from the head that is stored."""
    async with opened(database("ice")) as store:
        sealer = a_sealer(store)
        await keep(store, some_records(300))
        committed = Session.pipelined

        @asynccontextmanager
        async def lost(self: Session, *, seconds: float) -> AsyncIterator[Transaction]:
            async with committed(self, seconds=seconds) as tx:
                yield tx
            raise UnavailableError("NB-5001", reason="the connection was lost")

        with monkeypatch.context() as patch:
            patch.setattr(Session, "pipelined", lost)
            with pytest.raises(UnavailableError):
                await sealer.seal_once()
        await keep(store, some_records(300))

        sealed = await sealer.seal_once()

        assert sealed is not None
        assert (sealed.first_index, sealed.size) == (300, 600)
        await assert_verifies(store, size=600)


async def test_sealer_survives_a_restart_of_the_server(own_postgres: PostgresServer) -> None:
    await asyncio.to_thread(migrate, own_postgres.url, "ice")
    stop = asyncio.Event()
    async with opened(own_postgres.url) as store:
        sealer = a_sealer(store)
        running = asyncio.create_task(sealer.run(stop))
        await keep(store, some_records(300), owes="hhs")
        await until(lambda: sealer.last_sealed_at is not None)
        own_postgres.kill()
        own_postgres.start()
        await keep(store, some_records(300), owes="hhs")

        await until(lambda: _all_sealed(store))

        stop.set()
        await asyncio.wait_for(running, 10)
        await assert_verifies(store, size=600)


async def _all_sealed(store: Store) -> bool:
    async with store.transaction() as tx:
        cursor = await tx.execute("SELECT count(*) FROM unsealed")
        row = await cursor.fetchone()
    return row is not None and row[0] == 0


async def test_ledger_of_another_key_is_not_sealed(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:
        await keep(store, some_records(1))
        await seal_all(a_sealer(store))
        other = a_sealer(store, log_key=Signer("hhs.example/noticebus/hhs/1", LOG_KEY.private))
        await keep(store, some_records(1))

        with pytest.raises(EvidenceError, match="NB-3003"):
            await other.seal_once()
        with psycopg.connect(url, connect_timeout=10) as connection:
            connection.execute(b"UPDATE log_head SET origin = 'hhs.example/noticebus/hhs/1'")
        with pytest.raises(EvidenceError, match="NB-3151"):
            await other.seal_once()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_head SET root = sha256('x')",
        "UPDATE log_head SET frontier = ARRAY[sha256('x')]",
        "UPDATE log_head SET size = 7, frontier = '{}'",
    ],
)
async def test_head_that_contradicts_itself_stops_the_sealer(
    database: Database, statement: str
) -> None:
    url = database("ice")
    async with opened(url) as store:
        await keep(store, some_records(4))
        await seal_all(a_sealer(store))
        await keep(store, some_records(1))
        with psycopg.connect(url, connect_timeout=10) as connection:
            connection.execute(statement.encode())

        with pytest.raises(EvidenceError):
            await a_sealer(store).run(asyncio.Event())

        assert len(await log_of(store)) == 4


async def test_head_set_back_by_hand_stops_the_sealer(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:
        await keep(store, some_records(1))
        await seal_all(a_sealer(store))
        await keep(store, some_records(1))
        with psycopg.connect(url, connect_timeout=10) as connection:
            connection.execute(b"UPDATE log_head SET size = 0, frontier = '{}', root = sha256('')")

        with pytest.raises(EvidenceError, match="NB-3150"):
            await a_sealer(store).seal_once()
        anchor_of(store).remove()
        with pytest.raises(EvidenceError, match="NB-3005"):
            await a_sealer(store).seal_once()
