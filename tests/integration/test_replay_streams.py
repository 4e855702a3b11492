"""Streams as a source and as a place: what they hold is looked at, and nobody is delivered to."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from schemas.errors import ConflictError, EvidenceError, NotFoundError, RejectedError
from services import replay
from services.bus import History
from services.cli.exits import exit_code_of
from services.exchange.agency import Agency
from services.exchange.beginnings import beginning
from services.hhs.casework import CaseWork
from services.replay import (
    Counts,
    Planned,
    Ran,
    Selection,
    SequenceRange,
    StreamSink,
    StreamSource,
    Target,
)
from services.replay.plans import State
from services.replay.store import plans
from tests.agencies import a_notice, running, value
from tests.replays import Way, change, plan, rows, run, snapshot
from tests.steps import LIVE, sent

COPY = "{replay.drill}"


@asynccontextmanager
async def history_of(agency: Agency) -> AsyncIterator[History]:
    settings = agency.settings
    async with History.open(settings.redis_url_required, settings=settings.bus) as history:
        yield history


async def copied(way: Way, planned: Planned, **given: Any) -> Ran:
    """Run a plan that writes to a stream."""
    stream = planned.plan.target.stream
    assert stream is not None
    async with history_of(way.hhs) as history:
        return await run(way.hhs, planned, sink=StreamSink(history, stream), **given)


async def planned_from(
    agency: Agency, stream: str, *, to: str = "store", **selected: Any
) -> Planned:
    async with history_of(agency) as history:
        return await replay.plan(
            agency.store,
            agency.name,
            selection=Selection(**selected),
            target=Target.of(to),
            source=await StreamSource.open(agency, history, stream),
            actor="operator",
        )


async def run_from(agency: Agency, planned: Planned) -> Ran:
    async with history_of(agency) as history:
        stream = planned.plan.source.partition(":")[2]
        source = await StreamSource.open(agency, history, stream)
        return await run(agency, planned, source=source)


async def envelopes(way: Way, redis: Redis, stream: str = COPY) -> Sequence[bytes]:
    found: Any = await redis.xrange(stream)
    return [fields[b"jws"] for _, fields in found]


async def test_a_stream_of_replays_gets_stored_envelopes_in_order_and_nobody_reads_it(
    way: Way, redis: Redis
) -> None:
    planned = await plan(way.hhs, to=f"stream:{COPY}")
    async with running(way.hhs, CaseWork()):
        ran = await copied(way, planned)

    stored = {row["message_id"]: row["envelope"] for row in await rows(way.hhs, "envelope", "1")}
    selection = planned.plan.selection
    expected = [
        stored[event.message.message_id]
        async for event in replay.events(way.hhs.store, "hhs", selection=selection)
    ]
    assert (planned.plan.changes, ran.written, ran.applied) == (11, 11, 0)
    assert await envelopes(way, redis) == expected
    assert await redis.xinfo_groups(COPY) == []
    assert _taken(await snapshot(way.hhs)) == _taken(way.before["hhs"])


def _taken(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what delivery writes of notices: who runs also tidies, seals, and is shown heads."""
    tables = {"inbox", "applied", "case_file", "case_event", "outbox", "dead_letter", "alarm"}
    return [row for row in kept if row["table"] in tables and row.get("kind") != "head"]


async def test_what_was_written_and_not_noted_is_there_once(way: Way, redis: Redis) -> None:
    """As after a kill between XADD and the commit of the cursor: the run starts over there."""
    planned = await plan(way.hhs, to=f"stream:{COPY}")
    await copied(way, planned)
    before = await envelopes(way, redis)
    await change(
        way.hhs, "UPDATE replay_plan SET state = 'running', cursor = NULL, done = NULL, written = 0"
    )

    ran = await copied(way, planned, batch_max=3)

    assert (ran.resumed, ran.written) == (True, 11)
    assert await envelopes(way, redis) == before


async def test_a_stream_with_newer_entries_is_left_alone(way: Way, redis: Redis) -> None:
    planned = await plan(way.hhs, to=f"stream:{COPY}")
    await redis.xadd(COPY, {"jws": b"later"})

    with pytest.raises(ConflictError) as caught:
        await copied(way, planned)

    assert (caught.value.code, exit_code_of(caught.value)) == ("NB-6042", 9)
    assert await envelopes(way, redis) == [b"later"]
    async with way.hhs.store.transaction() as tx:
        [made] = await plans.named(tx, beginning(str(planned.plan.plan_id)))
    assert made.state is State.PLANNED


async def test_a_stream_keeps_no_more_than_it_may(way: Way, redis: Redis) -> None:
    async with history_of(way.hhs) as history:
        many = [(f"1-{number}", b"x") for number in range(1, 1_001)]
        await history.append(COPY, many, entries_max=10)

    assert await redis.xlen(COPY) < 500


async def test_what_the_store_lost_comes_back_from_a_stream(way: Way) -> None:
    """The same bytes, found elsewhere: order and time stay those of the record."""
    await copied(way, await plan(way.hhs, to=f"stream:{COPY}"))
    await change(way.hhs, "DELETE FROM case_file WHERE notice_id = %s", way.overtaken)
    await change(
        way.hhs,
        "DELETE FROM payload WHERE message_id IN"
        " (SELECT message_id FROM inbox WHERE notice_id = %s)",
        way.overtaken,
    )

    from_store = await plan(way.hhs)
    planned = await planned_from(way.hhs, COPY)
    ran = await run_from(way.hhs, planned)

    assert from_store.plan.counts == Counts(same=9, blocked=2)
    assert planned.plan.counts == Counts(new=2, same=9)
    assert planned.plan.source == f"stream:{COPY}"
    assert (ran.applied, ran.plan.state) == (2, State.DONE)
    assert await value(way.hhs, "SELECT count(*) FROM case_file") == 5
    cases = await rows(way.hhs, "case_file", "notice_id")
    restored = next(row for row in cases if row["notice_id"] == way.overtaken)
    was = next(
        row
        for row in way.before["hhs"]
        if row["table"] == "case_file" and row["notice_id"] == str(way.overtaken)
    )
    assert restored["opened_at"] == datetime.fromisoformat(was["opened_at"])
    assert restored["office"] == was["office"] == "DAL"


async def test_what_was_never_taken_is_shown_and_stays_blocked(way: Way) -> None:
    drafts = [a_notice(), a_notice()]
    entries = await sent(way.pair, *drafts)

    planned = await planned_from(way.hhs, LIVE)
    own = await planned_from(way.ice, LIVE)
    some = await planned_from(way.hhs, LIVE, sequences=(SequenceRange(LIVE, 1, 8),))

    new = [event for event in planned.first if event.finding.cause == "NB-6035"]
    assert {event.message.notice_id for event in new} == {draft.notice_id for draft in drafts}
    assert planned.plan.counts.blocked == 2
    assert planned.plan.counts.events == len({entry.jws for entry in entries})
    assert own.plan.counts == Counts(same=len({entry.jws for entry in entries}))
    assert some.plan.counts.blocked == 0


@pytest.mark.parametrize("damage", [b"", b"not an envelope", None])
async def test_a_damaged_stream_is_named_and_nothing_is_planned(
    way: Way, redis: Redis, damage: bytes | None
) -> None:
    await copied(way, await plan(way.hhs, to=f"stream:{COPY}"))
    if damage is None:
        # One character in the middle of the signed bytes.
        whole = (await envelopes(way, redis))[0]
        damage = whole[:400] + (b"A" if whole[400:401] != b"A" else b"B") + whole[401:]
    entry_id: Any = await redis.xadd(COPY, {"jws": damage})

    with pytest.raises(EvidenceError) as caught:
        await planned_from(way.hhs, COPY)

    assert (caught.value.code, exit_code_of(caught.value)) == ("NB-6041", 6)
    assert caught.value.where["entry_id"] == entry_id.decode()
    assert await value(way.hhs, "SELECT count(*) FROM replay_plan") == 1


async def test_an_entry_that_is_gone_since_the_plan_makes_it_stale(way: Way, redis: Redis) -> None:
    await copied(way, await plan(way.hhs, to=f"stream:{COPY}"))
    planned = await planned_from(way.hhs, COPY)
    await redis.xtrim(COPY, maxlen=5, approximate=False)

    with pytest.raises(ConflictError) as caught:
        await run_from(way.hhs, planned)

    assert caught.value.code == "NB-6013"


async def test_streams_that_nobody_knows_are_not_found(way: Way) -> None:
    for stream in ("{replay.nothing}", "{ice.hhs.live.9}:out"):
        with pytest.raises(NotFoundError) as caught:
            await planned_from(way.hhs, stream)
        assert (caught.value.code, exit_code_of(caught.value)) == ("NB-6032", 3)


@pytest.mark.parametrize(
    "name",
    [
        LIVE,
        "{replay.}",
        "{replay.x}:out",
        "replay.x",
        "{replay.x}{ice.hhs.live.0}:out",
        "{Replay.x}",
    ],
)
def test_no_other_stream_is_a_place(name: str) -> None:
    with pytest.raises(RejectedError) as caught:
        Target.of(f"stream:{name}")

    assert (caught.value.code, exit_code_of(caught.value)) == ("NB-6030", 2)


async def test_a_plan_expires_for_a_stream_too(way: Way) -> None:
    planned = await plan(way.hhs, to=f"stream:{COPY}")
    await change(way.hhs, "UPDATE replay_plan SET expires_at = now() - interval '1 second'")

    with pytest.raises(ConflictError) as caught:
        await copied(way, planned)

    assert caught.value.code == "NB-6012"
