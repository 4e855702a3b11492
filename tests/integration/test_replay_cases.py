"""Cases that are gone come back with what people did in them: whose they are, and when due."""

from datetime import datetime
from typing import Any

import pytest

from schemas.errors import ConflictError
from services.hhs import queue
from services.replay.shadow import shadow
from tests import steps
from tests.lives import Life
from tests.replays import Way, change, plan, rows, run, snapshot


async def test_a_lost_case_is_still_whose_it_was_and_stays_closed_when_it_was(way: Way) -> None:
    await change(way.hhs, "DELETE FROM case_file")

    planned = await plan(way.hhs)
    await run(way.hhs, planned, confirm=planned.plan.changes)

    assert await snapshot(way.hhs) == way.before["hhs"]
    with pytest.raises(ConflictError, match="NB-8011"):
        await queue.take(way.hhs.store, way.taken, actor="other")
    with pytest.raises(ConflictError, match="NB-8012"):
        await queue.take(way.hhs.store, way.closed, actor="other")
    # Who it is stands in no plan; that somebody has it does.
    said: dict[Any, dict[str, Any]] = {
        (event.message.notice_id, event.message.revision): {
            each.field: each.after for each in event.finding.differences
        }
        for event in planned.first
    }
    taken, closed = said[way.taken, 1], said[way.closed, 1]
    assert (taken["state"], taken["owner"]) == ("taken", "(by name on record)")
    assert taken["due_at"] > taken["lease_until"] > taken["taken_at"]
    assert (closed["state"], closed["outcome_code"]) == ("closed", "SAFE_MOVED")
    assert "lease_until" not in closed
    assert said[way.corrected, 1]["state"] == "unowned"
    assert said[way.withdrawn, 1]["state"] == "withdrawn"


async def test_an_empty_store_is_replayed_to_what_a_shadow_of_it_is(whole_life: Life) -> None:
    """After everything that can happen to a case: acts as well, and what came on the way."""
    hhs = whole_life.pair.hhs
    before = await rows(hhs, "case_file", "notice_id")
    told = "SELECT notice_id, event, code, actor, happened_at, record_id FROM case_event"
    acts = await steps.rows(hhs, f"{told} ORDER BY notice_id, record_id")
    assert {"taken", "taken_over", "released", "closed", "updated", "withdrawn"} <= {
        each[1] for each in acts
    }
    for emptied in ("DELETE FROM case_file", "TRUNCATE case_file, case_event"):
        await change(hhs, emptied)

        planned = await plan(hhs)
        await run(hhs, planned, confirm=planned.plan.changes, batch_max=3)

        found = await shadow(hhs.store, "hhs")
        assert found.differing == 0, found.differences
        assert await rows(hhs, "case_file", "notice_id") == before
        assert await steps.rows(hhs, f"{told} ORDER BY notice_id, event_id") == acts
        assert (await plan(hhs)).plan.changes == 0


async def test_a_case_that_was_corrected_while_nobody_had_it_is_due_as_it_was(way: Way) -> None:
    """Put back before and after its priority changed: the clock is that of the last release."""
    for notice_id in (way.corrected, way.overtaken):
        await queue.take(way.hhs.store, notice_id, actor="clerk")
        await queue.release(way.hhs.store, notice_id, actor="clerk")
    before = await snapshot(way.hhs)
    due = {row["notice_id"]: row["due_at"] for row in await rows(way.hhs, "case_file", "due_at")}
    assert due[way.corrected] < due[way.overtaken], "only one of them is urgent"
    await change(way.hhs, "DELETE FROM case_file")

    planned = await plan(way.hhs)
    await run(way.hhs, planned, confirm=planned.plan.changes)

    assert await snapshot(way.hhs) == before


async def test_names_that_were_erased_come_back_as_far_as_they_are_still_told(way: Way) -> None:
    await change(way.hhs, "DELETE FROM opening")
    await change(way.hhs, "DELETE FROM case_file WHERE notice_id = %s", way.taken)
    planned = await plan(way.hhs)
    await run(way.hhs, planned, confirm=1)
    assert await snapshot(way.hhs) == [
        row for row in way.before["hhs"] if row["table"] != "opening"
    ]
    await change(way.hhs, "UPDATE case_event SET actor = NULL")
    gone = "DELETE FROM case_file WHERE notice_id IN (%s, %s)"
    await change(way.hhs, gone, way.taken, way.closed)

    planned = await plan(way.hhs)
    await run(way.hhs, planned, confirm=2)

    # A case of somebody is somebody's; what nobody can name is nobody's, and its clock runs on.
    again = {row["notice_id"]: row for row in await rows(way.hhs, "case_file", "notice_id")}
    [kept] = [
        row
        for row in way.before["hhs"]
        if row["table"] == "case_file" and row["notice_id"] == str(way.taken)
    ]
    assert (again[way.taken]["state"], again[way.taken]["owner"]) == ("unowned", None)
    assert again[way.taken]["due_at"] == datetime.fromisoformat(kept["due_at"])
    assert again[way.closed]["state"] == "closed"
