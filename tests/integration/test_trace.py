"""A notice goes to HHS and back over a real bus; both sides trace it and verify each step."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from services.exchange.agency import Agency
from services.exchange.trace import Step, Verified
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import notices
from services.ice.effects import IceEffects
from tests.agencies import Pair, running, two_agencies, until
from tests.notices_made import by_hand


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as both:
        yield both


@asynccontextmanager
async def exchange(pair: Pair) -> AsyncIterator[None]:
    """Run both sides with what they really do with messages."""
    async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
        yield


async def send_and_close(pair: Pair) -> UUID:
    """Send a notice, take it and close it; returns once both sides have every receipt."""
    sent = await notices.send(pair.ice.store, by_hand(), actor="officer")
    notice_id = sent.item.notice_id

    async def arrived() -> bool:
        return bool(await queue.listed(pair.hhs.store))

    async def came_back() -> bool:
        [item] = await notices.listed(pair.ice.store)
        return item.state == "closed"

    async def sealed_on_both_sides() -> bool:
        return all([await sealed(agency) for agency in (pair.ice, pair.hhs)])

    async def sealed(agency: Agency) -> bool:
        async with agency.store.transaction() as tx:
            cursor = await tx.execute(
                "SELECT (SELECT count(*) FROM unsealed)"
                " + (SELECT count(*) FROM sent WHERE answer IS NULL)"
            )
            row = await cursor.fetchone()
        return row is not None and row[0] == 0

    await until(arrived, "the notice at HHS")
    await queue.take(pair.hhs.store, notice_id, actor="clerk")
    await queue.outcome(pair.hhs.store, notice_id, code="NOT_REACHED", actor="clerk")
    await until(came_back, "the outcome at ICE")
    await until(sealed_on_both_sides, "every record sealed and every message answered")
    return notice_id


def names(steps: list[Step]) -> list[str]:
    return [step.step for step in steps]


async def test_both_sides_trace_a_notice_with_every_step_verified(pair: Pair) -> None:
    async with exchange(pair):
        notice_id = await send_and_close(pair)

    ours = await notices.traced(pair.ice, notice_id)
    theirs = await queue.traced(pair.hhs, notice_id)
    [item] = await notices.listed(pair.ice.store)

    assert names(list(ours.steps)) == [
        "notice.recorded",
        "message.sent",
        "message.receipted",
        "message.received",
        "notice.acknowledged",
        "message.received",
        "notice.closed",
    ]
    assert {step.verified for step in (*ours.steps, *theirs.steps)} == {Verified.YES}
    assert all(step.record_index is not None for step in (*ours.steps, *theirs.steps))
    receipt = ours.steps[2]
    assert (receipt.agency, receipt.peer_at is not None) == ("hhs", True)
    assert ours.steps[0].actor == "officer"
    # The clerk closes the case faster than the bus carries the acknowledgement.
    assert sorted(names(list(theirs.steps))) == [
        "case.closed",
        "case.taken",
        "message.receipted",
        "message.receipted",
        "message.received",
        "message.sent",
        "message.sent",
    ]
    assert item.outcome_code == "CONTACT_NOT_MADE"
    assert None not in (item.sent_at, item.receipt_at, item.acknowledged_at, item.closed_at)


async def test_a_trace_shows_a_record_that_was_changed(pair: Pair) -> None:
    async with exchange(pair):
        notice_id = await send_and_close(pair)
    async with pair.ice.store.transaction() as tx:
        await tx.execute("ALTER TABLE record DISABLE TRIGGER append_only")
        await tx.execute(
            "UPDATE record SET record = convert_to(replace(convert_from(record, 'UTF8'),"
            ' \'"action":"notice.recorded"\', \'"action":"notice.withdrawn"\'), \'UTF8\')'
            " WHERE notice_id = %s",
            [notice_id],
        )

    trace = await notices.traced(pair.ice, notice_id)

    assert not trace.holds
    failed = [step for step in trace.steps if step.verified is Verified.FAILED]
    assert [(step.step, step.fault) for step in failed][:1] == [("notice.recorded", "NB-3041")]


async def test_a_trace_shows_a_receipt_that_proves_nothing(pair: Pair) -> None:
    async with exchange(pair):
        notice_id = await send_and_close(pair)
    async with pair.ice.store.transaction() as tx:
        await tx.execute(
            "UPDATE sent SET answer_index = answer_index + 1 WHERE notice_id = %s", [notice_id]
        )

    trace = await notices.traced(pair.ice, notice_id)

    failed = [step for step in trace.steps if step.verified is Verified.FAILED]
    assert [(step.step, step.fault) for step in failed] == [("message.receipted", "NB-3080")]


async def test_what_is_not_sealed_yet_is_no_failure(pair: Pair) -> None:
    sent = await notices.send(pair.ice.store, by_hand(), actor="officer")

    trace = await notices.traced(pair.ice, sent.item.notice_id)

    assert trace.holds
    assert [(step.step, step.verified) for step in trace.steps] == [
        ("notice.recorded", Verified.NOT_YET)
    ]
