"""Pausing, cancelling and approving hold whenever they come: a plan is judged as it stands then."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from schemas.errors import ConflictError
from services import replay
from services.exchange.agency import Agency
from services.ledger.store import Transaction
from services.replay import STORE, Batch, Plan, Planned, Selection, State
from services.replay.acts import RUN_LOCK
from services.replay.running import Run
from services.replay.store import plans
from services.replay.store.messages import Cursor
from tests.agencies import until, value
from tests.replays import Way, actions, change, last_record, plan, run

LOST = 5
SPOILT = "SELECT count(*) FROM case_file WHERE outcome = 'MISSED_NO_ORDER'"


@pytest.fixture
async def way(way: Way) -> Way:
    """The way, with every case spoilt."""
    await change(way.hhs, "UPDATE case_file SET outcome = 'MISSED_NO_ORDER'")
    return way


class Gate:
    """The store, whose messages are looked at once it is let."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    def __str__(self) -> str:
        return str(STORE)

    async def prepare(self, tx: Transaction, selection: Selection) -> None:
        self.reached.set()
        await self.open.wait()

    def batches(
        self, tx: Transaction, selection: Selection, *, after: Cursor | None, batch_max: int
    ) -> AsyncGenerator[Batch, None]:
        return STORE.batches(tx, selection, after=after, batch_max=batch_max)


async def here(agency: Agency, made: Plan) -> Plan:
    return await replay.find(agency.store, str(made.plan_id))


async def cancel(way: Way, made: Plan) -> Plan:
    return await replay.cancel(way.hhs.store, made, actor="second", reason="wrong office")


async def begun(agency: Agency) -> bool:
    return await value(agency, "SELECT count(*) FROM replay_plan WHERE cursor IS NOT NULL") == 1


async def killed(way: Way, planned: Planned) -> None:
    """Let a run come to its first batch, and end it there as a kill would."""
    going = asyncio.create_task(run(way.hhs, planned, rate=2))
    await until(partial(begun, way.hhs), "the first batch")
    going.cancel()
    with suppress(asyncio.CancelledError):
        await going


async def refused(way: Way, planned: Planned) -> tuple[str, object]:
    """Run a plan that must be refused; returns with which code, and what is on record of it."""
    with pytest.raises(ConflictError) as caught:
        await run(way.hhs, planned)
    said = await last_record(way.hhs)
    return caught.value.code, (said["action"], said["result"], said["reason"])


REFUSED = ("NB-6038", ("replay.run", "refused", "NB-6038"))


async def test_a_plan_that_is_cancelled_as_its_run_checks_it_never_begins(way: Way) -> None:
    planned, gate = await plan(way.hhs), Gate()
    going = asyncio.create_task(run(way.hhs, planned, source=gate))
    await gate.reached.wait()

    stopped = await cancel(way, planned.plan)
    gate.open.set()
    with pytest.raises(ConflictError) as caught:
        await going

    assert (stopped.state, caught.value.code) == (State.CANCELLED, "NB-6038")
    assert (await here(way.hhs, planned.plan)).state is State.CANCELLED
    assert await actions(way.hhs) == ["replay.planned", "replay.cancelled", "replay.run"]
    assert await value(way.hhs, SPOILT) == LOST


async def test_a_run_that_is_cancelled_and_killed_before_its_next_batch_never_goes_on(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, between = await plan(way.hhs), asyncio.Event()

    async def stays(self: Run, began: float, events: int) -> None:
        between.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_pace", stays)
        going = asyncio.create_task(run(way.hhs, planned, batch_max=2))
        await between.wait()
        stopped = await cancel(way, await here(way.hhs, planned.plan))
        going.cancel()
        with suppress(asyncio.CancelledError):
            await going

    assert stopped.state is State.CANCELLED
    assert await refused(way, planned) == REFUSED


async def test_a_killed_run_is_cancelled_at_once_while_another_plan_runs(way: Way) -> None:
    planned = await plan(way.hhs)
    await killed(way, planned)

    async with way.hhs.store.holding(RUN_LOCK) as (alone, _):
        stopped = await cancel(way, planned.plan)

    assert (alone, stopped.state) == (True, State.CANCELLED)
    assert await refused(way, planned) == REFUSED
    assert await value(way.hhs, "SELECT count(*) FROM replay_planned") == 0


async def test_who_saw_a_plan_run_cannot_stop_it_once_it_is_done(way: Way) -> None:
    planned = await plan(way.hhs)
    await killed(way, planned)
    seen = await here(way.hhs, planned.plan)
    await run(way.hhs, planned)

    codes = []
    for act in (replay.pause, replay.cancel):
        with pytest.raises(ConflictError) as caught:
            await act(way.hhs.store, seen, actor="second", reason="load is high")
        codes.append(caught.value.code)

    assert seen.state is State.RUNNING
    assert codes == ["NB-6038", "NB-6038"]
    assert (await here(way.hhs, planned.plan)).state is State.DONE
    assert "replay.paused" not in await actions(way.hhs)


@pytest.mark.parametrize("act", [replay.pause, replay.cancel])
async def test_what_is_stopped_after_its_last_batch_is_not_done(
    way: Way, monkeypatch: pytest.MonkeyPatch, act: Any
) -> None:
    planned = await plan(way.hhs)
    finish = Run.finish

    async def stopped_first(self: Run) -> State:
        await act(way.hhs.store, planned.plan, actor="second", reason="just now")
        return await finish(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", stopped_first)
        ran = await run(way.hhs, planned)

    expected = State.PAUSED if act is replay.pause else State.CANCELLED
    assert (ran.plan.state, ran.plan.done) == (expected, planned.plan.counts)
    if expected is State.PAUSED:
        assert (await run(way.hhs, planned)).plan.state is State.DONE


async def test_a_run_that_is_paused_as_it_begins_again_stays_paused(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = await plan(way.hhs)
    await killed(way, planned)
    begin = Run.begin

    async def paused_first(self: Run) -> None:
        await replay.pause(way.hhs.store, planned.plan, actor="second", reason="load is high")
        await begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "begin", paused_first)
        with pytest.raises(ConflictError) as caught:
            await run(way.hhs, planned)

    assert caught.value.code == "NB-6100"
    assert (await here(way.hhs, planned.plan)).state is State.PAUSED
    assert (await run(way.hhs, planned)).plan.state is State.DONE


async def test_a_batch_under_way_as_its_run_is_cancelled_is_counted(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = await plan(way.hhs)
    advance = plans.advance

    async def cancelled_first(*given: Any, **named: Any) -> State | None:
        await cancel(way, planned.plan)
        return await advance(*given, **named)

    monkeypatch.setattr(plans, "advance", cancelled_first)
    ran = await run(way.hhs, planned, batch_max=3)

    found = await here(way.hhs, planned.plan)
    assert (ran.plan.state, found.state) == (State.CANCELLED, State.CANCELLED)
    assert ran.counts == found.done
    assert found.done.events == 3
    assert await value(way.hhs, SPOILT) == LOST - found.done.changed


@pytest.mark.parametrize("how", ["cancelled", "done", "expired", "approved"])
async def test_an_approval_is_judged_by_the_plan_as_it_stands(way: Way, how: str) -> None:
    made = (await plan(way.hhs)).plan
    match how:
        case "cancelled":
            await cancel(way, made)
        case "done":
            await change(way.hhs, "UPDATE replay_plan SET state = 'done', ran_at = now()")
        case "expired":
            await change(way.hhs, "UPDATE replay_plan SET expires_at = now()")
        case _:
            await replay.approve(way.hhs.store, made, actor="third", reason="looked too")

    with pytest.raises(ConflictError) as caught:
        await replay.approve(way.hhs.store, made, actor="second", reason="looked at it")

    assert caught.value.code == ("NB-6012" if how == "expired" else "NB-6038")
    by = (await here(way.hhs, made)).approved_by
    assert by == ("third" if how == "approved" else None)


async def test_a_plan_whose_hour_is_over_is_listed_as_expired(way: Way) -> None:
    over, holds = (await plan(way.hhs)).plan, (await plan(way.hhs)).plan
    await change(
        way.hhs, "UPDATE replay_plan SET expires_at = now() WHERE plan_id = %s", over.plan_id
    )

    async def listed(*states: State) -> list[tuple[object, State]]:
        return [
            (each.plan_id, each.stands)
            for each in await replay.listed(way.hhs.store, states=states)
        ]

    assert await listed(State.PLANNED) == [(holds.plan_id, State.PLANNED)]
    assert await listed(State.EXPIRED) == [(over.plan_id, State.EXPIRED)]
    assert len(await listed()) == 2
