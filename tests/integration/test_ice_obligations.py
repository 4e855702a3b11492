"""Findings become obligations and notices, once for life, in a real database."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from schemas.catalog import parse_body
from schemas.codes import Treatment
from schemas.envelope import Kind, Lane
from schemas.notice import Notice, ReasonCode
from services.ice import notices, obligations
from services.ice.docket.findings import ConfirmCode, CourtKeys
from services.ice.docket.rejects import Reject
from services.ice.obligations import Opened
from services.ledger.store import Store
from tests.notices_made import (
    a_finding,
    by_hand,
    findings,
    opened_store,
    recently,
    taken_back,
)


@pytest.fixture
async def ice(database: Callable[[str], str]) -> AsyncIterator[Store]:
    async with opened_store(database("ice"), "ice") as store:
        yield store


async def open_all(store: Store, items: Any, **changes: Any) -> Opened:
    return await obligations.open_findings(
        store, items, **{"release": "2026-11", "actor": "tester", **changes}
    )


async def rows(store: Store, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    async with store.transaction() as tx:
        cursor = await tx.execute(statement, list(values))
        return await cursor.fetchall()


async def bodies(store: Store) -> list[dict[str, Any]]:
    """Return what the outbox holds, oldest first."""
    found = await rows(
        store, "SELECT p.body FROM outbox JOIN payload AS p USING (message_id) ORDER BY position"
    )
    return [json.loads(row[0]) for row in found]


async def test_a_finding_becomes_a_notice_with_record_and_outbox_row(ice: Store) -> None:
    opened = await open_all(ice, [a_finding()])

    [item] = await notices.listed(ice)
    [body] = await bodies(ice)
    records = await rows(ice, "SELECT action, notice_id, message_id FROM record")
    outbox = await rows(ice, "SELECT stream, notice_id, revision, message_id FROM outbox")
    assert opened == Opened(recorded=1)
    assert (item.state, item.kind, item.revision) == ("recorded", "NEW", 1)
    assert (item.child, item.eoir_case_key, item.eoir_schedule_key) == (
        "A***-***-001",
        1_000_001,
        3_000_001,
    )
    assert item.hearing_at.isoformat() == "2024-03-04T09:00:00-06:00"
    assert body["notice_id"] == str(item.notice_id)
    assert body["prior_missed"] == 0
    assert records == [("notice.recorded", item.notice_id, outbox[0][3])]
    assert outbox[0][:3] == ("{ice.hhs.backlog.0}:out", item.notice_id, 1)


async def test_what_is_sent_is_what_the_catalog_reads(ice: Store) -> None:
    await open_all(ice, [a_finding()])

    [(body,)] = await rows(ice, "SELECT body FROM payload")
    notice = parse_body(Kind.FTA, 1, body)

    assert isinstance(notice, Notice)


async def test_no_record_holds_personal_data(ice: Store) -> None:
    await open_all(ice, [a_finding()])

    [(record,)] = await rows(ice, "SELECT record FROM record")

    for secret in (b"A100000001", b"Invented", b"Elm", b"tester", b"2009-05-03", b"HOU"):
        assert secret not in record


async def test_a_second_run_changes_nothing(ice: Store) -> None:
    items = [*findings(3), a_finding(4, decision=Treatment.CONFIRM)]
    await open_all(ice, items)
    before = await rows(ice, "SELECT count(*) FROM record")

    again = await open_all(ice, items)

    assert again == Opened(already=4)
    assert await rows(ice, "SELECT count(*) FROM record") == before
    assert len(await bodies(ice)) == 3


async def test_an_interrupted_import_goes_on(ice: Store) -> None:
    await open_all(ice, findings(2))

    opened = await open_all(ice, findings(5))

    assert opened == Opened(recorded=3, already=2)
    assert len(await bodies(ice)) == 5


async def test_two_imports_at_once_open_each_hearing_once(ice: Store) -> None:
    both = await asyncio.gather(open_all(ice, findings(300)), open_all(ice, findings(300)))

    assert sum(opened.recorded for opened in both) == 300
    assert sum(opened.already for opened in both) == 300
    assert len(await bodies(ice)) == 300


async def test_two_findings_of_one_hearing_are_one_notice(ice: Store) -> None:
    adjourned = a_finding(1, decision=Treatment.CONFIRM)

    opened = await open_all(ice, [adjourned, a_finding(1)])

    [body] = await bodies(ice)
    assert opened == Opened(to_confirm=1, already=1, sent_after_all=1)
    assert body["outcome"] == "IN_ABSENTIA_ORDER"


async def test_keys_of_other_rows_are_aliases_and_fill_what_is_missing(ice: Store) -> None:
    others = (CourtKeys(1_000_777, 2_000_001, 3_000_777),)
    finding = a_finding(1, eoir_schedule_key=None, aliases=others)

    opened = await open_all(ice, [finding])
    again = await open_all(ice, [finding])

    [item] = await notices.listed(ice)
    [body] = await bodies(ice)
    detail = await notices.shown(ice, item.notice_id, actor="tester")
    assert (opened, again) == (Opened(recorded=1), Opened(already=1))
    assert (body["eoir_case_key"], body["eoir_schedule_key"]) == (1_000_001, 3_000_777)
    assert detail.aliases == [("case", 1_000_777)]


async def test_who_sends_in_spite_of_a_move_is_not_asked_about_it_again(ice: Store) -> None:
    moved = a_finding(1, decision=Treatment.CONFIRM)
    moved = replace(moved, confirm_code=ConfirmCode.VENUE_CHANGED)
    await open_all(ice, [moved])
    [item] = await notices.listed(ice)
    await notices.confirm(ice, item.notice_id, actor="officer")

    same = await open_all(ice, [taken_back(code=ReasonCode.VENUE_CHANGED)])
    other = await open_all(ice, [taken_back(code=ReasonCode.NOTICE_DEFECT)])

    assert (same, other) == (Opened(), Opened(withdrawals=1))


async def test_another_release_attaches_its_keys_as_aliases_and_tells_nobody(ice: Store) -> None:
    await open_all(ice, [a_finding()])

    opened = await open_all(ice, [a_finding(eoir_case_key=42)], release="2026-12")

    [item] = await notices.listed(ice)
    detail = await notices.shown(ice, item.notice_id, actor="tester")
    assert opened == Opened(already=1)
    assert detail.aliases == [("case", 42)]
    assert (item.revision, item.eoir_case_key) == (1, 1_000_001)


async def test_court_keys_reach_a_hand_made_notice_as_one_status_update(ice: Store) -> None:
    sent = await notices.send(ice, by_hand(), actor="officer")
    finding = a_finding(1)

    first = await open_all(ice, [finding])
    second = await open_all(ice, [finding])

    [item] = await notices.listed(ice)
    _, update = await bodies(ice)
    assert (first, second) == (Opened(already=1, updated=1), Opened(already=1))
    assert item.notice_id == sent.item.notice_id
    assert (item.kind, item.revision, item.eoir_schedule_key) == ("STATUS_UPDATE", 2, 3_000_001)
    assert (update["reason_code"], update["supersedes"]) == (
        "KEYS_ATTACHED",
        str(sent.message_id),
    )
    assert (update["eoir_case_key"], update["name_family"]) == (1_000_001, "Invented")


async def test_what_waits_for_a_person_is_not_sent(ice: Store) -> None:
    opened = await open_all(ice, [a_finding(decision=Treatment.CONFIRM)])

    [item] = await notices.listed(ice, states=["to_confirm"])
    assert opened == Opened(to_confirm=1)
    assert (item.confirm, item.confirm_code, item.revision) == ("send", "WHO_WAS_ABSENT", 0)
    assert await bodies(ice) == []


async def test_an_order_that_comes_later_sends_what_was_waiting(ice: Store) -> None:
    await open_all(ice, [a_finding(decision=Treatment.CONFIRM)])

    opened = await open_all(ice, [a_finding()], release="2026-12")

    [item] = await notices.listed(ice)
    [body] = await bodies(ice)
    assert opened == Opened(already=1, sent_after_all=1)
    assert (item.state, item.revision, item.outcome) == ("recorded", 1, "IN_ABSENTIA_ORDER")
    assert body["outcome"] == "IN_ABSENTIA_ORDER"
    assert await open_all(ice, [a_finding()]) == Opened(already=1)


async def test_an_order_after_a_dismissal_asks_again_once(ice: Store) -> None:
    await open_all(ice, [a_finding(decision=Treatment.CONFIRM)])
    [item] = await notices.listed(ice)
    await notices.dismiss(ice, item.notice_id, reason="APPEARED_LATE", actor="officer")

    asked = await open_all(ice, [a_finding()], release="2026-12")
    [item] = await notices.listed(ice)
    await notices.dismiss(ice, item.notice_id, reason="APPEARED_LATE", actor="officer")
    again = await open_all(ice, [a_finding()], release="2026-12")

    assert asked == Opened(already=1, asked_again=1)
    assert (item.state, item.confirm_code) == ("to_confirm", "IN_ABSENTIA_ORDER")
    assert again == Opened(already=1)
    assert await bodies(ice) == []


async def test_a_hearing_taken_back_waits_for_a_person_and_sends_nothing(ice: Store) -> None:
    await open_all(ice, [a_finding()])

    opened = await open_all(ice, [taken_back()], release="2026-12")
    again = await open_all(ice, [taken_back()], release="2026-12")

    [item] = await notices.listed(ice)
    assert (opened, again) == (Opened(withdrawals=1), Opened())
    assert (item.state, item.confirm, item.confirm_code) == (
        "to_confirm",
        "withdrawal",
        "HEARING_VACATED",
    )
    assert len(await bodies(ice)) == 1


async def test_what_waits_and_is_taken_back_goes_on_waiting_and_says_so(ice: Store) -> None:
    await open_all(ice, [a_finding(decision=Treatment.CONFIRM)])

    opened = await open_all(ice, [taken_back()])

    [item] = await notices.listed(ice)
    assert opened == Opened(taken_back=1)
    assert (item.state, item.confirm, item.confirm_code) == ("to_confirm", "send", "TAKEN_BACK")
    assert await open_all(ice, [taken_back()]) == Opened()


async def test_a_finding_that_breaks_the_schema_is_refused_and_the_rest_goes_on(
    ice: Store,
) -> None:
    rejects: list[Reject] = []
    wrong = a_finding(2, name_family="x" * 65)

    opened = await open_all(ice, [a_finding(1), wrong, a_finding(3)], refuse=rejects.append)

    assert opened == Opened(recorded=2, refused=1)
    [reject] = rejects
    assert (reject.line, reject.code, reject.column) == (wrong.line, "NB-1000", "name_family")


async def test_the_lane_follows_the_age_of_the_hearing_unless_forced(ice: Store) -> None:
    await open_all(ice, [a_finding(1), a_finding(2, on=recently())])
    await open_all(ice, [a_finding(3)], lane=Lane.LIVE)

    lanes = {item.child: item.lane for item in await notices.listed(ice)}

    assert lanes == {"A***-***-001": "backlog", "A***-***-002": "live", "A***-***-003": "live"}


async def test_a_child_who_missed_before_is_urgent(ice: Store) -> None:
    await open_all(ice, [a_finding(1, on=date(2023, 5, 2))])
    beside = a_finding(1, on=date(2024, 3, 5), eoir_schedule_key=9)

    await open_all(ice, [a_finding(1), beside])

    said = [(body["prior_missed"], body["priority"]) for body in await bodies(ice)]
    assert sorted(said) == [(0, "ROUTINE"), (1, "URGENT"), (2, "URGENT")]


async def test_known_hearings_are_what_stands_or_waits(ice: Store) -> None:
    await open_all(ice, [*findings(3), a_finding(4, decision=Treatment.CONFIRM)])
    [waiting] = await notices.listed(ice, states=["to_confirm"])
    await notices.dismiss(ice, waiting.notice_id, reason="OTHER", actor="officer")

    known = await obligations.known_hearings(ice, page=2)

    assert [hearing.eoir_proceeding_key for hearing in known] == [2_000_001, 2_000_002, 2_000_003]
