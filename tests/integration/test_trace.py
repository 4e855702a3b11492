"""A notice goes to HHS and back over a real bus; both sides trace it and verify each step."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from schemas.errors import NotFoundError, RejectedError
from services.exchange.agency import Agency
from services.exchange.trace import Step, Verified, resolve
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import notices
from services.ice.effects import IceEffects
from services.keys import KeyRing
from tests.agencies import Pair, a_notice, accept, running, two_agencies, until, value
from tests.notices_made import by_hand
from tests.steps import LIVE, relay


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

    # The clerk may be faster than the receipt, which goes its own way back.
    assert [name for name in names(list(ours.steps)) if name != "message.receipted"] == [
        "notice.recorded",
        "message.sent",
        "message.received",
        "notice.acknowledged",
        "message.received",
        "notice.closed",
    ]
    assert {step.verified for step in (*ours.steps, *theirs.steps)} == {Verified.YES}
    assert all(step.record_index is not None for step in (*ours.steps, *theirs.steps))
    [receipt] = [step for step in ours.steps if names([step]) == ["message.receipted"]]
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


async def test_a_notice_that_came_too_early_is_traced_as_held(pair: Pair) -> None:
    draft = a_notice(revision=2)
    async with running(pair.ice, IceEffects(), ["relay"]), running(pair.hhs, CaseWork()):
        await accept(pair.ice, draft)
        await until(lambda: received(pair.hhs), "it at HHS")

    assert draft.notice_id is not None
    trace = await queue.traced(pair.hhs, draft.notice_id)

    assert trace.state == "held"
    assert [(step.step, step.result, step.revision) for step in trace.steps] == [
        ("message.received", "held", 2)
    ]
    prefix = str(draft.notice_id)[:30]
    assert await resolve(pair.hhs.store, prefix, agency="hhs") == draft.notice_id


async def received(agency: Agency) -> object:
    return await value(agency, "SELECT count(*) > 0 FROM inbox WHERE kind = 'fta'")


async def test_a_notice_that_was_refused_is_traced_without_a_case(pair: Pair) -> None:
    pair.hhs_noted.fail = lambda _: RejectedError("NB-8002", kind="fta")
    draft = a_notice()
    assert draft.notice_id is not None
    async with pair.running():
        await accept(pair.ice, draft)
        await until(lambda: received(pair.hhs), "it at HHS")

    trace = await queue.traced(pair.hhs, draft.notice_id)

    assert trace.state == "refused"
    assert [(step.step, step.reason) for step in trace.steps] == [("message.refused", "NB-8002")]
    assert len(trace.set_aside) == 1


async def test_bytes_that_only_claim_to_be_a_notice_are_named_by_its_trace(
    pair: Pair, home: Path
) -> None:
    settings = pair.ice.settings
    pair.ice.ring = KeyRing.generate(home / "stranger", settings.domain, settings.agency)
    draft = a_notice()
    assert draft.notice_id is not None
    await accept(pair.ice, draft)
    await relay(pair.ice, LIVE)
    async with running(pair.hhs, CaseWork()):
        await until(
            lambda: value(pair.hhs, "SELECT count(*) > 0 FROM dead_letter"), "a dead letter"
        )

    trace = await queue.traced(pair.hhs, draft.notice_id)

    assert (trace.state, list(trace.steps), len(trace.set_aside)) == (None, [], 1)
    assert await resolve(pair.hhs.store, str(draft.notice_id), agency="hhs") == draft.notice_id


@pytest.mark.parametrize("text", ["", "%", "01_", "019c0de0-1111-7222-8333-0000000000010", "zz"])
async def test_what_names_no_notice_is_not_found(pair: Pair, text: str) -> None:
    with pytest.raises(NotFoundError, match="NB-6120"):
        await resolve(pair.ice.store, text, agency="ice")
