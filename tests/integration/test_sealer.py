"""The sealer: gapless numbering, one tree, and no signature for what was rolled back."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schemas.checkpoint import verify_checkpoint
from schemas.errors import ConflictError, EvidenceError, UnavailableError
from schemas.proof import (
    append as grow_frontier,
)
from schemas.proof import (
    batch_proofs,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from services.embedded import PostgresServer
from services.ledger import tree
from services.ledger.sealer import ANSWER_BYTES_MAX, SEALER_LOCK, Sealed, Sealer
from services.ledger.store import Store, Transaction, append, migrate
from services.ledger.verify import verify
from services.settings import SealerSettings
from tests.ledgers import LOG_KEY, Answers, a_sealer, keep, opened, seal_all, some_records

Database = Callable[[str], str]
ROOT = Path(__file__).parent.parent.parent


async def until(done: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            result = done()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.005)


async def log_of(store: Store) -> list[tuple[int, int]]:
    async with store.transaction() as tx:
        cursor = await tx.execute(
            "SELECT record_index, record_id FROM log_entry ORDER BY record_index"
        )
        return [(row[0], row[1]) for row in await cursor.fetchall()]


async def assert_verifies(store: Store, *, size: int, also: list[str] | None = None) -> None:
    report = await verify(store, log_keys=[LOG_KEY.verifier], also=also or [])
    assert report.difference is None
    assert (report.size, report.verified, report.unsealed) == (size, size, 0)


async def test_records_are_numbered_without_gaps_in_the_order_of_their_ids(
    database: Database,
) -> None:
    async with opened(database("ice")) as store:
        first = await keep(store, some_records(3))
        assert await a_sealer(store).seal_once() is not None
        second = await keep(store, some_records(2))

        await seal_all(a_sealer(store))

        assert await log_of(store) == list(enumerate(first + second))
        await assert_verifies(store, size=5)


async def test_nothing_to_seal_makes_no_checkpoint(database: Database) -> None:
    async with opened(database("ice")) as store:
        assert await a_sealer(store).seal_once() is None
        await assert_verifies(store, size=0)


async def test_earlier_id_that_commits_late_is_simply_next(database: Database) -> None:
    async with opened(database("ice")) as store:
        async with store.transaction() as tx:
            (late,) = await append(tx, some_records(1))
            (early,) = await keep(store, some_records(1))
            await seal_all(a_sealer(store))
        await seal_all(a_sealer(store))

        assert late < early
        assert await log_of(store) == [(0, early), (1, late)]
        await assert_verifies(store, size=2)


async def test_sealed_batch_carries_what_proves_it(database: Database) -> None:
    answers = Answers()
    records = some_records(7)
    async with opened(database("hhs")) as store:
        await keep(store, some_records(5))
        await seal_all(a_sealer(store))
        await keep(store, records, owes="ice")

        (sealed,) = await seal_all(a_sealer(store, answers))

    assert answers.batches == [sealed]
    assert (sealed.first_index, sealed.size) == (5, 12)
    assert [r.record for r in sealed.records] == [r.record for r in records]
    assert [r.message_id for r in sealed.records] == [r.message_id for r in records]
    assert {r.owes for r in sealed.records} == {"ice"}
    leaves = [leaf_hash(r.record) for r in sealed.records]
    checkpoint = verify_checkpoint(sealed.checkpoint, [LOG_KEY.verifier])
    assert (
        checkpoint.root == sealed.root == root_of(grow_frontier(sealed.frontier_before, 5, leaves))
    )
    for index, proof in enumerate(batch_proofs(sealed.frontier_before, 5, leaves)):
        verify_inclusion(leaves[index], index=5 + index, size=12, proof=proof, root=checkpoint.root)


async def test_batch_without_a_debt_is_not_answered(database: Database) -> None:
    answers = Answers()
    async with opened(database("ice")) as store:
        await keep(store, some_records(3))
        await seal_all(a_sealer(store, answers))

    assert answers.batches == []


async def test_batch_that_owes_answers_fits_into_one_message(database: Database) -> None:
    async with opened(database("ice")) as store:
        await keep(store, some_records(700), owes="hhs")
        await keep(store, some_records(600))

        batches = await seal_all(a_sealer(store))

        for sealed in batches[:2]:
            assert len(sealed.records) <= 500
            assert sum(len(r.record) for r in sealed.records if r.owes) <= ANSWER_BYTES_MAX
        assert sum(len(sealed.records) for sealed in batches) == 1300
        await assert_verifies(store, size=1300)


async def test_batch_without_debts_is_large_and_ends_before_the_first_debt(
    database: Database,
) -> None:
    async with opened(database("ice")) as store:
        await keep(store, some_records(900))
        await keep(store, some_records(1), owes="hhs")
        await keep(store, some_records(900))

        sizes = [len(sealed.records) for sealed in await seal_all(a_sealer(store))]

        assert sizes == [900, 500, 401]


@pytest.mark.parametrize("batch_max", [1, 100, 700])
async def test_batch_is_no_larger_than_set(database: Database, batch_max: int) -> None:
    async with opened(database("ice")) as store:
        await keep(store, some_records(batch_max + 1))

        sizes = [
            len(sealed.records) for sealed in await seal_all(a_sealer(store, batch_max=batch_max))
        ]

        assert sizes == [batch_max, 1]


async def test_proofs_hold_for_every_size(database: Database) -> None:
    """Sealed in batches that end before, at and after the edges of tiles."""
    ends = [1, 2, 3, 255, 256, 257, 300, 511, 512, 513, 700]
    records = some_records(ends[-1])
    leaves = [leaf_hash(record.record) for record in records]
    roots = {0: root_of([])}
    async with opened(database("ice")) as store:
        sealer = a_sealer(store)
        for first, end in zip([0, *ends], ends, strict=False):
            await keep(store, records[first:end])
            sealed = await sealer.seal_once()
            assert sealed is not None
            roots[sealed.size] = sealed.root
        assert list(roots) == [0, *ends]

        async with store.transaction() as tx:
            for size in ends:
                indexes = sorted({0, size // 2, size - 1, min(255, size - 1), min(256, size - 1)})
                proofs = await tree.inclusions(tx, indexes, size)
                for index, proof in zip(indexes, proofs, strict=True):
                    verify_inclusion(
                        leaves[index], index=index, size=size, proof=proof, root=roots[size]
                    )
                assert await tree.root_at(tx, size) == roots[size]
            for old in roots:
                for new in (size for size in roots if size >= old):
                    verify_consistency(
                        old=old,
                        old_root=roots[old],
                        new=new,
                        new_root=roots[new],
                        proof=await tree.consistency(tx, old, new),
                    )
            for index, size in ((0, 701), (700, 701)):
                with pytest.raises(EvidenceError) as caught:
                    await tree.inclusion(tx, index, size)
                assert caught.value.code == "NB-3007"


async def test_sealer_that_starts_anew_goes_on_from_the_stored_tree(database: Database) -> None:
    async with opened(database("ice")) as store:
        for count in (300, 212, 1, 255, 300):
            await keep(store, some_records(count))
            await seal_all(a_sealer(store))

        await assert_verifies(store, size=1068)


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
from tests.ledgers import LOG_KEY

async def answer(tx, sealed):
    os.write(1, sealed.checkpoint.encode())
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = await Store.open(sys.argv[1])
    await Sealer(store, log_key=LOG_KEY, settings=SealerSettings(), answer=answer).seal_once()

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
        sealer = Sealer(store, log_key=LOG_KEY, settings=SealerSettings(), answer=answer)
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
        commit = psycopg.AsyncConnection.transaction

        class Lost:
            def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
                self.inner = commit(connection)

            async def __aenter__(self) -> object:
                return await self.inner.__aenter__()

            async def __aexit__(self, *exc: Any) -> None:
                await self.inner.__aexit__(*exc)
                raise psycopg.OperationalError("the connection was lost")

        with monkeypatch.context() as patch:
            patch.setattr(psycopg.AsyncConnection, "transaction", lambda self: Lost(self))
            with pytest.raises(UnavailableError):
                await sealer.seal_once()
        await keep(store, some_records(300))

        sealed = await sealer.seal_once()

        assert sealed is not None
        assert (sealed.first_index, sealed.size) == (300, 600)
        await assert_verifies(store, size=600)


async def test_running_sealer_answers_at_once_and_seals_the_rest_within_its_interval(
    database: Database,
) -> None:
    answers, stop = Answers(), asyncio.Event()
    async with opened(database("ice")) as store:
        settings = SealerSettings(interval_seconds=2)
        sealer = Sealer(store, log_key=LOG_KEY, settings=settings, answer=answers)
        running = asyncio.create_task(sealer.run(stop))
        await until(lambda: sealer.healthy)
        started = time.monotonic()
        await keep(store, some_records(1), owes="hhs")
        await until(lambda: sealer.last_sealed_at is not None)
        sealed_at = sealer.last_sealed_at
        assert len(answers.batches) == 1
        # Far below the interval, which is as long as the sealer waits unless it is woken.
        assert time.monotonic() - started < 1.8

        await keep(store, some_records(1))

        await until(lambda: sealer.last_sealed_at != sealed_at)
        stop.set()
        await asyncio.wait_for(running, 5)
        assert not sealer.healthy
        await assert_verifies(store, size=2)


async def test_event_of_the_same_process_wakes_the_sealer(database: Database) -> None:
    stop = asyncio.Event()
    async with opened(database("ice")) as store:
        settings = SealerSettings(interval_seconds=60)
        sealer = Sealer(store, log_key=LOG_KEY, settings=settings, answer=Answers())
        running = asyncio.create_task(sealer.run(stop))
        await until(lambda: sealer.healthy)
        await keep(store, some_records(1))

        sealer.wake.set()

        await until(lambda: sealer.last_sealed_at is not None)
        stop.set()
        await asyncio.wait_for(running, 5)


async def test_second_sealer_stands_by_and_takes_over(database: Database) -> None:
    stops = [asyncio.Event(), asyncio.Event()]
    answers = [Answers(), Answers()]
    async with opened(database("ice")) as store:
        first = a_sealer(store, answers[0])
        running = [asyncio.create_task(first.run(stops[0]))]
        await until(lambda: first.healthy)
        second = a_sealer(store, answers[1])
        running.append(asyncio.create_task(second.run(stops[1])))
        await until(lambda: second.healthy)
        await keep(store, some_records(1), owes="hhs")
        await until(lambda: len(answers[0].batches) == 1)
        with pytest.raises(ConflictError) as caught:
            await a_sealer(store).seal_once()
        assert caught.value.code == "NB-3004"

        stops[0].set()
        await asyncio.wait_for(running[0], 5)
        await keep(store, some_records(1), owes="hhs")

        await until(lambda: len(answers[1].batches) == 1)
        stops[1].set()
        await asyncio.wait_for(running[1], 5)
        assert len(answers[0].batches) == 1
        await assert_verifies(store, size=2)


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
        with psycopg.connect(url, connect_timeout=10) as connection:
            connection.execute(b"UPDATE log_head SET origin = 'hhs.example/noticebus/hhs/1'")

        with pytest.raises(EvidenceError) as caught:
            await a_sealer(store).seal_once()

    assert caught.value.code == "NB-3003"


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

        with pytest.raises(EvidenceError) as caught:
            await a_sealer(store).seal_once()

    assert caught.value.code == "NB-3005"


async def test_lock_of_the_sealer_ends_with_its_session(database: Database) -> None:
    async with opened(database("ice")) as store:
        async with store.session() as session, store.session() as other:
            assert await session.try_lock(SEALER_LOCK)
            assert not await other.try_lock(SEALER_LOCK)
        async with store.session() as session:
            assert await session.try_lock(SEALER_LOCK)
