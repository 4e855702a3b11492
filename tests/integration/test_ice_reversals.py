"""The docket takes back what it said and says it again: what a person is asked, and what HHS hears.

After each test the state of ICE is what its records and contents make of it.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.codes import Treatment
from schemas.errors import ConflictError, RejectedError
from schemas.notice import ReasonCode
from services.ice import notices, obligations
from services.ice.docket.findings import ConfirmCode, Finding
from services.ice.obligations import Opened
from services.ledger.store import Store
from services.replay.shadow import shadow
from tests.notices_made import a_finding, by_hand, opened_store, taken_back

MOVED = ReasonCode.VENUE_CHANGED


@pytest.fixture
async def ice(database: Callable[[str], str]) -> AsyncIterator[Store]:
    async with opened_store(database("ice"), "ice") as store:
        yield store
        found = await shadow(store, "ice")
        assert not found.differing, found.differences


async def read(store: Store, *items: Any, since: datetime | None = None) -> Opened:
    """Take in what a release says, as it was first read now or `since`."""
    return await obligations.open_findings(
        store, items, release="2026-11", actor="importer", since=since
    )


async def standing(store: Store) -> tuple[str, str | None, str | None, int]:
    """Return state, question, its code and the newest revision of the only notice."""
    [item] = await notices.listed(store)
    return item.state, item.confirm, item.confirm_code, item.revision


async def decide(store: Store, answer: str, **given: Any) -> notices.Decision:
    [item] = await notices.listed(store)
    act = notices.confirm if answer == "yes" else notices.dismiss
    if answer == "no":
        given = {"reason": "OTHER", **given}
    return await act(store, item.notice_id, actor="officer", **given)


async def bodies(store: Store) -> list[dict[str, Any]]:
    """Return what the outbox holds, oldest first."""
    async with store.transaction() as tx:
        cursor = await tx.execute(
            "SELECT p.body FROM outbox JOIN payload AS p USING (message_id) ORDER BY position"
        )
        return [json.loads(row[0]) for row in await cursor.fetchall()]


async def acts(store: Store) -> list[tuple[str, str | None]]:
    """Return action and reason of every record, oldest first."""
    async with store.transaction() as tx:
        cursor = await tx.execute("SELECT record FROM record ORDER BY record_id")
        said = [json.loads(row[0]) for row in await cursor.fetchall()]
    return [(each["action"], each.get("reason")) for each in said]


def waits(**changes: Any) -> Finding:
    """Return a finding that a person has to confirm."""
    return a_finding(decision=Treatment.CONFIRM, **changes)


def moved(**changes: Any) -> Finding:
    """Return an order in a proceeding that moved to another court."""
    order = {"outcome": "IN_ABSENTIA_ORDER", "adj_reason_raw": None, **changes}
    return replace(waits(**order), confirm_code=ConfirmCode.VENUE_CHANGED)


@pytest.mark.parametrize("again", [a_finding(), waits()])
async def test_a_hearing_that_is_missed_again_is_not_up_for_withdrawal(
    ice: Store, again: Finding
) -> None:
    await read(ice, a_finding())
    await read(ice, taken_back())

    opened = await read(ice, again)

    assert opened == Opened(already=1, unasked=1)
    assert await standing(ice) == ("recorded", None, None, 1)
    assert (await acts(ice))[-1] == ("notice.unasked", "MISSED_AGAIN")
    assert await read(ice, again) == Opened(already=1)
    assert len(await bodies(ice)) == 1


async def test_a_release_that_is_read_again_has_no_say_about_what_was_said_since(
    ice: Store,
) -> None:
    first = datetime.now(UTC)
    await read(ice, a_finding())
    second = datetime.now(UTC)
    await read(ice, taken_back())

    assert await read(ice, a_finding(), since=first) == Opened(already=1)
    assert await standing(ice) == ("to_confirm", "withdrawal", "HEARING_VACATED", 1)
    assert await read(ice, a_finding()) == Opened(already=1, unasked=1)
    assert await read(ice, taken_back(), since=second) == Opened()
    assert await standing(ice) == ("recorded", None, None, 1)


async def test_a_hearing_withdrawn_on_the_dockets_word_and_missed_after_all_is_asked_about(
    ice: Store,
) -> None:
    before = datetime.now(UTC)
    await read(ice, a_finding())
    await read(ice, taken_back())
    await decide(ice, "yes")

    assert await read(ice, a_finding(), since=before) == Opened(already=1)
    opened = await read(ice, a_finding())

    assert opened == Opened(already=1, asked_again=1)
    assert await standing(ice) == ("to_confirm", "send", "MISSED_AGAIN", 2)
    assert (await acts(ice))[-1] == ("notice.to_confirm", "MISSED_AGAIN")
    assert await read(ice, a_finding()) == Opened(already=1)
    assert len(await bodies(ice)) == 2, "nothing is sent by itself"


async def test_who_says_that_it_was_missed_after_all_takes_the_withdrawal_back(ice: Store) -> None:
    await read(ice, a_finding(eoir_schedule_key=None))
    await read(ice, taken_back())
    await decide(ice, "yes")
    await read(ice, a_finding())

    with pytest.raises(RejectedError, match="NB-1052"):
        await decide(ice, "yes", reason="HEARING_VACATED")
    decision = await decide(ice, "yes", reason="DATA_ENTRY")
    again = await decide(ice, "yes")

    first, withdrawal, correction = await bodies(ice)
    assert (decision.decision, decision.already, again.already) == ("sent", False, True)
    assert await standing(ice) == ("recorded", None, None, 3)
    told = ("notice_kind", "revision", "reason_code", "name_family", "outcome")
    assert [correction[name] for name in told] == [
        "CORRECTION", 3, "DATA_ENTRY", first["name_family"], first["outcome"],
    ]  # fmt: skip
    assert correction["eoir_schedule_key"] == 3_000_001, "that key attached meanwhile"
    assert "eoir_schedule_key" not in withdrawal


async def test_who_lets_the_withdrawal_stand_is_not_asked_again(ice: Store) -> None:
    await read(ice, a_finding())
    await read(ice, taken_back())
    await decide(ice, "yes")
    await read(ice, a_finding())

    decision = await decide(ice, "no")

    assert (decision.decision, decision.item.state) == ("kept", "withdrawn")
    assert await read(ice, a_finding()) == Opened(already=1)
    assert await standing(ice) == ("withdrawn", None, None, 2)


async def test_the_same_turns_once_more_are_asked_once_more(ice: Store) -> None:
    for _ in range(2):
        await read(ice, a_finding())
        await read(ice, taken_back())
        await decide(ice, "yes")
        await read(ice, a_finding())
        await decide(ice, "yes")

    kinds = [body["notice_kind"] for body in await bodies(ice)]
    assert kinds == ["NEW", *("WITHDRAWAL", "CORRECTION") * 2]
    assert await standing(ice) == ("recorded", None, None, 5)


async def test_a_release_that_takes_it_back_again_ends_the_question_whether_to_send_again(
    ice: Store,
) -> None:
    await read(ice, a_finding())
    await read(ice, taken_back())
    await decide(ice, "yes")
    missed = datetime.now(UTC)
    await read(ice, a_finding())

    opened = await read(ice, taken_back())

    assert opened == Opened(unasked=1)
    assert await standing(ice) == ("withdrawn", None, None, 2)
    assert (await acts(ice))[-1] == ("notice.unasked", "HEARING_VACATED")
    assert await read(ice, a_finding(), since=missed) == Opened(already=1)
    assert await read(ice, a_finding()) == Opened(already=1, asked_again=1)


async def test_what_a_person_withdrew_of_their_own_accord_is_not_asked_about(ice: Store) -> None:
    await read(ice, a_finding())
    [item] = await notices.listed(ice)
    await notices.withdraw(ice, item.notice_id, reason="APPEARED_LATE", actor="officer")

    assert await read(ice, a_finding()) == Opened(already=1)
    assert await standing(ice) == ("withdrawn", None, None, 2)


async def test_a_withdrawn_notice_that_is_asked_about_is_not_corrected_or_withdrawn(
    ice: Store,
) -> None:
    await read(ice, a_finding())
    await read(ice, taken_back())
    await decide(ice, "yes")
    await read(ice, a_finding())
    [item] = await notices.listed(ice)

    for act, given in (
        (notices.withdraw, {"reason": "DUPLICATE"}),
        (notices.correct, {"written": {"family_name": "Other"}, "reason": "DATA_ENTRY"}),
    ):
        with pytest.raises(ConflictError, match="NB-1050"):
            await act(ice, item.notice_id, actor="officer", **given)


async def test_a_move_that_asks_for_a_withdrawal_does_not_answer_it(ice: Store) -> None:
    await read(ice, a_finding())

    for _ in range(2):
        await read(ice, moved(), taken_back(code=MOVED))
        assert await standing(ice) == ("to_confirm", "withdrawal", "VENUE_CHANGED", 1)
    await decide(ice, "yes")

    assert await read(ice, moved(), taken_back(code=MOVED)) == Opened(already=1)
    assert await standing(ice) == ("withdrawn", None, None, 2)


async def test_a_person_is_asked_for_the_newest_reason(ice: Store) -> None:
    await read(ice, a_finding())
    await read(ice, taken_back())

    opened = await read(ice, taken_back(code=ReasonCode.ORDER_RESCINDED))

    assert opened == Opened(withdrawals=1)
    assert await standing(ice) == ("to_confirm", "withdrawal", "ORDER_RESCINDED", 1)
    await decide(ice, "no")
    assert await read(ice, taken_back(code=ReasonCode.ORDER_RESCINDED)) == Opened()
    assert await read(ice, taken_back()) == Opened(withdrawals=1)


async def test_what_waits_and_was_taken_back_says_so_no_more_once_it_is_missed_again(
    ice: Store,
) -> None:
    await read(ice, waits())
    await read(ice, taken_back())
    assert await standing(ice) == ("to_confirm", "send", "TAKEN_BACK", 0)

    assert await read(ice, waits()) == Opened(already=1, asked_again=1)

    assert await standing(ice) == ("to_confirm", "send", "WHO_WAS_ABSENT", 0)
    assert await read(ice, waits()) == Opened(already=1)
    await decide(ice, "yes")
    assert len(await bodies(ice)) == 1


async def test_what_was_dismissed_on_the_dockets_word_and_is_missed_again_is_asked_about(
    ice: Store,
) -> None:
    await read(ice, waits())
    await read(ice, taken_back())
    await decide(ice, "no")

    assert await read(ice, waits()) == Opened(already=1, asked_again=1)
    assert await standing(ice) == ("to_confirm", "send", "WHO_WAS_ABSENT", 0)
    await decide(ice, "no")

    assert await read(ice, waits()) == Opened(already=1)
    assert await standing(ice) == ("dismissed", None, None, 0)


async def test_keys_that_attach_while_a_withdrawal_waits_are_told(ice: Store) -> None:
    await notices.send(ice, by_hand(outcome="IN_ABSENTIA_ORDER"), actor="officer")
    await read(ice, taken_back())

    opened = await read(ice, moved())

    _, update = await bodies(ice)
    assert opened == Opened(already=1, updated=1)
    assert (update["notice_kind"], update["reason_code"]) == ("STATUS_UPDATE", "KEYS_ATTACHED")
    assert update["eoir_schedule_key"] == 3_000_001
    assert await standing(ice) == ("to_confirm", "withdrawal", "HEARING_VACATED", 2)
    assert (await decide(ice, "no")).item.kind == "STATUS_UPDATE"
    await read(ice, taken_back(code=ReasonCode.DATA_ENTRY))
    assert (await decide(ice, "yes")).item.revision == 3


async def test_keys_that_attach_after_a_withdrawal_are_kept_and_tell_nobody(ice: Store) -> None:
    await notices.send(ice, by_hand(), actor="officer")
    await read(ice, taken_back())
    await decide(ice, "yes")

    opened = await read(ice, a_finding())

    assert opened == Opened(already=1, asked_again=1)
    assert len(await bodies(ice)) == 2
    assert (await notices.listed(ice))[0].eoir_schedule_key == 3_000_001
