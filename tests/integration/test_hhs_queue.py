"""People take cases at HHS and say what came of them; notices change what a case rests on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.catalog import body_of
from schemas.envelope import Kind, Lane
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.fields import Body
from schemas.notice import NoticeKind, ReasonCode
from schemas.reply import OutcomeCode
from services.exchange.effects import Taken
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import revisions
from services.ledger.store import Store
from tests.notices_made import a_content, a_taken, opened_store

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)


@pytest.fixture
async def hhs(database: Callable[[str], str]) -> AsyncIterator[Store]:
    async with opened_store(database("hhs"), "hhs") as store:
        yield store


async def arrive(store: Store, *messages: Taken) -> list[UUID]:
    """Let notices arrive as delivery does: content and effect in one transaction."""
    async with store.transaction() as tx:
        for message in messages:
            assert isinstance(message.body, Body)
            await tx.execute(
                "INSERT INTO payload (message_id, body) VALUES (%s, %s)",
                [message.message_id, body_of(message.body)],
            )
        await CaseWork().apply(tx, messages)
    return [message.notice_id for message in messages if message.notice_id is not None]


def a_new(number: int = 1, *, at: datetime = NOW, lane: Lane = Lane.LIVE, **changes: Any) -> Taken:
    content = revisions.detected(a_content(number, **changes), at=at, prior_missed=0)
    return a_taken(revisions.first(content, notice_id=uuid7(), lane=lane), at=at)


def a_later(
    message: Taken, kind: NoticeKind, reason: ReasonCode, *, revision: int = 2, **changes: Any
) -> Taken:
    assert message.notice_id is not None
    content = revisions.detected(a_content(**changes), at=NOW, prior_missed=0)
    made = revisions.later(
        content,
        notice_id=message.notice_id,
        revision=revision,
        kind=kind,
        reason=reason,
        supersedes=message.message_id,
        lane=Lane.LIVE,
    )
    return a_taken(made, at=NOW)


async def rows(store: Store, statement: str) -> list[tuple[Any, ...]]:
    async with store.transaction() as tx:
        cursor = await tx.execute(statement)
        return await cursor.fetchall()


async def replies(store: Store) -> list[tuple[str, int, dict[str, Any]]]:
    """Return kind, revision and body of what waits for ICE, oldest first."""
    found = await rows(
        store,
        "SELECT o.kind, o.revision, p.body FROM outbox AS o JOIN payload AS p USING (message_id)"
        " ORDER BY position",
    )
    return [(row[0], row[1], json.loads(row[2])) for row in found]


async def records(store: Store) -> list[tuple[str, str, str | None]]:
    found = await rows(store, "SELECT record FROM record ORDER BY record_id")
    said = [json.loads(row[0]) for row in found]
    return [(each["action"], each["result"], each.get("reason")) for each in said]


async def test_a_notice_opens_a_case_with_the_child_masked(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())

    [item] = await queue.listed(hhs)

    assert (item.notice_id, item.state, item.child) == (notice_id, "unowned", "A***-***-001")
    assert (item.office, item.court, item.outcome) == ("HOU", "HOU", "IN_ABSENTIA_ORDER")
    assert item.hearing_at.isoformat() == "2024-03-04T09:00:00-06:00"


async def test_what_is_due_first_comes_first(hhs: Store) -> None:
    # On a Friday one working day ends on Monday; 24 hours end on Saturday.
    friday = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
    backlog, routine, urgent = await arrive(
        hhs,
        a_new(1, at=friday, lane=Lane.BACKLOG),
        a_new(2, at=friday),
        a_new(3, at=friday, priority="URGENT"),
    )

    items = await queue.listed(hhs)

    assert [item.notice_id for item in items] == [urgent, routine, backlog]
    assert [item.due_at - friday for item in items] == [
        timedelta(days=1),
        timedelta(days=3),
        timedelta(days=30),
    ]
    page = await queue.listed(hhs, limit=1)
    rest = await queue.listed(hhs, after=(page[0].due_at, page[0].notice_id))
    assert [*page, *rest] == items


async def test_a_state_that_no_case_has_is_refused_with_those_there_are(hhs: Store) -> None:
    with pytest.raises(RejectedError, match="NB-8004 lost is no state of a case") as caught:
        await queue.listed(hhs, states=["unowned", "lost"])

    assert "unowned" in caught.value.fix


async def test_taking_a_case_tells_ice_that_somebody_has_it_and_not_who(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())

    taking = await queue.take(hhs, notice_id, actor="Clerk One")

    assert taking is not None
    [(kind, revision, body)] = await replies(hhs)
    assert (taking.first, taking.renewed, taking.item.owner) == (True, False, "Clerk One")
    assert (kind, revision, body["notice_id"]) == ("acknowledgement", 1, str(notice_id))
    assert "Clerk" not in json.dumps(body)
    assert await records(hhs) == [("case.taken", "ok", None)]


async def test_taking_ones_own_case_again_renews_it_and_tells_nobody(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())
    await queue.take(hhs, notice_id, actor="one", now=NOW)

    taking = await queue.take(hhs, notice_id, actor="one", now=NOW + timedelta(hours=1))

    assert taking is not None
    assert (taking.first, taking.renewed) == (False, True)
    assert taking.lease_until == NOW + timedelta(hours=9)
    assert len(await replies(hhs)) == 1


async def test_a_case_that_somebody_has_cannot_be_taken_and_the_attempt_is_on_record(
    hhs: Store,
) -> None:
    [notice_id] = await arrive(hhs, a_new())
    await queue.take(hhs, notice_id, actor="one")

    with pytest.raises(ConflictError) as caught:
        await queue.take(hhs, notice_id, actor="two")

    assert caught.value.code == "NB-8011"
    assert caught.value.where["owner"] == "one"
    assert (await records(hhs))[-1] == ("case.taken", "refused", "NB-8011")


async def test_a_lease_that_ran_out_can_be_taken_over(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())
    await queue.take(hhs, notice_id, actor="one", now=NOW, lease=timedelta(hours=1))

    taking = await queue.take(hhs, notice_id, actor="two", now=NOW + timedelta(hours=1))

    assert taking is not None
    assert (taking.item.owner, taking.first) == ("two", False)
    assert len(await replies(hhs)) == 1
    assert (await records(hhs))[-1] == ("case.taken_over", "ok", None)
    with pytest.raises(ConflictError):
        await queue.outcome(hhs, notice_id, code="NOT_REACHED", actor="one")


async def test_ten_people_who_take_the_next_case_get_ten_cases(hhs: Store) -> None:
    await arrive(hhs, *(a_new(number) for number in range(10)))

    takings = await asyncio.gather(
        *(queue.take(hhs, None, actor=f"clerk {number}") for number in range(11))
    )

    taken = [taking.item.notice_id for taking in takings if taking is not None]
    assert len(taken) == len(set(taken)) == 10


async def test_one_case_for_two_people_at_once_goes_to_one(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())

    both = await asyncio.gather(
        *(queue.take(hhs, notice_id, actor=name) for name in ("one", "two")),
        return_exceptions=True,
    )

    assert sum(isinstance(each, ConflictError) for each in both) == 1
    assert len(await replies(hhs)) == 1


async def test_an_outcome_closes_the_case_and_goes_back_coarse(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())
    await queue.take(hhs, notice_id, actor="one")

    closing = await queue.outcome(hhs, notice_id, code="SAFE_MOVED", actor="one")
    again = await queue.outcome(hhs, notice_id, code="SAFE_MOVED", actor="one")

    [_, (kind, revision, body)] = await replies(hhs)
    [item] = await queue.listed(hhs, states=None)
    assert (closing.told, closing.already, again.already) == (
        OutcomeCode.CONTACT_MADE,
        False,
        True,
    )
    assert (kind, revision, body["code"]) == ("outcome", 2, "CONTACT_MADE")
    assert (item.state, item.outcome_code) == ("closed", "SAFE_MOVED")
    assert await queue.listed(hhs) == []
    assert (await records(hhs))[-1] == ("case.closed", "ok", "CONTACT_MADE")
    assert all(b"SAFE_MOVED" not in row[0] for row in await rows(hhs, "SELECT record FROM record"))


async def test_an_outcome_is_refused_where_it_does_not_belong(hhs: Store) -> None:
    mine, free, done = await arrive(hhs, a_new(1), a_new(2), a_new(3))
    await queue.take(hhs, mine, actor="one")
    await queue.take(hhs, done, actor="one")
    await queue.outcome(hhs, done, code="CONTACT_MADE", actor="one")

    async def refused(notice_id: UUID, code: str, actor: str) -> str:
        with pytest.raises((ConflictError, NotFoundError, RejectedError)) as caught:
            await queue.outcome(hhs, notice_id, code=code, actor=actor)
        return caught.value.code

    assert await refused(mine, "NOT_REACHED", "two") == "NB-8011"
    assert await refused(free, "NOT_REACHED", "one") == "NB-8013"
    assert await refused(done, "NOT_REACHED", "one") == "NB-8015"
    assert await refused(mine, "WHATEVER", "one") == "NB-8014"
    assert await refused(uuid7(), "NOT_REACHED", "one") == "NB-8010"
    assert len(await replies(hhs)) == 3


async def test_a_released_case_is_due_as_it_was_before(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())
    [before] = await queue.listed(hhs)
    await queue.take(hhs, notice_id, actor="one")

    await queue.release(hhs, notice_id, actor="one")

    [after] = await queue.listed(hhs)
    taking = await queue.take(hhs, notice_id, actor="two")
    assert (after.state, after.owner, after.due_at) == ("unowned", None, before.due_at)
    assert taking is not None
    assert not taking.first
    assert len(await replies(hhs)) == 1
    with pytest.raises(ConflictError):
        await queue.release(hhs, notice_id, actor="one")


async def test_a_status_update_changes_the_facts_and_not_who_works_the_case(hhs: Store) -> None:
    first = a_new()
    [notice_id] = await arrive(hhs, first)
    await queue.take(hhs, notice_id, actor="one")

    await arrive(
        hhs, a_later(first, NoticeKind.STATUS_UPDATE, ReasonCode.NOTICE_DEFECT, aor_code="MIA")
    )

    [item] = await queue.listed(hhs)
    assert (item.office, item.revision, item.kind) == ("MIA", 2, "STATUS_UPDATE")
    assert (item.state, item.owner) == ("taken", "one")


async def test_a_withdrawal_takes_a_case_off_the_queue_and_keeps_what_was_done(
    hhs: Store,
) -> None:
    first = a_new()
    [notice_id] = await arrive(hhs, first)
    await queue.take(hhs, notice_id, actor="one")

    await arrive(hhs, a_later(first, NoticeKind.WITHDRAWAL, ReasonCode.APPEARED_LATE))

    detail = await queue.shown(hhs, notice_id, actor="one")
    assert await queue.listed(hhs) == []
    assert (detail.item.state, detail.item.owner) == ("withdrawn", "one")
    assert [(event.event, event.code) for event in detail.events] == [
        ("taken", None),
        ("withdrawn", "APPEARED_LATE"),
    ]
    with pytest.raises(ConflictError) as caught:
        await queue.outcome(hhs, notice_id, code="NOT_REACHED", actor="one")
    assert caught.value.code == "NB-8012"


async def test_revisions_that_arrive_together_are_applied_in_order(hhs: Store) -> None:
    first = a_new()
    corrected = a_later(first, NoticeKind.CORRECTION, ReasonCode.DATA_ENTRY, aor_code="MIA")
    gone = a_later(first, NoticeKind.WITHDRAWAL, ReasonCode.DUPLICATE, revision=3)

    await arrive(hhs, first, corrected, gone)

    [item] = await queue.listed(hhs, states=None)
    assert (item.state, item.revision) == ("withdrawn", 3)


async def test_what_names_two_notices_or_none_of_ours_is_refused(hhs: Store) -> None:
    first = a_new()
    stray = a_later(first, NoticeKind.CORRECTION, ReasonCode.DATA_ENTRY)

    for message, code in (
        (a_taken_as(first, notice_id=uuid7()), "NB-8001"),
        (a_taken_as(first, kind=Kind.OUTCOME), "NB-8002"),
        (stray, "NB-8003"),
    ):
        with pytest.raises(RejectedError) as caught:
            await arrive(hhs, message)
        assert caught.value.code == code
    assert await queue.listed(hhs, states=None) == []


def a_taken_as(message: Taken, **changes: Any) -> Taken:
    given = {name: getattr(message, name) for name in Taken.__dataclass_fields__}
    return Taken(**(given | changes))


async def test_a_case_is_found_by_the_beginning_of_its_notice_id(hhs: Store) -> None:
    [notice_id] = await arrive(hhs, a_new())

    assert await queue.resolve(hhs, str(notice_id)[:12]) == notice_id
    with pytest.raises(NotFoundError):
        await queue.resolve(hhs, "ffff")
