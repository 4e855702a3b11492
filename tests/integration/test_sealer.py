"""The sealer: gapless numbering, one tree, and no signature for what was rolled back."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.checkpoint import verify_checkpoint
from schemas.errors import ConflictError, EvidenceError
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
from services.ledger import tree
from services.ledger.sealer import ANSWER_BYTES_MAX, SEALER_LOCK
from services.ledger.store import append_returning
from tests.ledgers import (
    LOG_KEY,
    Answers,
    a_sealer,
    assert_verifies,
    keep,
    log_of,
    opened,
    seal_all,
    some_records,
    tamper,
    until,
)

Database = Callable[[str], str]
ROOT = Path(__file__).parent.parent.parent


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
            (late,) = await append_returning(tx, some_records(1))
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


async def test_a_proof_that_needs_what_is_gone_says_where_it_is_gone(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:
        await keep(store, some_records(600))
        await seal_all(a_sealer(store))
        tamper(
            url,
            "DELETE FROM tile WHERE level = 0 AND n = 1",
            "DELETE FROM log_entry WHERE record_index = 300",
        )

        async with store.transaction() as tx:
            with pytest.raises(EvidenceError) as caught:
                await tree.inclusion(tx, 301, 600)
            # What lies elsewhere proves as before.
            assert await tree.inclusion(tx, 10, 256)

    assert str(caught.value) == (
        "NB-3006 records or tiles that a proof needs, from index 300 under size 301, are missing"
    )
    assert "noticebus ledger verify" in caught.value.fix


async def test_sealer_that_starts_anew_goes_on_from_the_stored_tree(database: Database) -> None:
    async with opened(database("ice")) as store:
        for count in (300, 212, 1, 255, 300):
            await keep(store, some_records(count))
            await seal_all(a_sealer(store))

        await assert_verifies(store, size=1068)


@pytest.mark.parametrize(
    ("owes", "interval_seconds"),
    # The first interval is longer than anybody here waits: only a debt can wake it.
    [("hhs", 60), (None, 0.2)],
    ids=["what is owed at once", "the rest within its interval"],
)
async def test_a_running_sealer_seals(
    database: Database, owes: str | None, interval_seconds: float
) -> None:
    answers, stop = Answers(), asyncio.Event()
    async with opened(database("ice")) as store:
        sealer = a_sealer(store, answers, interval_seconds=interval_seconds)
        running = asyncio.create_task(sealer.run(stop))
        await until(lambda: sealer.healthy)

        await keep(store, some_records(1), owes=owes)

        await until(lambda: sealer.last_sealed_at is not None)
        assert len(answers.batches) == (1 if owes else 0)
        stop.set()
        await asyncio.wait_for(running, 5)
        assert not sealer.healthy
        await assert_verifies(store, size=1)


async def test_event_of_the_same_process_wakes_the_sealer(database: Database) -> None:
    stop = asyncio.Event()
    async with opened(database("ice")) as store:
        sealer = a_sealer(store, Answers(), interval_seconds=60)
        running = asyncio.create_task(sealer.run(stop))
        await until(lambda: sealer.healthy)
        await keep(store, some_records(1))

        sealer.wake.set()

        await until(lambda: sealer.last_sealed_at is not None)
        stop.set()
        await asyncio.wait_for(running, 5)


async def test_told_to_stop_it_seals_what_was_committed_before_it_ends(database: Database) -> None:
    stop = asyncio.Event()
    async with opened(database("ice")) as store:
        sealer = a_sealer(store, Answers(), interval_seconds=60, batch_max=100)
        running = asyncio.create_task(sealer.run(stop))
        await until(lambda: sealer.healthy)
        await keep(store, some_records(250))

        stop.set()

        await asyncio.wait_for(running, 10)
        await assert_verifies(store, size=250)


async def test_the_last_seal_does_not_keep_a_process_from_ending(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ledger.sealer.LAST_SECONDS", 0.3)
    stop = asyncio.Event()
    async with opened(database("ice")) as store:
        sealer = a_sealer(store)
        await keep(store, some_records(1))
        await seal_all(sealer)
        sealer = a_sealer(store, Answers(), interval_seconds=60)
        running = asyncio.create_task(sealer.run(stop))
        await until(lambda: sealer.healthy)
        await keep(store, some_records(1))
        async with store.transaction() as tx:
            await tx.execute("SELECT FROM log_head FOR UPDATE")

            stop.set()

            await asyncio.wait_for(running, 5)
        await seal_all(a_sealer(store))
        await assert_verifies(store, size=2)


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


async def test_lock_of_the_sealer_ends_with_its_session(database: Database) -> None:
    async with opened(database("ice")) as store:
        async with store.session() as session, store.session() as other:
            assert await session.try_lock(SEALER_LOCK)
            assert not await other.try_lock(SEALER_LOCK)
        async with store.session() as session:
            assert await session.try_lock(SEALER_LOCK)
