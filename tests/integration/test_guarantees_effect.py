"""Guarantees 2, 3 and 6: one effect, all of it in one transaction, in the order of revisions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from schemas.envelope import Kind
from schemas.errors import RejectedError, UnavailableError
from services.exchange import dead
from services.exchange.effects import Taken
from services.exchange.held import apply_held
from services.exchange.process import delivery_of
from services.exchange.store import incoming
from services.hhs.casework import CaseWork
from tests.agencies import Pair, a_notice, answered, two_agencies, until, value
from tests.steps import (
    TO_ICE,
    attributes_of,
    change,
    forged,
    on_stream,
    relay,
    rows,
    sent,
)

FAIL_AT_COMMIT = """
CREATE FUNCTION fail_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'late' USING ERRCODE = 'admin_shutdown'; END $$
"""
ON_COMMIT = """
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON inbox DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fail_late()
"""
RECEIVED = "SELECT count(*) FROM record WHERE action = 'message.received'"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def test_effect_inbox_record_and_debt_stand_or_fall_together(pair: Pair) -> None:
    entries = await sent(pair, a_notice())
    delivery = delivery_of(pair.hhs, CaseWork())
    # The commit itself fails, after everything else was written.
    await change(pair.hhs, FAIL_AT_COMMIT)
    await change(pair.hhs, ON_COMMIT)

    with pytest.raises(UnavailableError):
        await delivery.take(entries)

    assert await counts(pair) == (0, 0, 0, 0)
    await change(pair.hhs, "DROP TRIGGER late ON inbox")
    await delivery.take(entries)
    assert await counts(pair) == (1, 1, 1, 1)


async def counts(pair: Pair) -> tuple[object, ...]:
    return (
        await value(pair.hhs, "SELECT count(*) FROM case_file"),
        await value(pair.hhs, "SELECT count(*) FROM inbox"),
        await value(pair.hhs, RECEIVED),
        await value(pair.hhs, "SELECT count(*) FROM unsealed WHERE owes = 'ice'"),
    )


async def test_nothing_is_answered_before_its_record_is_sealed(pair: Pair) -> None:
    entries = await sent(pair, a_notice())
    await delivery_of(pair.hhs, pair.hhs_noted).take(entries)
    await relay(pair.hhs, TO_ICE)

    assert await value(pair.hhs, "SELECT count(*) FROM sent") == 0
    assert await on_stream(pair, TO_ICE) == []


async def test_a_receipts_message_that_comes_twice_discharges_once(pair: Pair) -> None:
    draft = a_notice()
    await sent(pair, draft)
    async with pair.running(ice=()):
        await until(lambda: any_receipts(pair, TO_ICE), "the receipts")
    entries = await on_stream(pair, TO_ICE)
    delivery = delivery_of(pair.ice, pair.ice_noted)

    await delivery.take([*entries, *entries])
    await delivery.take(entries)

    assert [answer.message_id for answer in pair.ice_noted.answers] == [draft.message_id]
    verified = "SELECT count(*) FROM record WHERE action = 'receipts.verified'"
    assert await value(pair.ice, verified) == 1


async def test_copies_of_what_is_refused_are_answered_with_the_one_refusal(pair: Pair) -> None:
    (entry,) = await sent(pair, a_notice())
    broken = forged(pair, attributes_of(entry), b"{}")
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    await delivery.take([broken, broken])
    await relay(pair.hhs, TO_ICE)
    await delivery.take([broken])
    await relay(pair.hhs, TO_ICE)

    first, again = await on_stream(pair, TO_ICE)
    assert again.jws == first.jws
    assert await value(pair.hhs, "SELECT count(*) FROM sent WHERE kind = 'refusal'") == 1
    refused = "SELECT count(*) FROM record WHERE action = 'message.refused'"
    assert await value(pair.hhs, refused) == 1


async def test_another_message_of_an_applied_revision_is_refused_and_its_sender_told(
    pair: Pair,
) -> None:
    notice_id = uuid7()
    entries = await sent(pair, a_notice(notice_id), a_notice(notice_id))
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    await delivery.take(entries)
    await relay(pair.hhs, TO_ICE)
    await delivery_of(pair.ice, pair.ice_noted).take(await on_stream(pair, TO_ICE))

    assert [taken.revision for taken in pair.hhs_noted.taken] == [1]
    refused = "SELECT sequence FROM sent WHERE kind = 'fta' AND answer_code = 'NB-2153'"
    assert await rows(pair.ice, refused) == [(2,)]
    assert await value(pair.hhs, "SELECT count(*) FROM gap") == 0


async def test_one_revision_on_two_streams_at_once_is_applied_once(pair: Pair) -> None:
    notice_id = uuid7()
    async with pair.hhs.store.transaction() as first:
        assert await incoming.advance(first, {notice_id: 1})

        async def second() -> bool:
            async with pair.hhs.store.transaction() as tx:
                return await incoming.advance(tx, {notice_id: 1})

        slower = asyncio.create_task(second())
        await until(lambda: waits(pair), "the second to wait for the first")

    assert not await slower


async def waits(pair: Pair) -> bool:
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    return bool(await value(pair.hhs, blocked))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RejectedError("NB-2100", kind="fta", field="test", rule="fails"), "NB-2100"),
        (ValueError("a bug"), "NB-2110"),
    ],
)
async def test_a_held_message_that_cannot_be_applied_stops_nobody_and_can_be_redriven(
    pair: Pair, error: Exception, cause: str
) -> None:
    notices = [uuid7(), uuid7()]
    later = [a_notice(notice, revision=2) for notice in notices]
    first = [a_notice(notice) for notice in notices]
    poison = later[0]
    entries = await sent(pair, *later, *first)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    pair.hhs_noted.fail = lambda message: error if is_of(message, poison.message_id) else None
    await delivery.take(entries[:2])
    await delivery.take(entries[2:])

    async def set_aside() -> bool:
        await apply_held(pair.hhs, pair.hhs_noted)
        return bool(await dead.listed(pair.hhs))

    await until(set_aside, "the dead letter")

    (letter,) = await dead.listed(pair.hhs)
    assert (letter.cause, letter.message_id) == (cause, poison.message_id)
    assert await value(pair.hhs, "SELECT count(*) FROM inbox WHERE state = 'held'") == 0
    assert await value(pair.hhs, "SELECT count(*) FROM alarm WHERE code = %s", cause) == 1
    assert later[1].message_id in {taken.message_id for taken in pair.hhs_noted.taken}
    pair.hhs_noted.fail = lambda _: None
    redriven = await dead.redrive(delivery, letter, actor="clerk", reason="mended")
    assert redriven.state == "redriven"
    assert [t.message_id for t in pair.hhs_noted.taken].count(poison.message_id) == 1


def is_of(message: Taken, message_id: object) -> bool:
    return message.message_id == message_id


async def test_a_restart_applies_what_is_held_in_order(pair: Pair) -> None:
    notice_id = uuid7()
    drafts = [a_notice(notice_id, revision=revision) for revision in (3, 2, 1)]
    entries = await sent(pair, *drafts)
    await delivery_of(pair.hhs, pair.hhs_noted).take(entries[:2])
    assert pair.hhs_noted.taken == []

    async with pair.running():
        await until(lambda: answered(pair.ice, drafts), "every receipt")
        await until(lambda: reached(pair, 3), "the last revision")

    assert [taken.revision for taken in pair.hhs_noted.taken] == [1, 2, 3]


async def reached(pair: Pair, revision: int) -> bool:
    return await value(pair.hhs, "SELECT revision FROM applied") == revision


async def any_receipts(pair: Pair, stream: str) -> bool:
    """Heads share the control stream, and may come first."""
    return any(attributes_of(e).kind is Kind.RECEIPTS for e in await on_stream(pair, stream))
