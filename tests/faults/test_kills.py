"""Processes and servers are killed while notices flow: nothing accepted is lost, nothing twice."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schemas.envelope import Lane
from services.bus import Publisher
from tests.agencies import Pair, a_notice, until, value
from tests.faults.scene import PARTS, Scene, a_scene, accept, accept_slowly

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

LIVE = "{ice.hhs.live.0}:out"
SEED = 20261123


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with a_scene(tmp_path, seed=SEED) as scene:
        yield scene


async def test_twenty_kills_at_work_of_every_process_during_two_thousand_notices(
    scene: Scene,
) -> None:
    """Each of the six dies three times or more, in an order by the seed, while notices flow."""
    drafts = [a_notice(lane=Lane.BACKLOG if n % 3 else Lane.LIVE) for n in range(2_000)]
    names = [f"{agency} {part}" for agency in ("ice", "hhs") for part in PARTS]
    rounds = [scene.random.sample(names, len(names)) for _ in range(3)]
    order = [*itertools.chain(*rounds), *scene.random.sample(names, 2)]
    share = len(drafts) // len(order)
    scene.start_all()

    for number, name in enumerate(order):
        flowing = drafts[number * share : (number + 1) * share]
        accepting = asyncio.create_task(
            accept_slowly(scene, flowing, at_once=20, pause_seconds=0.15)
        )
        await until(partial(scene.at_work, name), f"{name} at work")
        await asyncio.sleep(scene.random.uniform(0.05, 0.6))
        scene.kill(name)
        scene.start(name)
        await accepting

    await scene.accepted_and_answered(drafts)


@pytest.mark.parametrize("fault", ["kill", "FLUSHALL", "XGROUP DESTROY"])
async def test_redis_in_trouble_in_the_middle(scene: Scene, fault: str) -> None:
    drafts = [a_notice() for _ in range(600)]
    for agency in ("ice", "hhs"):
        scene.start(agency)
    accepting = asyncio.create_task(accept_slowly(scene, drafts, at_once=20, pause_seconds=0.1))
    await until(lambda: receipted(scene.pair, 60), "a first part of the receipts")

    if fault == "kill":
        scene.redis.kill()
        await asyncio.sleep(0.5)
        scene.redis.start()
    else:
        settings = scene.pair.ice.settings
        async with Publisher.open(scene.redis.url, settings=settings.bus) as publisher:
            if fault == "FLUSHALL":
                await publisher.client.flushall()
            else:
                await publisher.client.xgroup_destroy(LIVE, "hhs")
    await accepting

    await scene.accepted_and_answered(drafts)


@pytest.mark.parametrize(
    ("part", "die_at"), [("ice relay", "publish"), ("hhs sealer", "sign"), ("hhs sealer", "anchor")]
)
async def test_killed_between_one_step_and_the_next(scene: Scene, part: str, die_at: str) -> None:
    drafts = [a_notice() for _ in range(50)]
    for agency in ("ice", "hhs"):
        for each in PARTS:
            if f"{agency} {each}" != part:
                scene.start(f"{agency} {each}")
    scene.start(part, die_at=die_at)
    await accept(scene.pair.ice, *drafts)

    code = await asyncio.to_thread(scene.processes.pop(part).wait, 60)
    assert code == -9
    scene.start(part)

    await scene.accepted_and_answered(drafts)


async def test_postgresql_restarts_on_both_sides(scene: Scene) -> None:
    drafts = [a_notice() for _ in range(600)]
    for agency in ("ice", "hhs"):
        scene.start(agency)
    accepting = asyncio.create_task(accept_slowly(scene, drafts, at_once=20, pause_seconds=0.1))
    await until(lambda: receipted(scene.pair, 60), "a first part of the receipts")

    for agency in ("ice", "hhs"):
        server = scene.databases[agency]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    await accepting

    await scene.accepted_and_answered(drafts)


async def test_hhs_is_away_while_ice_accepts_five_thousand(scene: Scene) -> None:
    drafts = [a_notice(lane=Lane.BACKLOG) for _ in range(5_000)]
    scene.start("ice")
    for start in range(0, len(drafts), 1_000):
        await accept(scene.pair.ice, *drafts[start : start + 1_000])
    await until(lambda: sent(scene.pair, 5_000), "five thousand published")

    scene.start("hhs")

    await scene.accepted_and_answered(drafts)


async def receipted(pair: Pair, least: int) -> bool:
    found = await value(pair.ice, "SELECT count(*) FROM sent WHERE answer = 'receipt'")
    return isinstance(found, int) and found >= least


async def sent(pair: Pair, least: int) -> bool:
    found = await value(pair.ice, "SELECT count(*) FROM sent WHERE kind = 'fta'")
    return isinstance(found, int) and found >= least


async def test_duplicated_and_reordered_entries_have_one_effect(scene: Scene) -> None:
    drafts = [a_notice() for _ in range(300)]
    scene.start("ice")
    await accept(scene.pair.ice, *drafts)
    await until(lambda: sent(scene.pair, 300), "all published")
    settings = scene.pair.ice.settings
    async with Publisher.open(scene.redis.url, settings=settings.bus) as publisher:
        entries: Any = await publisher.client.xrange(LIVE)
        envelopes = [fields[b"jws"] for _, fields in entries]
        shuffled = envelopes * 2
        scene.random.shuffle(shuffled)
        await publisher.client.delete(LIVE)
        await publisher.publish(LIVE, shuffled)

    scene.start("hhs")

    await scene.accepted_and_answered(drafts)
