"""Bulk redrive: looked at first, in batches, poison-safe, resumable, with its history; discards."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from schemas.envelope import Lane
from schemas.errors import ConflictError, NotFoundError, RejectedError
from services.exchange import dead, redrive
from services.exchange.dead import Chosen
from services.exchange.effects import Taken
from services.exchange.forecast import Outcome, forecast
from services.exchange.outbox import Draft
from services.exchange.process import delivery_of
from services.exchange.store.redrives import RedriveRow
from tests.agencies import Pair, Worked, a_notice, accept, trust, two_agencies, value
from tests.replays import follows_from_records
from tests.steps import LIVE, attributes_of, change, forged, on_stream, relay, rotate, rows, sent

BACKLOG = "{ice.hhs.backlog.0}:out"
OUTCOMES = "SELECT outcome, cause, count(*) FROM redrive_item GROUP BY 1, 2 ORDER BY 1, 2"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        pair.hhs_noted = Worked()
        yield pair


async def set_aside(pair: Pair, *drafts: Draft) -> list[UUID]:
    """Send drafts under a key that HHS trusts only afterwards; returns their dead letters."""
    await rotate(pair)
    await accept(pair.ice, *drafts)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    for lane, stream in ((Lane.BACKLOG, BACKLOG), (Lane.LIVE, LIVE)):
        if any(draft.lane is lane for draft in drafts):
            await relay(pair.ice, stream)
            await delivery.take(await on_stream(pair, stream))
    await trust(pair.hhs, pair.ice)
    return await redrive.chosen(pair.hhs, Chosen())


async def ordered(pair: Pair, letters: Sequence[UUID]) -> UUID:
    return await redrive.begin(pair.hhs, letters, actor="clerk", reason="the key is trusted")


async def test_a_group_is_redriven_in_order_todays_children_before_a_backlog(pair: Pair) -> None:
    backlog = [a_notice(lane=Lane.BACKLOG) for _ in range(30)]
    live = [a_notice() for _ in range(60)]
    letters = await set_aside(pair, *backlog, *live)
    [group] = await dead.groups(pair.hhs, Chosen())
    assert (group.group_id, group.count, group.lanes) == ("NB-2010.unread", 90, ["backlog", "live"])
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    done = await redrive.run(delivery, await ordered(pair, letters))

    assert (done.asked, done.taken, done.failed, done.state) == (90, 90, 0, "done")
    order = [taken.message_id for taken in pair.hhs_noted.taken]
    assert set(order[:60]) == {draft.message_id for draft in live}
    assert order == [draft.message_id for draft in (*live, *backlog)]
    assert await dead.groups(pair.hhs, Chosen()) == []
    owed = "SELECT count(*) FROM unsealed WHERE owes = 'ice'"
    assert await value(pair.hhs, owed) == 90
    said = "SELECT count(*) FROM record WHERE action = %s"
    assert await value(pair.hhs, said, "dead.redriven") == 90
    assert await value(pair.hhs, said, "dead.redrive_begun") == 1
    assert await value(pair.hhs, said, "dead.redrive_ended") == 1
    assert (await follows_from_records(pair.hhs))["case_file"] == 90


async def test_one_poisonous_letter_of_many_fails_alone(pair: Pair) -> None:
    drafts = [a_notice() for _ in range(50)]
    letters = await set_aside(pair, *drafts)
    poison: dict[UUID, Exception] = {drafts[7].message_id: ValueError("a bug")}
    poison[drafts[30].message_id] = RejectedError("NB-8003", notice_id=uuid7())
    pair.hhs_noted.fail = lambda message: poison.get(message.message_id)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    done = await redrive.run(delivery, await ordered(pair, letters))

    assert (done.taken, done.failed) == (48, 2)
    assert await rows(pair.hhs, OUTCOMES) == [
        ("failed", "NB-8003", 1),
        ("failed", "ValueError", 1),
        ("taken", None, 48),
    ]
    failures, again = await redrive.failed(pair.hhs, done.redrive_id, limit=10)
    assert {(group, cause) for group, cause, _ in failures} == {
        ("NB-2110.ValueError.unread", "ValueError"),
        ("NB-8003.fta-1", "NB-8003"),
    }
    assert len(again) == 2
    assert {taken.message_id for taken in pair.hhs_noted.taken} == {
        draft.message_id for draft in drafts if draft.message_id not in poison
    }
    # What failed is open still, and goes through once it is mended.
    pair.hhs_noted.fail = lambda _: None
    second = await redrive.run(
        delivery, await ordered(pair, await redrive.chosen(pair.hhs, Chosen()))
    )
    assert (second.asked, second.taken) == (2, 2)
    detail = await dead.show(pair.hhs, str(again[0][0]))
    assert [(act.outcome, act.reason) for act in detail.history] == [
        ("failed", "the key is trusted"),
        ("taken", "the key is trusted"),
    ]
    assert (await follows_from_records(pair.hhs))["case_file"] == 50


class Killed(BaseException):
    """What ends a process in the middle."""


async def test_an_interrupted_redrive_goes_on_and_tries_nothing_twice(pair: Pair) -> None:
    letters = await set_aside(pair, *[a_notice() for _ in range(100)])
    order = await ordered(pair, letters)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    def kill(_: RedriveRow) -> None:
        raise Killed

    with pytest.raises(Killed):
        await redrive.run(delivery, order, progress=kill)
    # The last batch of a killed process may have been taken without a note of it.
    await change(pair.hhs, "UPDATE redrive_item SET outcome = NULL WHERE position = 1")
    before = await redrive.find(pair.hhs, str(order)[:13])
    done = await redrive.run(delivery, order)

    assert (before.state, before.taken) == ("running", redrive.BATCH - 1)
    assert (done.state, done.taken) == ("done", 100)
    assert len(pair.hhs_noted.taken) == len({t.message_id for t in pair.hhs_noted.taken}) == 100
    again = await redrive.run(delivery, order)
    assert again == done
    assert (await follows_from_records(pair.hhs))["case_file"] == 100


async def test_a_forecast_says_what_would_happen_and_writes_nothing(pair: Pair) -> None:
    notice_id = uuid7()
    (good,) = await sent(pair, a_notice())
    await delivery_of(pair.hhs, pair.hhs_noted).take(
        [forged(pair, replace(attributes_of(good), id=uuid7()), b"{}")]
    )
    letters = await set_aside(
        pair,
        a_notice(notice_id, revision=3),
        a_notice(notice_id, revision=1),
        a_notice(),
    )
    before = await value(pair.hhs, "SELECT count(*) FROM record")

    found = await forecast(delivery_of(pair.hhs, pair.hhs_noted), letters)

    assert found.outcomes == {Outcome.TAKEN: 2, Outcome.HELD: 1, Outcome.FAILED: 1}
    assert found.causes == {"NB-2100": 1}
    assert await value(pair.hhs, "SELECT count(*) FROM record") == before
    assert await value(pair.hhs, "SELECT count(*) FROM redrive") == 0
    done = await redrive.run(delivery_of(pair.hhs, pair.hhs_noted), await ordered(pair, letters))
    assert (done.taken, done.held, done.failed) == (2, 1, 1)


async def test_a_rate_is_kept(pair: Pair) -> None:
    letters = await set_aside(pair, *[a_notice() for _ in range(30)])
    order = await redrive.begin(pair.hhs, letters, actor="clerk", reason="slowly", rate=20)

    began = time.monotonic()
    done = await redrive.run(delivery_of(pair.hhs, pair.hhs_noted), order)

    assert done.taken == 30
    assert time.monotonic() - began >= 1.0


async def test_one_redrive_runs_at_a_time(pair: Pair) -> None:
    letters = await set_aside(pair, *[a_notice() for _ in range(3)])
    first, second = await ordered(pair, letters), await ordered(pair, letters)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    refused: list[str] = []

    async def meanwhile(message: Taken) -> None:
        with pytest.raises(ConflictError) as caught:
            await redrive.run(delivery, second)
        refused.append(caught.value.code)

    class Busy:
        async def apply(self, tx: object, messages: Sequence[Taken]) -> None:
            await meanwhile(messages[0])

        async def answered(self, tx: object, answers: object) -> None: ...

    await redrive.run(delivery_of(pair.hhs, Busy()), first)
    assert refused == ["NB-6073"]
    # What the first one took needs nothing of the second.
    assert (await redrive.run(delivery, second)).taken == 3
    assert pair.hhs_noted.taken == []


async def test_a_discard_keeps_the_bytes_and_can_be_thought_better_of(pair: Pair) -> None:
    letters = await set_aside(pair, a_notice(), a_notice())
    kept = await rows(pair.hhs, "SELECT bytes FROM dead_letter ORDER BY dead_id")

    discarded = await dead.discard(pair.hhs, letters, code="TEST", reason="a drill", actor="clerk")
    again = await dead.discard(pair.hhs, letters, code="TEST", reason="a drill", actor="clerk")

    assert (discarded, again) == (2, 0)
    assert await dead.listed(pair.hhs) == []
    assert await rows(pair.hhs, "SELECT bytes FROM dead_letter ORDER BY dead_id") == kept
    said = "SELECT count(*) FROM record WHERE action = 'dead.discarded'"
    assert await value(pair.hhs, said) == 2
    for statement in (
        "DELETE FROM dead_letter",
        "TRUNCATE dead_letter CASCADE",
        "UPDATE dead_letter SET bytes = ''",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            await change(pair.hhs, statement)
    done = await redrive.run(
        delivery_of(pair.hhs, pair.hhs_noted), await ordered(pair, letters[:1])
    )
    assert done.taken == 1
    detail = await dead.show(pair.hhs, str(letters[0]))
    assert [(act.act, act.outcome) for act in detail.history] == [
        ("discard", "TEST"),
        ("redrive", "taken"),
    ]


async def test_what_cannot_be_redriven_or_discarded_says_why(pair: Pair) -> None:
    letters = await set_aside(pair, a_notice())
    await redrive.run(delivery_of(pair.hhs, pair.hhs_noted), await ordered(pair, letters))

    with pytest.raises(ConflictError, match="NB-6003"):
        await ordered(pair, letters)
    with pytest.raises(ConflictError, match="NB-6071"):
        await dead.discard(pair.hhs, letters, code="TEST", reason="x", actor="clerk")
    with pytest.raises(RejectedError, match="NB-6070") as caught:
        await dead.discard(pair.hhs, letters, code="BORED", reason="x", actor="clerk")
    assert "FORGED" in caught.value.fix
    with pytest.raises(NotFoundError, match="NB-6072"):
        await redrive.find(pair.hhs, "ffffffff")


async def test_groups_tell_offices_fields_and_the_error_behind_used_up_attempts(
    pair: Pair,
) -> None:
    def fail(message: Taken) -> Exception:
        return RejectedError("NB-2100", kind="fta", field="birth_date", rule="is wrong")

    pair.hhs_noted.fail = fail
    await delivery_of(pair.hhs, pair.hhs_noted).take(await sent(pair, a_notice(), a_notice()))

    [group] = await dead.groups(pair.hhs, Chosen(office="CHI"))
    assert (group.group_id, group.count) == ("NB-2100.fta-1", 2)
    assert (group.fields, group.offices) == (["birth_date"], ["CHI"])
    assert len(await dead.listed(pair.hhs, chosen=Chosen(group=group.group_id))) == 2
    assert await dead.groups(pair.hhs, Chosen(office="HOU")) == []
    assert await dead.groups(pair.hhs, Chosen(lane="backlog")) == []
    assert await dead.groups(pair.hhs, Chosen(until=group.first_at)) == []
