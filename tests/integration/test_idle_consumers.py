"""Consumers that nobody uses any more: removed only when nothing of theirs can be lost."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from schemas.errors import wordings
from services.bus import Group, group_status
from services.exchange.alone import free
from services.exchange.consumers import IdleConsumers, remove_idle
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.steps import LIVE, sent

IDLE = 0.05
REMOVED = "SELECT count(*) FROM record WHERE action = 'consumer.removed'"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def left_behind(pair: Pair, redis: Redis, name: str, *, holding: int) -> None:
    """Let a consumer of HHS read some entries, acknowledge none, and fall silent."""
    if not await redis.exists(LIVE):
        await redis.xgroup_create(LIVE, "hhs", id="0", mkstream=True)
    if holding:
        await redis.xreadgroup("hhs", name, {LIVE: ">"}, count=holding)
    else:
        await redis.xgroup_createconsumer(LIVE, "hhs", name)

    async def idle() -> bool:
        return (await consumers(pair))[name][1] >= IDLE

    await until(idle, "silence")


async def consumers(pair: Pair) -> dict[str, tuple[int, float]]:
    groups = await group_status(pair.redis_url, LIVE, settings=pair.hhs.settings.bus)
    return {each.name: (each.pending, each.idle_seconds) for each in groups[0].consumers}


async def test_one_that_holds_nothing_is_removed_and_on_record(pair: Pair, redis: Redis) -> None:
    await left_behind(pair, redis, "hhs-7", holding=0)

    (removal,) = await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE)

    assert (removal.consumer, removal.kept, removal.handed_over) == ("hhs-7", None, 0)
    assert await consumers(pair) == {}
    assert await value(pair.hhs, REMOVED) == 1


async def test_one_that_holds_entries_stays_unless_they_are_handed_over(
    pair: Pair, redis: Redis
) -> None:
    drafts = [a_notice() for _ in range(5)]
    await sent(pair, *drafts)
    await redis.xgroup_create(LIVE, "hhs", id="0")
    await left_behind(pair, redis, "hhs-7", holding=3)

    (kept,) = await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE)
    assert kept.kept
    assert (await consumers(pair))["hhs-7"][0] == 3

    (removal,) = await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE, hand_over=True)

    assert (removal.kept, removal.handed_over, removal.to) == (None, 3, "hhs-0")
    assert {name: each[0] for name, each in (await consumers(pair)).items()} == {"hhs-0": 3}
    lines: Any = await redis.xpending_range(LIVE, "hhs", "-", "+", 10)
    assert {line["times_delivered"] for line in lines} == {1}
    async with pair.running():
        await until(lambda: answered(pair.ice, drafts), "every receipt")
    assert await value(pair.hhs, "SELECT count(*) FROM gap") == 0


async def test_what_is_handed_over_goes_to_the_name_that_a_living_process_holds(
    pair: Pair, redis: Redis
) -> None:
    await sent(pair, a_notice())
    await redis.xgroup_create(LIVE, "hhs", id="0")
    await left_behind(pair, redis, "hhs-7", holding=1)

    async with free(pair.hhs, "hhs-4") as ours:
        assert ours
        (removal,) = await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE, hand_over=True)

    assert (removal.handed_over, removal.to) == (1, "hhs-4")
    assert {name: each[0] for name, each in (await consumers(pair)).items()} == {"hhs-4": 1}


async def test_entries_that_the_stream_lost_are_not_carried_along(pair: Pair, redis: Redis) -> None:
    await sent(pair, a_notice(), a_notice())
    await redis.xgroup_create(LIVE, "hhs", id="0")
    await left_behind(pair, redis, "hhs-7", holding=2)
    await redis.xtrim(LIVE, maxlen=1, approximate=False)

    await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE, hand_over=True)

    assert {name: each[0] for name, each in (await consumers(pair)).items()} == {"hhs-0": 1}


async def test_one_whose_name_a_living_process_holds_stays(pair: Pair, redis: Redis) -> None:
    await left_behind(pair, redis, "hhs-3", holding=0)

    async with free(pair.hhs, "hhs-3") as ours:
        assert ours
        (removal,) = await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE, hand_over=True)

    assert removal.kept == "a living process holds its name"
    assert set(await consumers(pair)) == {"hhs-3"}


async def test_the_next_process_own_name_stays_while_it_holds_entries(
    pair: Pair, redis: Redis
) -> None:
    await sent(pair, a_notice())
    await redis.xgroup_create(LIVE, "hhs", id="0")
    await left_behind(pair, redis, "hhs-0", holding=1)

    (removal,) = await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE, hand_over=True)

    assert removal.kept
    assert (await consumers(pair))["hhs-0"][0] == 1


async def test_what_is_given_to_a_consumer_while_it_is_removed_is_an_alarm(
    pair: Pair, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads under a name of ours without its lock, between the look and the removal."""
    await sent(pair, a_notice())
    await redis.xgroup_create(LIVE, "hhs", id="0")
    await left_behind(pair, redis, "hhs-7", holding=0)
    leave = Group.leave

    async def too_late(group: Group) -> int:
        await redis.xreadgroup("hhs", "hhs-7", {LIVE: ">"}, count=1)
        return await leave(group)

    monkeypatch.setattr(Group, "leave", too_late)

    (removal,) = await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE)

    assert (removal.kept, await consumers(pair)) == (None, {})
    alarm = "SELECT subject FROM alarm WHERE code = 'NB-5027' AND cleared_at IS NULL"
    assert await value(pair.hhs, alarm) == LIVE
    assert wordings()["NB-5027"].sentence.startswith("a consumer of {stream} was removed")
    monkeypatch.undo()
    # Nothing is lost: the sequence is missed, asked for, and sent again.
    after = a_notice()
    await accept(pair.ice, after)
    async with pair.running():
        await until(lambda: answered(pair.ice, [after]), "the receipt of what came after")
        await until(lambda: all_answered(pair), "the receipt of what was lost on the bus")


async def all_answered(pair: Pair) -> bool:
    return await value(pair.ice, "SELECT count(*) FROM sent WHERE answer IS NULL") == 0


async def test_a_running_agency_removes_them_by_itself_and_never_its_own(
    home: Path, database: Callable[[str], str], redis_url: str, redis: Redis
) -> None:
    """What the idle one holds is claimed by the reader first."""
    changes: Any = {"bus": {"claim_idle_seconds": 0.2, "consumer_idle_seconds": 3.0}}
    async with two_agencies(home, database, redis_url, **changes) as pair:
        drafts = [a_notice() for _ in range(4)]
        await sent(pair, *drafts)
        await redis.xgroup_create(LIVE, "hhs", id="0")
        await left_behind(pair, redis, "hhs-7", holding=2)
        async with pair.running():
            await until(lambda: answered(pair.ice, drafts), "every receipt")

            async def alone() -> bool:
                return set(await consumers(pair)) == {"hhs-0"}

            await until(alone, "the removal of the idle one")
            more = a_notice()
            await accept(pair.ice, more)
            await until(lambda: answered(pair.ice, [more]), "its receipt")

    assert await value(pair.hhs, REMOVED) == 1


async def test_looks_are_seldom(pair: Pair, redis: Redis) -> None:
    idle = IdleConsumers(pair.hhs)
    await idle.step([LIVE])
    before = (await redis.info("commandstats"))["cmdstat_xinfo|groups"]["calls"]

    for _ in range(10):
        await idle.step([LIVE])

    after = (await redis.info("commandstats"))["cmdstat_xinfo|groups"]["calls"]
    assert after == before


async def test_a_stream_that_is_not_there_has_none(pair: Pair) -> None:
    assert await remove_idle(pair.hhs, [LIVE], idle_seconds=IDLE) == []
