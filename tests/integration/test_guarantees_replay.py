"""Guarantee 10: a replay puts a projection right and moves nothing else."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest

from schemas.errors import RejectedError
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.replay import Selection, Target, plan, run
from tests.agencies import Pair, a_notice, accept, answered, running, two_agencies, until, value
from tests.steps import TO_ICE, change, on_stream, rows

# All that a message does when it is first taken, and all that a person did then.
LEFT_ALONE = (
    "SELECT * FROM inbox ORDER BY message_id",
    "SELECT * FROM sent ORDER BY stream, sequence",
    "SELECT * FROM outbox",
    "SELECT * FROM republish",
    "SELECT * FROM applied",
    "SELECT * FROM case_event ORDER BY event_id",
    "SELECT notice_id, opened_at, due_at, owner, taken_at, lease_until, reply_revision"
    " FROM case_file ORDER BY notice_id",
    "SELECT action, count(*) FROM record WHERE action NOT LIKE 'replay.%%'"
    " AND action <> 'entries.refused' GROUP BY action ORDER BY action",
)
WRONG = "SELECT count(*) FROM case_file WHERE office = 'ELSEWHERE'"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    """Both agencies at rest after two notices, one of them taken by a person; facts spoilt."""
    async with two_agencies(home, database, redis_url) as pair:
        drafts = [a_notice(), a_notice()]
        async with running(pair.ice, pair.ice_noted), running(pair.hhs, CaseWork()):
            await accept(pair.ice, *drafts)
            await until(lambda: answered(pair.ice, drafts), "the receipts")
            notice_id = drafts[0].notice_id
            assert isinstance(notice_id, UUID)
            await queue.take(pair.hhs.store, notice_id, actor="clerk")
            await until(lambda: acknowledged(pair), "the acknowledgement's receipt")
        await change(pair.hhs, "UPDATE case_file SET office = 'ELSEWHERE'")
        yield pair


async def acknowledged(pair: Pair) -> bool:
    query = "SELECT count(*) FROM sent WHERE kind = 'acknowledgement' AND answer = 'receipt'"
    return await value(pair.hhs, query) == 1


async def left_alone(pair: Pair) -> list[object]:
    return [await rows(pair.hhs, query) for query in LEFT_ALONE]


async def test_a_replay_sends_nothing_again_and_restarts_no_clock(pair: Pair) -> None:
    before, on_bus = await left_alone(pair), await on_stream(pair, TO_ICE)
    made = await plan(
        pair.hhs.store, "hhs", selection=Selection(), target=Target.of("store"), actor="clerk"
    )
    assert made.plan.changes == 2

    await run(pair.hhs.store, "hhs", made.plan, actor="clerk", reason="mended", confirm=2)

    assert await value(pair.hhs, WRONG) == 0
    assert await left_alone(pair) == before
    assert await on_stream(pair, TO_ICE) == on_bus


async def test_a_replay_changes_nothing_before_its_changes_were_shown_and_confirmed(
    pair: Pair,
) -> None:
    made = await plan(
        pair.hhs.store, "hhs", selection=Selection(), target=Target.of("store"), actor="clerk"
    )
    before = await left_alone(pair)

    for confirm, code in ((None, "NB-6015"), (1, "NB-6016")):
        with pytest.raises(RejectedError) as refused:
            await run(
                pair.hhs.store, "hhs", made.plan, actor="clerk", reason="mended", confirm=confirm
            )
        assert refused.value.code == code

    assert await value(pair.hhs, WRONG) == 2
    assert await left_alone(pair) == before
    assert all(event.finding.differences for event in made.first)
