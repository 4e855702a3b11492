"""Runs as people steer them: approved, paused, cancelled, listed, each act on record."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from schemas import codes
from schemas.errors import ConflictError, EvidenceError, NotAllowedError, NotFoundError
from services import replay
from services.cli.exits import exit_code_of
from services.embedded import PostgresServer
from services.exchange.agency import Agency
from services.hhs.casework import CaseWork
from services.ice.effects import IceEffects
from services.ledger.store import Store, migrate
from services.replay import Plan, State
from services.replay.store import messages
from tests.agencies import a_notice, accept, answered, running, until, value
from tests.replays import Way, actions, change, last_record, plan, rows, run, snapshot

LOST = 5


@pytest.fixture
def cautious(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy under which one person may change two cases alone."""
    newest = replace(codes.policy(), replay_approval_above=2)
    monkeypatch.setattr(codes, "policy", lambda: newest)


async def spoil(way: Way) -> None:
    await change(way.hhs, "UPDATE case_file SET outcome = 'MISSED_NO_ORDER'")


async def begun(agency: Agency) -> bool:
    return await value(agency, "SELECT count(*) FROM replay_plan WHERE cursor IS NOT NULL") == 1


async def here(agency: Agency, made: Plan) -> Plan:
    return await replay.find(agency.store, str(made.plan_id))


@pytest.mark.usefixtures("cautious")
async def test_above_the_limit_a_second_person_approves(way: Way) -> None:
    await spoil(way)
    planned = await plan(way.hhs)
    made = planned.plan

    with pytest.raises(NotAllowedError) as alone:
        await run(way.hhs, planned)
    with pytest.raises(NotAllowedError) as own:
        await replay.approve(way.hhs.store, made, actor="operator", reason="mine")
    refused = await last_record(way.hhs)
    approved = await replay.approve(way.hhs.store, made, actor="second", reason="looked at it")
    with pytest.raises(ConflictError) as again:
        await replay.approve(way.hhs.store, made, actor="third", reason="looked too")
    ran = await run(way.hhs, planned)

    assert made.changes == LOST
    assert made.needs_approval
    assert [error.value.code for error in (alone, own, again)] == ["NB-6036", "NB-6037", "NB-6038"]
    assert [exit_code_of(error.value) for error in (alone, own, again)] == [4, 4, 9]
    assert (refused["action"], refused["result"]) == ("replay.approved", "refused")
    assert (approved.approved_by, ran.applied) == ("second", LOST)
    assert await actions(way.hhs) == [
        "replay.planned",
        "replay.run",
        "replay.approved",
        "replay.approved",
        "replay.begun",
        "replay.run",
    ]
    assert await snapshot(way.hhs) == way.before["hhs"]


async def test_below_the_limit_one_person_is_enough(way: Way) -> None:
    planned = await plan(way.hhs)

    assert codes.policy().replay_approval_above >= 100
    assert not planned.plan.needs_approval


async def test_a_run_pauses_where_it_stands_and_goes_on_to_the_same_end(way: Way) -> None:
    await spoil(way)
    planned = await plan(way.hhs)
    with pytest.raises(ConflictError) as early:
        await replay.pause(way.hhs.store, planned.plan, actor="operator", reason="load")

    going = asyncio.create_task(run(way.hhs, planned, rate=4))
    await until(partial(begun, way.hhs), "the first batch")
    stopped = await replay.pause(
        way.hhs.store, await here(way.hhs, planned.plan), actor="second", reason="load is high"
    )
    paused = await going
    stands = await here(way.hhs, planned.plan)
    ran = await run(way.hhs, planned)

    assert early.value.code == "NB-6038"
    assert (stopped.state, paused.plan.state, stands.state) == (State.PAUSED,) * 3
    assert 0 < paused.counts.events == stands.done.events < 11
    assert (ran.resumed, ran.plan.state) == (True, State.DONE)
    assert ran.counts == planned.plan.counts
    assert await actions(way.hhs) == [
        "replay.planned",
        "replay.begun",
        "replay.paused",
        "replay.resumed",
        "replay.run",
    ]
    assert await snapshot(way.hhs) == way.before["hhs"]


async def test_a_run_that_was_killed_can_be_paused_and_goes_on_after_its_hour(way: Way) -> None:
    await spoil(way)
    planned = await plan(way.hhs)
    await change(
        way.hhs,
        "UPDATE replay_plan SET state = 'running', begun_at = now(),"
        " expires_at = now() - interval '1 hour'",
    )

    found = await here(way.hhs, planned.plan)
    stands = await replay.pause(way.hhs.store, found, actor="operator", reason="it was killed")
    ran = await run(way.hhs, planned)

    assert stands.state is State.PAUSED
    assert (ran.plan.state, ran.applied) == (State.DONE, LOST)


async def test_a_cancelled_run_stops_and_never_goes_on(way: Way) -> None:
    await spoil(way)
    planned, other = await plan(way.hhs), await plan(way.hhs)
    never = await replay.cancel(way.hhs.store, other.plan, actor="operator", reason="not that")

    going = asyncio.create_task(run(way.hhs, planned, rate=4))
    await until(partial(begun, way.hhs), "the first batch")
    found = await here(way.hhs, planned.plan)
    await replay.cancel(way.hhs.store, found, actor="operator", reason="wrong office")
    stopped = await going
    refusals = []
    for each in (planned, other):
        with pytest.raises(ConflictError) as caught:
            await run(way.hhs, each)
        refusals.append(caught.value.code)
    with pytest.raises(ConflictError) as twice:
        await replay.cancel(way.hhs.store, never, actor="operator", reason="again")

    assert (never.state, stopped.plan.state) == (State.CANCELLED, State.CANCELLED)
    assert 0 < stopped.counts.events < 11
    assert refusals == ["NB-6038", "NB-6038"]
    assert (twice.value.code, exit_code_of(twice.value)) == ("NB-6038", 9)


async def test_a_rate_is_kept(way: Way) -> None:
    planned = await plan(way.hhs)
    loop = asyncio.get_running_loop()

    started = loop.time()
    await run(way.hhs, planned, rate=10)

    assert loop.time() - started >= 1.0


async def test_live_traffic_goes_on_while_a_replay_runs(way: Way) -> None:
    await spoil(way)
    planned = await plan(way.hhs)

    async with running(way.ice, IceEffects()), running(way.hhs, CaseWork()):
        going = asyncio.create_task(run(way.hhs, planned, rate=4))
        await until(partial(begun, way.hhs), "the first batch")
        drafts = [a_notice(), a_notice()]
        await accept(way.ice, *drafts)
        await until(lambda: answered(way.ice, drafts), "receipts during the replay")
        while_it_ran = not going.done()
        ran = await going

    assert while_it_ran
    assert ran.counts == planned.plan.counts
    assert await value(way.hhs, "SELECT count(*) FROM case_file") == 7
    left = (
        "SELECT count(*) FROM case_file WHERE outcome = 'MISSED_NO_ORDER' AND notice_id <> ALL(%s)"
    )
    assert await value(way.hhs, left, [draft.notice_id for draft in drafts]) == 0


async def test_messages_taken_as_a_plan_is_made_do_not_make_it_stale(way: Way) -> None:
    """A transaction that began before the plan and commits after it holds messages of before."""
    async with way.hhs.store.session() as other, other.transaction() as tx:
        await tx.execute(
            "INSERT INTO inbox (message_id, stream, generation, sequence, kind, notice_id,"
            " revision, envelope_hash, state, received_at) SELECT gen_random_uuid(), 'x', 1, 1,"
            " 'fta', gen_random_uuid(), 1, envelope_hash, 'applied', now() FROM inbox LIMIT 1"
        )
        planned = await plan(way.hhs)

    ran = await run(way.hhs, planned)

    assert ran.plan.state is State.DONE


async def test_a_plan_of_another_store_is_refused(way: Way, database: Callable[[str], str]) -> None:
    made = (await plan(way.hhs)).plan
    [row] = await rows(way.hhs, "replay_plan", "plan_id")
    copied = await value(way.hhs, "SELECT to_jsonb(p) FROM replay_plan AS p")

    async with await Store.open(database("hhs")) as other:
        with pytest.raises(NotFoundError) as unknown:
            await replay.find(other, str(made.plan_id))
        async with other.transaction() as tx:
            await tx.execute(
                "INSERT INTO replay_plan"
                " SELECT * FROM jsonb_populate_record(NULL::replay_plan, %s)",
                [Jsonb(copied)],
            )
        with pytest.raises(ConflictError) as foreign:
            await replay.find(other, str(made.plan_id))

    assert row["store_id"] == made.store_id
    assert (unknown.value.code, exit_code_of(unknown.value)) == ("NB-6010", 3)
    assert (foreign.value.code, exit_code_of(foreign.value)) == ("NB-6039", 9)


async def test_a_plan_from_before_a_restore_is_refused_in_the_same_database(way: Way) -> None:
    made = (await plan(way.hhs)).plan
    await change(
        way.hhs,
        "INSERT INTO restoration (restored_at, backup_made_at) VALUES (now(), now())",
    )

    with pytest.raises(ConflictError, match="NB-6039"):
        await replay.find(way.hhs.store, str(made.plan_id))


def test_a_copy_of_a_whole_cluster_has_another_name_once_it_went_its_own_way(
    tmp_path: Path,
) -> None:
    """As after a failover, or after going back to a moment: the copy ends its own recovery."""

    async def name(server: PostgresServer) -> str:
        async with await Store.open(server.url, pool_max=1) as store, store.transaction() as tx:
            return await messages.identity(tx)

    options = {"wal_level": "replica", "restore_command": "false", "hot_standby": "off"}
    with PostgresServer(tmp_path / "one", options=options) as one:
        migrate(one.url, "hhs")
        first = asyncio.run(name(one))
    subprocess.run(["cp", "-a", tmp_path / "one", tmp_path / "two"], check=True)
    with PostgresServer(tmp_path / "one", options=options) as one:
        again = asyncio.run(name(one))
    (tmp_path / "two" / "data" / "recovery.signal").touch()
    with PostgresServer(tmp_path / "two", options=options) as two:
        copied = asyncio.run(name(two))

    assert again == first
    assert copied != first
    assert copied.split("/")[0] == first.split("/")[0]


async def test_every_act_says_who_and_why_by_commitment(way: Way) -> None:
    planned = await plan(way.hhs)
    await replay.approve(way.hhs.store, planned.plan, actor="second", reason="looked at it")
    await replay.cancel(way.hhs.store, planned.plan, actor="third", reason="no longer")

    records = await rows(way.hhs, "record", "record_id")
    acts = [row for row in records if row["action"].startswith("replay.")]
    said = [json.loads(row["record"]) for row in acts]
    openings = await rows(way.hhs, "opening", "record_id")
    opened = {row["record_id"]: row["opened"] for row in openings}
    who = [opened[row["record_id"]]["actor"]["value"] for row in acts]

    assert who == ["operator", "second", "third"]
    assert all(each["detail"]["plan_id"] == str(planned.plan.plan_id) for each in said)
    assert not [name for name in ("operator", "second", "third", "looked") if name in str(said)]
    assert [made.plan_id for made in await replay.listed(way.hhs.store)] == [planned.plan.plan_id]
    assert await replay.listed(way.hhs.store, states=[State.DONE]) == []


async def test_a_shadow_of_everything_proves_the_state(way: Way) -> None:
    planned = await plan(way.hhs, to="shadow")
    ran = await run(way.hhs, planned)

    assert planned.shadowed is not None
    assert ran.shadowed is not None
    assert (planned.shadowed.differing, ran.shadowed.differing) == (0, 0)
    assert ran.shadowed.compared > 0


async def test_a_shadow_that_differs_is_on_record_and_fails(way: Way) -> None:
    await change(way.hhs, "UPDATE case_file SET office = 'MIA' WHERE notice_id = %s", way.taken)
    planned = await plan(way.hhs, to="shadow")

    with pytest.raises(EvidenceError) as caught:
        await run(way.hhs, planned)

    assert str(caught.value) == (
        "NB-6044 1 values at hhs are not what its records and contents make of them"
    )
    assert "noticebus replay plan --to shadow" in caught.value.fix
    assert exit_code_of(caught.value) == 6
    assert (await last_record(way.hhs))["action"] == "replay.run"
