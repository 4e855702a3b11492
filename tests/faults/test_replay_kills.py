"""A replay that is killed at any point goes on by the same command, to the same end."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from services import replay
from services.bus import History
from services.exchange.agency import Agency
from services.exchange.store import locks
from services.replay import Planned, StreamSink
from services.replay.acts import RUN_LOCK
from tests.agencies import Pair, two_agencies, until, value
from tests.forked import Forked
from tests.replays import change, follows_from_records, plan, run, snapshot, take

NOTICES = 150
KILLS = 3
BATCHES = ("before", "noted", "committed")
BEGINNINGS = ("admitted", "beginning", "begun")
ENDS = ("worked", "finishing")
COPY = "{replay.drill}"
COMMAND_SECONDS = 120.0


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        await take(pair.ice, pair.hhs, NOTICES)
        settings = home / "hhs.json"
        settings.write_text(json.dumps(pair.hhs.settings.model_dump(mode="json")))
        yield pair


async def kills(hhs: Agency, home: Path, planned: Planned, seed: int) -> list[str]:
    """Let processes die over a plan: as they begin, in the middle, and as they end."""
    dice = random.Random(seed)
    points = [dice.choice(BEGINNINGS), *(dice.choice(BATCHES) for _ in range(KILLS))]
    points += [dice.choice(BEGINNINGS), dice.choice(ENDS), dice.choice(BEGINNINGS)]
    where = []
    for point in points:
        where.append(await asyncio.to_thread(killed, home, planned, point, dice.randint(1, 5)))
        # PostgreSQL hears of a death a moment later; until then the run is still somebody's.
        await until(lambda: nobody_runs(hhs), "the end of a dead run")
    return where


async def nobody_runs(hhs: Agency) -> bool:
    async with hhs.store.transaction() as tx:
        return RUN_LOCK not in await locks.held(tx)


def killed(home: Path, planned: Planned, point: str, number: int) -> str:
    """Run a plan in a process of its own that dies there."""
    settings, plan_id, out = str(home / "hhs.json"), str(planned.plan.plan_id), home / "replay.log"
    dying = Forked.module("tests.faults.replaying", settings, plan_id, point, str(number), out=out)
    assert dying.wait(COMMAND_SECONDS) == -signal.SIGKILL, out.read_text()
    return f"{point} {number}"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_projection_ends_the_same(pair: Pair, home: Path, seed: int) -> None:
    hhs = pair.hhs
    before = await snapshot(hhs)
    await change(hhs, "DELETE FROM case_file WHERE get_byte(uuid_send(notice_id), 15) < 128")
    await change(hhs, "UPDATE case_file SET office = 'XXX', due_at = now() + interval '1 year'")
    planned = await plan(hhs)

    where = await kills(hhs, home, planned, seed)
    found = await replay.find(hhs.store, str(planned.plan.plan_id))
    ran = await run(hhs, planned)

    assert (planned.plan.changes, found.state) == (NOTICES, "running"), where
    assert (ran.resumed, ran.counts) == (True, planned.plan.counts), where
    assert await snapshot(hhs) == before, where
    began = "SELECT count(*) FROM record WHERE action = %s"
    committed = [each for each in where if each.partition(" ")[0] not in BEGINNINGS[:2]]
    assert await value(hhs, began, "replay.begun") == 1
    assert await value(hhs, began, "replay.resumed") == len(committed), where
    assert await value(hhs, "SELECT count(*) FROM replay_planned") == 0
    assert (await follows_from_records(hhs))["case_file"] == NOTICES, where


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [4, 5])
async def test_a_stream_ends_the_same(pair: Pair, home: Path, redis: Redis, seed: int) -> None:
    hhs = pair.hhs
    planned = await plan(hhs, to=f"stream:{COPY}")

    where = await kills(hhs, home, planned, seed)
    async with History.open(hhs.settings.redis_url_required, settings=hhs.settings.bus) as history:
        ran = await run(hhs, planned, sink=StreamSink(history, COPY))

    found: Any = await redis.xrange(COPY)
    assert [fields[b"jws"] for _, fields in found] == await envelopes(hhs, planned), where
    assert (len(found), ran.written) == (NOTICES, NOTICES), where
    assert (await follows_from_records(hhs))["case_file"] == NOTICES, where


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [6, 7])
async def test_a_file_ends_the_same(pair: Pair, home: Path, tmp_path: Path, seed: int) -> None:
    hhs, path = pair.hhs, tmp_path / "copies" / "all.ndjson"
    path.parent.mkdir()
    planned = await plan(hhs, to=f"file:{path}")

    where = await kills(hhs, home, planned, seed)
    with replay.opened(planned.plan.target) as sink:
        ran = await run(hhs, planned, sink=sink)

    lines = [json.loads(line)["envelope"].encode() for line in path.read_bytes().splitlines()]
    assert lines == await envelopes(hhs, planned), where
    assert (len(lines), ran.written) == (NOTICES, NOTICES), where
    assert list(path.parent.iterdir()) == [path], where
    assert (await follows_from_records(hhs))["case_file"] == NOTICES, where


async def envelopes(hhs: Agency, planned: Planned) -> list[bytes | None]:
    """Return the envelopes that a plan is of, in their order."""
    found = replay.events(hhs.store, "hhs", selection=planned.plan.selection)
    return [event.envelope async for event in found]
