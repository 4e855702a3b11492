"""People send, decide, and look at notices at ICE; every act is on record."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.codes import Treatment
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.notice import PERSONAL_FIELDS
from services.ice import notices, obligations
from services.ledger.store import Store
from tests.notices_made import a_finding, by_hand, opened_store, taken_back


@pytest.fixture
async def ice(database: Callable[[str], str]) -> AsyncIterator[Store]:
    async with opened_store(database("ice"), "ice") as store:
        yield store


async def rows(store: Store, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    async with store.transaction() as tx:
        cursor = await tx.execute(statement, list(values))
        return await cursor.fetchall()


async def bodies(store: Store) -> list[dict[str, Any]]:
    found = await rows(
        store, "SELECT p.body FROM outbox JOIN payload AS p USING (message_id) ORDER BY position"
    )
    return [json.loads(row[0]) for row in found]


async def records(store: Store) -> list[tuple[str, str, str | None]]:
    """Return action, result and reason of every record, oldest first."""
    found = [
        json.loads(row[0])
        for row in await rows(store, "SELECT record FROM record ORDER BY record_id")
    ]
    return [(said["action"], said["result"], said.get("reason")) for said in found]


async def waiting_one(store: Store) -> notices.NoticeItem:
    """Return a notice that a person has to confirm before it is sent."""
    await obligations.open_findings(
        store, [a_finding(decision=Treatment.CONFIRM)], release="2026-11", actor="import"
    )
    [item] = await notices.listed(store)
    return item


async def taken_back_one(store: Store) -> notices.NoticeItem:
    """Return a sent notice that a person is asked to withdraw."""
    for item in (a_finding(), taken_back()):
        await obligations.open_findings(store, [item], release="2026-11", actor="import")
    [notice] = await notices.listed(store)
    return notice


async def test_a_hand_written_notice_is_sent_with_what_is_not_known_said_so(ice: Store) -> None:
    sent = await notices.send(ice, by_hand(), actor="officer")

    [body] = await bodies(ice)
    assert not sent.already
    assert (sent.item.state, sent.item.origin, sent.item.lane) == ("recorded", "hand", "backlog")
    assert (body["a_number"], body["a_number_raw"]) == ("A100000001", "A-100-000-001")
    assert (body["custody_flag"], body["hearing_medium"]) == ("UNKNOWN", "UNKNOWN")
    assert (body["hearing_local"], body["hearing_zone"]) == ("2024-03-04T09:00", "America/Chicago")
    assert (body["turns_18_on"], body["source_release"]) == ("2027-05-03", "hand")
    assert await records(ice) == [("notice.recorded", "ok", None)]


async def test_the_same_child_and_hearing_again_sends_nothing(ice: Store) -> None:
    first = await notices.send(ice, by_hand(), actor="officer")

    again = await notices.send(ice, by_hand(hearing="2024-03-04 13:30"), actor="another")

    assert again.already
    assert again.item.notice_id == first.item.notice_id
    assert again.differs == ("hearing_local",)
    assert len(await bodies(ice)) == 1
    assert (await records(ice))[1:] == [("notice.recorded", "already", None)]


async def test_two_hands_at_once_send_one_notice(ice: Store) -> None:
    both = await asyncio.gather(*(notices.send(ice, by_hand(), actor="o") for _ in range(8)))

    assert sum(not sent.already for sent in both) == 1
    assert len({sent.item.notice_id for sent in both}) == 1
    assert len(await bodies(ice)) == 1


async def test_a_hearing_of_the_docket_is_already_sent_for_a_hand(ice: Store) -> None:
    await obligations.open_findings(ice, [a_finding()], release="2026-11", actor="import")

    sent = await notices.send(ice, by_hand(), actor="officer")

    assert sent.already
    assert len(await bodies(ice)) == 1


async def test_a_hand_sends_what_was_waiting_under_the_same_notice(ice: Store) -> None:
    item = await waiting_one(ice)

    sent = await notices.send(ice, by_hand(), actor="officer")

    [body] = await bodies(ice)
    assert not sent.already
    assert sent.item.notice_id == item.notice_id
    assert (sent.item.state, body["eoir_case_key"]) == ("recorded", 1_000_001)


async def test_a_hand_sends_what_was_withdrawn_once_more_under_the_same_notice(ice: Store) -> None:
    first = await notices.send(ice, by_hand(), actor="officer")
    await notices.withdraw(ice, first.item.notice_id, reason="DUPLICATE", actor="officer")

    sent = await notices.send(ice, by_hand(hearing="2024-03-04 13:30"), actor="officer")
    again = await notices.send(ice, by_hand(hearing="2024-03-04 13:30"), actor="officer")

    body = (await bodies(ice))[-1]
    assert (sent.already, again.already) == (False, True)
    assert sent.item.notice_id == first.item.notice_id
    assert (sent.item.state, sent.item.revision) == ("recorded", 3)
    assert (body["notice_kind"], body["hearing_local"]) == ("CORRECTION", "2024-03-04T13:30")
    assert (await records(ice))[2:] == [
        ("notice.recorded", "ok", "BY_HAND"),
        ("notice.recorded", "already", None),
    ]


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"a_number": "12345"}, "NB-1001", "a_number"),
        ({"a_number": None}, "NB-1070", "a_number"),
        ({"hearing": None}, "NB-1070", "hearing_local"),
        ({"court": "ZZZ"}, "NB-1003", "base_city_code"),
        ({"court": "BIA"}, "NB-1003", "base_city_code"),
        ({"office": "ZZZ"}, "NB-1003", "aor_code"),
        ({"hearing": "yesterday"}, "NB-1072", "hearing_local"),
        ({"hearing": "2024-13-04T09:00"}, "NB-1072", "hearing_local"),
        ({"hearing": "0204-03-04"}, "NB-1074", "hearing_local"),
        ({"birth_date": "2025-01-01"}, "NB-1074", "birth_date"),
        ({"birth_date": "soon"}, "NB-1074", "birth_date"),
        ({"a_number": 123456789}, "NB-1075", "a_number"),
        ({"sponsor": "somebody"}, "NB-1071", "sponsor"),
        ({"given_name": None, "family_name": None}, "NB-1000", "name_family"),
        ({"outcome": "DREW_A_BLANK"}, "NB-1000", "outcome"),
        ({"nta_served": 3.5}, "NB-1000", "nta_served"),
        ({"eoir_case_key": 10**20 - 1}, "NB-1000", "eoir_case_key"),
    ],
)
async def test_wrong_input_is_refused_with_its_place_and_fix(
    ice: Store, changes: dict[str, Any], code: str, field: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        await notices.send(ice, by_hand(**changes), actor="officer")

    error = caught.value
    assert (error.code, error.where["field"]) == (code, field)
    assert error.fix
    assert all(str(value) not in str(error) for value in changes.values() if value != "sponsor")
    assert await bodies(ice) == []
    assert await records(ice) == [("notice.recorded", "refused", code)]


async def test_a_hearing_in_the_future_cannot_have_been_missed(ice: Store) -> None:
    soon = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")

    with pytest.raises(RejectedError) as caught:
        await notices.send(ice, by_hand(hearing=soon), actor="officer")

    assert caught.value.code == "NB-1073"


async def test_confirming_sends_what_was_waiting_once(ice: Store) -> None:
    item = await waiting_one(ice)

    decision = await notices.confirm(ice, item.notice_id, actor="officer")
    again = await notices.confirm(ice, item.notice_id, actor="officer")

    [body] = await bodies(ice)
    assert (decision.decision, decision.already) == ("sent", False)
    assert (again.decision, again.already) == ("sent", True)
    assert decision.item.state == "recorded"
    assert (body["notice_kind"], body["adj_reason_raw"]) == ("NEW", "11")
    assert (await records(ice))[-1] == ("notice.confirmed", "ok", "WHO_WAS_ABSENT")
    assert await rows(ice, "SELECT content_id FROM obligation") == [(None,)]


async def test_dismissing_sends_nothing_and_a_second_run_keeps_it(ice: Store) -> None:
    item = await waiting_one(ice)

    decision = await notices.dismiss(ice, item.notice_id, reason="APPEARED_LATE", actor="officer")
    await obligations.open_findings(
        ice, [a_finding(decision=Treatment.CONFIRM)], release="2026-11", actor="import"
    )

    [item] = await notices.listed(ice)
    assert (decision.decision, item.state) == ("dismissed", "dismissed")
    assert await bodies(ice) == []
    assert ("notice.dismissed", "ok", "APPEARED_LATE") in await records(ice)


async def test_a_decision_against_an_earlier_one_is_a_conflict_and_on_record(ice: Store) -> None:
    item = await waiting_one(ice)
    await notices.dismiss(ice, item.notice_id, reason="OTHER", actor="officer")

    with pytest.raises(ConflictError) as caught:
        await notices.confirm(ice, item.notice_id, actor="another")

    assert caught.value.code == "NB-1077"
    assert (await records(ice))[-1] == ("notice.confirmed", "refused", "NB-1077")
    assert await bodies(ice) == []


async def test_confirming_a_withdrawal_sends_it(ice: Store) -> None:
    item = await taken_back_one(ice)

    decision = await notices.confirm(ice, item.notice_id, actor="officer")
    again = await notices.confirm(ice, item.notice_id, actor="officer")

    first, withdrawal = await bodies(ice)
    assert (decision.decision, again.already) == ("withdrawn", True)
    assert (decision.item.state, decision.item.kind, decision.item.revision) == (
        "withdrawn",
        "WITHDRAWAL",
        2,
    )
    assert (withdrawal["reason_code"], withdrawal["revision"]) == ("HEARING_VACATED", 2)
    assert withdrawal["supersedes"] != first.get("supersedes")
    assert (await records(ice))[-1] == ("notice.withdrawn", "ok", "HEARING_VACATED")


async def test_a_withdrawal_needs_a_reason_that_is_one(ice: Store) -> None:
    item = await taken_back_one(ice)

    with pytest.raises(RejectedError) as caught:
        await notices.confirm(ice, item.notice_id, actor="officer", reason="KEYS_ATTACHED")

    assert caught.value.code == "NB-1078"
    assert len(await bodies(ice)) == 1


async def test_keeping_a_notice_that_was_taken_back_is_not_asked_again(ice: Store) -> None:
    item = await taken_back_one(ice)

    decision = await notices.dismiss(ice, item.notice_id, reason="OTHER", actor="officer")
    item = await taken_back_one(ice)

    assert (decision.decision, item.state) == ("kept", "recorded")
    assert len(await bodies(ice)) == 1


async def test_a_notice_whose_content_was_erased_cannot_be_withdrawn(ice: Store) -> None:
    item = await taken_back_one(ice)
    async with ice.transaction() as tx:
        await tx.execute("UPDATE payload SET body = NULL, salt = NULL, erased_at = now()")

    with pytest.raises(ConflictError) as caught:
        await notices.confirm(ice, item.notice_id, actor="officer")

    assert caught.value.code == "NB-1079"


async def test_an_unknown_notice_is_not_found_and_on_record(ice: Store) -> None:
    stranger = (await waiting_one(ice)).notice_id.__class__(int=7)

    with pytest.raises(NotFoundError):
        await notices.confirm(ice, stranger, actor="officer")
    with pytest.raises(NotFoundError):
        await notices.shown(ice, stranger, actor="officer")

    assert (await records(ice))[-1] == ("notice.confirmed", "refused", "NB-1076")


async def test_lists_can_be_cut_by_state_office_and_page(ice: Store) -> None:
    found = [a_finding(1), a_finding(2, aor_code="MIA"), a_finding(3, decision=Treatment.CONFIRM)]
    await obligations.open_findings(ice, found, release="2026-11", actor="import")

    every = await notices.listed(ice)
    page = await notices.listed(ice, limit=2)
    rest = await notices.listed(ice, limit=2, after=page[-1].notice_id)

    assert [*page, *rest] == every
    assert [item.office for item in await notices.listed(ice, office="MIA")] == ["MIA"]
    assert len(await notices.listed(ice, states=["recorded", "to_confirm"])) == 3
    assert await notices.listed(ice, until=datetime(2020, 1, 1, tzinfo=UTC)) == []
    with pytest.raises(RejectedError):
        await notices.listed(ice, states=["lost"])


async def test_a_page_hides_the_child_until_it_is_revealed_on_record(ice: Store) -> None:
    sent = await notices.send(ice, by_hand(), actor="officer")

    hidden = await notices.shown(ice, sent.item.notice_id, actor="clerk")
    clear = await notices.shown(ice, sent.item.notice_id, actor="clerk", reveal=True)

    assert hidden.content is not None
    assert clear.content is not None
    assert not PERSONAL_FIELDS & hidden.content.keys()
    assert clear.content["name_family"] == "Invented"
    assert (await records(ice))[-1] == ("notice.revealed", "ok", None)


async def test_a_notice_is_found_by_the_beginning_of_its_id(ice: Store) -> None:
    sent = await notices.send(ice, by_hand(), actor="officer")
    await notices.send(ice, by_hand(a_number="A200000002"), actor="officer")

    assert await notices.resolve(ice, str(sent.item.notice_id).upper()) == sent.item.notice_id
    with pytest.raises(RejectedError):
        await notices.resolve(ice, str(sent.item.notice_id)[:4])
    with pytest.raises(NotFoundError):
        await notices.resolve(ice, "zz%")
