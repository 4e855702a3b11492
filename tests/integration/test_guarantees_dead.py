"""Guarantee 7: what is dead waits on the clock, its sender knows, and a later revision mends it."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.canonical import b64, canonical, parse
from schemas.envelope import Kind
from schemas.errors import RejectedError
from schemas.reply import Refusal
from services.bus import Entry
from services.exchange import dead
from services.exchange.beginnings import beginning
from services.exchange.effects import Answered, Taken
from services.exchange.held import apply_held
from services.exchange.outbox import Draft
from services.exchange.process import delivery_of
from services.hhs.casework import CaseWork
from services.ice import notices
from services.ice.effects import IceEffects
from services.ledger.store import Transaction
from services.replay import Selection, Target, plan
from services.replay.shadow import shadow
from services.reports import overdue
from tests.agencies import Pair, a_notice, answered, trust, two_agencies, until, value
from tests.notices_made import by_hand, recently
from tests.steps import LIVE, TO_ICE, change, on_stream, relay, rotate, rows, said, sent

ANSWER = "SELECT answer FROM sent WHERE message_id = %s"
LETTERS = "SELECT state FROM dead_letter ORDER BY first_at"
CASES = "SELECT notice_id, state, revision, opened_at FROM case_file"


@dataclass
class Picky:
    """HHS's part of taking a message, refusing what it is told to refuse."""

    refused: set[UUID] = field(default_factory=set)
    work: CaseWork = field(default_factory=CaseWork)

    async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
        if any(message.message_id in self.refused for message in messages):
            raise RejectedError("NB-2100", kind="fta", field="birth_date", rule="is wrong")
        await self.work.apply(tx, messages)

    async def answered(self, tx: Transaction, answers: Sequence[Answered]) -> None:
        await self.work.answered(tx, answers)


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


def later(draft: Draft, revision: int, *, kind: str = "CORRECTION", cause: Draft) -> Draft:
    """Return a later revision of a draft's notice that names another as its cause."""
    said = parse(draft.body)
    for name in ("supersedes", "reason_code"):
        said.pop(name, None)
    body = {
        **said,
        "revision": revision,
        "notice_kind": kind,
        "reason_code": "OTHER",
        "supersedes": str(cause.message_id),
    }
    return replace(
        draft,
        message_id=uuid7(),
        revision=revision,
        body=canonical(body),
        causation_id=cause.message_id,
    )


async def answers(pair: Pair) -> None:
    """Let HHS seal and send its answers, and ICE take them."""
    async with pair.running(ice=(), hhs=("sealer",)):
        await until(lambda: sealed(pair), "everything sealed")
    await relay(pair.hhs, TO_ICE)
    await delivery_of(pair.ice, IceEffects()).take(await on_stream(pair, TO_ICE))


async def follows_from_records(pair: Pair) -> None:
    """Check that HHS's cases, clocks included, are what its records and contents make of them."""
    found = await shadow(pair.hhs.store, "hhs")
    assert not found.differing, found.differences
    planned = await plan(
        pair.hhs.store, "hhs", selection=Selection(), target=Target.of("store"), actor="tester"
    )
    assert planned.plan.changes == 0, planned.first


async def sealed(pair: Pair) -> bool:
    return not await value(pair.hhs, "SELECT count(*) FROM unsealed")


async def of(pair: Pair, *drafts: Draft) -> list[Entry]:
    """Publish drafts; return their entries alone, in their order."""
    before = len(await on_stream(pair, LIVE))
    return (await sent(pair, *drafts))[before:]


async def test_a_correction_of_a_refused_notice_is_applied_and_resolves_its_dead_letter(
    pair: Pair,
) -> None:
    first = a_notice()
    correction = later(first, 2, cause=first)
    picky = Picky({first.message_id})
    delivery = delivery_of(pair.hhs, picky)
    await delivery.take(await of(pair, first))
    await answers(pair)
    [letter] = await dead.listed(pair.hhs)

    await delivery.take(await of(pair, correction))

    assert (letter.cause, letter.field, letter.office) == ("NB-2100", "birth_date", "CHI")
    assert await rows(pair.hhs, CASES) == [(first.notice_id, "unowned", 2, letter.first_at)]
    assert await rows(pair.hhs, "SELECT state, resolved_by FROM dead_letter") == [
        ("corrected", correction.message_id)
    ]
    assert await value(pair.hhs, "SELECT count(*) FROM record WHERE action = 'dead.corrected'") == 1
    await answers(pair)
    assert await value(pair.ice, ANSWER, first.message_id) == "refusal"
    assert await value(pair.ice, ANSWER, correction.message_id) == "receipt"
    await follows_from_records(pair)


async def test_what_is_missing_or_held_is_never_stepped_over(pair: Pair) -> None:
    first = a_notice()
    second = later(first, 2, kind="STATUS_UPDATE", cause=first)
    third = later(first, 3, cause=second)
    picky = Picky()
    delivery = delivery_of(pair.hhs, picky)
    entries = await of(pair, first, second, third)
    picky.refused = {second.message_id}
    # The second is poison when its turn comes; while the first is missing, nothing is applied.
    await delivery.take(entries[1:])
    assert await apply_held(pair.hhs, picky) == 0
    assert await rows(pair.hhs, CASES) == []

    await delivery.take(entries[:1])
    while await apply_held(pair.hhs, picky) or await value(
        pair.hhs, "SELECT count(*) FROM inbox WHERE state = 'held'"
    ):
        pass

    assert [row[:3] for row in await rows(pair.hhs, CASES)] == [(first.notice_id, "unowned", 3)]
    assert await rows(pair.hhs, LETTERS) == [("corrected",)]
    await follows_from_records(pair)


async def test_corrections_that_were_refused_themselves_are_stepped_over_with_the_first(
    pair: Pair,
) -> None:
    first = a_notice()
    second = later(first, 2, cause=first)
    third = later(first, 3, cause=second)
    delivery = delivery_of(pair.hhs, Picky({first.message_id, second.message_id}))

    await delivery.take(await of(pair, first))
    await delivery.take(await of(pair, second))
    assert await rows(pair.hhs, LETTERS) == [("open",), ("open",)]
    await delivery.take(await of(pair, third))

    assert await value(pair.hhs, "SELECT revision FROM case_file") == 3
    assert await rows(pair.hhs, LETTERS) == [("corrected",), ("corrected",)]


async def test_a_refused_notice_that_is_withdrawn_opens_no_work(pair: Pair) -> None:
    first = a_notice()
    withdrawal = later(first, 2, kind="WITHDRAWAL", cause=first)
    delivery = delivery_of(pair.hhs, Picky({first.message_id}))

    await delivery.take(await of(pair, first))
    await delivery.take(await of(pair, withdrawal))

    assert await value(pair.hhs, "SELECT state FROM case_file") == "withdrawn"
    assert await rows(pair.hhs, LETTERS) == [("corrected",)]
    await follows_from_records(pair)


async def test_a_message_of_another_notice_stands_in_for_nothing(pair: Pair) -> None:
    first = a_notice()
    stranger = later(a_notice(), 2, cause=first)
    picky = Picky({first.message_id})
    delivery = delivery_of(pair.hhs, picky)

    await delivery.take(await of(pair, first))
    await delivery.take(await of(pair, stranger))

    assert await apply_held(pair.hhs, picky) == 0
    assert await rows(pair.hhs, LETTERS) == [("open",)]
    assert await value(pair.hhs, "SELECT count(*) FROM inbox WHERE state = 'superseded'") == 0


async def test_a_held_message_that_fails_in_its_turn_is_dead_at_its_sender_until_redriven(
    pair: Pair,
) -> None:
    first = a_notice()
    second = later(first, 2, cause=first)
    picky = Picky({second.message_id})
    delivery = delivery_of(pair.hhs, picky)
    entries = await of(pair, first, second)
    await delivery.take(entries[1:])
    await answers(pair)
    assert await value(pair.ice, ANSWER, second.message_id) == "receipt"

    await delivery.take(entries[:1])
    await apply_held(pair.hhs, picky)
    await answers(pair)

    refusal = "SELECT code, field, receipt_message IS NOT NULL FROM refusal"
    assert await value(pair.ice, ANSWER, second.message_id) == "refusal"
    assert await rows(pair.ice, refusal) == [("NB-2100", "birth_date", True)]
    picky.refused.clear()
    [letter] = await dead.listed(pair.hhs)
    await dead.redrive(delivery, letter, actor="clerk", reason="mended")
    await answers(pair)
    assert await value(pair.ice, ANSWER, second.message_id) == "receipt"
    assert await value(pair.hhs, "SELECT revision FROM case_file") == 2


async def test_a_receipt_of_what_was_held_does_not_take_back_the_refusal_that_followed(
    pair: Pair,
) -> None:
    first = a_notice()
    second = later(first, 2, cause=first)
    picky = Picky({second.message_id})
    delivery = delivery_of(pair.hhs, picky)
    entries = await of(pair, first, second)
    await delivery.take(entries[1:])
    await delivery.take(entries[:1])
    await apply_held(pair.hhs, picky)
    async with pair.running(ice=(), hhs=("sealer",)):
        await until(lambda: sealed(pair), "everything sealed")
    await relay(pair.hhs, TO_ICE)
    kinds = await rows(pair.hhs, "SELECT kind FROM sent ORDER BY sequence")
    control = await on_stream(pair, TO_ICE)
    ice = delivery_of(pair.ice, pair.ice_noted)

    # The refusal overtakes the receipt of the held message: order never rests on the stream.
    refused = [entry for entry, (kind,) in zip(control, kinds, strict=True) if kind == "refusal"]
    others = [entry for entry in control if entry not in refused]
    await ice.take([*refused, *others])

    assert await value(pair.ice, ANSWER, first.message_id) == "receipt"
    assert await value(pair.ice, ANSWER, second.message_id) == "refusal"


async def test_a_receipt_of_what_was_taken_stands_against_a_later_refusal(pair: Pair) -> None:
    first = a_notice()
    async with pair.running():
        await sent(pair, first)
        await until(lambda: answered(pair.ice, [first]), "the receipt")

    await refuse_by_hand(pair, first)

    assert await value(pair.ice, ANSWER, first.message_id) == "receipt"
    assert await value(pair.ice, "SELECT count(*) FROM refusal") == 0


async def refuse_by_hand(pair: Pair, draft: Draft) -> None:
    """Let HHS refuse what it took, as a bug of it might."""
    [(stream, sequence, digest)] = await rows(
        pair.ice,
        "SELECT stream, sequence, envelope_hash FROM sent WHERE message_id = %s",
        draft.message_id,
    )
    refusal = Refusal(
        message_id=draft.message_id,
        stream=stream,
        generation=1,
        sequence=sequence,
        envelope=b64(digest),
        code="NB-2110",
        final=False,
        at=datetime.now(UTC),
    )
    entry = said(pair.hhs, Kind.REFUSAL, refusal, sequence=1000)
    await delivery_of(pair.ice, pair.ice_noted).take([entry])


async def test_deadlines_run_on_while_the_message_is_dead_and_redrive_restarts_none(
    pair: Pair,
) -> None:
    notice = await notices.send(
        pair.ice.store, by_hand(hearing=f"{recently()}T09:00"), actor="officer"
    )
    notice_id = notice.item.notice_id
    picky = Picky({notice.message_id} if notice.message_id else set())
    delivery = delivery_of(pair.hhs, picky)
    await relay(pair.ice, LIVE)
    await delivery.take(await on_stream(pair, LIVE))
    await answers(pair)
    # Ten days pass, at ICE and at HHS.
    await change(pair.ice, "UPDATE notice_revision SET made_at = made_at - interval '10 days'")
    await change(pair.ice, "UPDATE obligation SET detected_at = detected_at - interval '10 days'")
    await change(pair.hhs, "UPDATE dead_letter SET first_at = first_at - interval '10 days'")
    [recorded] = [row[0] for row in await rows(pair.ice, "SELECT made_at FROM notice_revision")]

    [late] = await overdue.at_ice(pair.ice.store)
    [letter] = await dead.listed(pair.hhs)
    picky.refused.clear()
    await dead.redrive(delivery, letter, actor="clerk", reason="mended")
    [waiting] = await overdue.at_hhs(pair.hhs.store)

    assert (late.notice_id, late.stage, late.waits_for) == (notice_id, "receipt", "HHS")
    assert late.due_at - recorded < timedelta(days=1)
    [opened] = await rows(pair.hhs, "SELECT opened_at, due_at FROM case_file")
    assert opened[0] == letter.first_at < datetime.now(UTC) - timedelta(days=9)
    assert (waiting.notice_id, waiting.due_at) == (notice_id, opened[1])
    await follows_from_records(pair)


async def test_what_hhs_refused_is_seen_at_ice_corrected_there_and_resolved_at_hhs(
    pair: Pair,
) -> None:
    sent_now = await notices.send(pair.ice.store, by_hand(), actor="officer")
    assert sent_now.message_id is not None
    notice_id = sent_now.item.notice_id
    delivery = delivery_of(pair.hhs, Picky({sent_now.message_id}))
    stream = "{ice.hhs.backlog.0}:out"
    await relay(pair.ice, stream)
    await delivery.take(await on_stream(pair, stream))
    await answers(pair)
    [refused] = await notices.refused(pair.ice.store, state="open")

    corrected = await notices.correct(
        pair.ice.store, notice_id, {"birth_date": "2010-05-03"}, reason="DATA_ENTRY", actor="me"
    )
    [correcting] = await notices.refused(pair.ice.store)
    await relay(pair.ice, stream)
    await delivery.take((await on_stream(pair, stream))[1:])
    await answers(pair)

    assert (refused.message_id, refused.cause) == (sent_now.message_id, "NB-2100")
    assert (refused.field, refused.office, refused.revision) == ("birth_date", "HOU", 1)
    assert corrected.cause == sent_now.message_id
    assert correcting.state == "correcting"
    [after] = await notices.refused(pair.ice.store, begins=beginning(str(notice_id)[:20]))
    assert after.state == "corrected"
    assert (await notices.shown(pair.ice.store, notice_id, actor="me")).item.state == "receipted"
    assert await rows(pair.hhs, LETTERS) == [("corrected",)]
    assert await rows(pair.hhs, "SELECT revision, notice_kind FROM case_file") == [
        (2, "CORRECTION")
    ]
    await follows_from_records(pair)


async def test_a_discarded_letter_stays_late_on_both_sides_until_its_sender_mends_it(
    pair: Pair,
) -> None:
    sent_now = await notices.send(
        pair.ice.store, by_hand(hearing=f"{recently()}T09:00"), actor="officer"
    )
    assert sent_now.message_id is not None
    delivery = delivery_of(pair.hhs, Picky({sent_now.message_id}))
    await relay(pair.ice, LIVE)
    await delivery.take(await on_stream(pair, LIVE))
    await answers(pair)
    await change(pair.ice, "UPDATE notice_revision SET made_at = made_at - interval '10 days'")
    await change(pair.ice, "UPDATE obligation SET detected_at = detected_at - interval '10 days'")
    [before] = await overdue.at_ice(pair.ice.store)
    [letter] = await dead.listed(pair.hhs)
    [(kept,)] = await rows(pair.hhs, "SELECT bytes FROM dead_letter")

    await dead.discard(
        pair.hhs, [letter.dead_id], code="UNREADABLE", reason="no key", actor="clerk"
    )

    [after] = await overdue.at_ice(pair.ice.store)
    assert (after.notice_id, after.stage, after.due_at) == (
        before.notice_id,
        before.stage,
        before.due_at,
    )
    assert after.late_seconds >= before.late_seconds > 0
    assert await rows(pair.hhs, "SELECT bytes, state FROM dead_letter") == [(kept, "discarded")]
    await notices.correct(
        pair.ice.store, after.notice_id, {"office": "MIA"}, reason="OTHER", actor="officer"
    )
    await relay(pair.ice, LIVE)
    await delivery.take((await on_stream(pair, LIVE))[1:])
    assert await value(pair.hhs, "SELECT opened_at FROM case_file") == letter.first_at


async def test_an_unknown_key_that_hid_another_fault_is_told_and_can_be_corrected(
    pair: Pair,
) -> None:
    first = a_notice()
    correction = later(first, 2, cause=first)
    await rotate(pair)
    delivery = delivery_of(pair.hhs, Picky({first.message_id}))
    await delivery.take(await of(pair, first))
    await answers(pair)
    await trust(pair.hhs, pair.ice)
    [letter] = await dead.listed(pair.hhs)

    redriven = await dead.redrive(delivery, letter, actor="clerk", reason="trusted now")
    await answers(pair)

    assert (redriven.state, redriven.cause) == ("open", "NB-2100")
    refusals = "SELECT code, field FROM refusal"
    assert await rows(pair.ice, refusals) == [("NB-2100", "birth_date")]
    assert await value(pair.ice, "SELECT answer_code FROM sent WHERE kind = 'fta'") == "NB-2100"
    await delivery.take(await of(pair, correction))
    assert await rows(pair.hhs, LETTERS) == [("corrected",)]
    assert await value(pair.hhs, "SELECT opened_at FROM case_file") == letter.first_at
    await follows_from_records(pair)
