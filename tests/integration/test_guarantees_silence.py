"""Guarantees 1 and 5: what is silent is seen, within bounds; what is answered leaves the bus."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.steps import LIVE, TO_ICE, bus, change, on_stream, relay, sent, upkeep

AGAIN = "SELECT count(*) FROM republish"
ALARM = "SELECT count(*) FROM alarm WHERE code = 'NB-2120' AND cleared_at IS NULL"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def an_hour_passes(pair: Pair) -> None:
    await change(pair.ice, "UPDATE sent SET sequenced_at = sequenced_at - interval '1 hour'")
    await change(
        pair.ice,
        "UPDATE publication SET acknowledged_seen_at = acknowledged_seen_at - interval '1 hour'",
    )


async def read_by_the_peer(pair: Pair, *, acknowledge: bool, count: int = 10) -> None:
    """Do what a peer does that reads entries and never answers."""
    async with bus(pair.hhs) as publisher:
        client = publisher.client
        await client.xgroup_create(LIVE, "hhs", id="0")
        read: Any = await client.xreadgroup("hhs", "hhs-0", {LIVE: ">"}, count=count)
        if acknowledge:
            [[_, entries]] = read
            await client.xack(LIVE, "hhs", *(entry_id for entry_id, _ in entries))


async def test_an_overdue_answer_of_what_nobody_acknowledged_only_alarms(pair: Pair) -> None:
    entries = await sent(pair, a_notice())
    await read_by_the_peer(pair, acknowledge=False)

    for _ in range(3):
        await an_hour_passes(pair)
        await upkeep(pair.ice)
        await relay(pair.ice, LIVE)

    assert await on_stream(pair, LIVE) == entries
    assert await value(pair.ice, ALARM) == 1
    overdue = "SELECT count(*) FROM record WHERE action = 'answer.overdue'"
    assert await value(pair.ice, overdue) == 1


async def test_what_was_acknowledged_a_while_ago_and_not_answered_goes_again_as_it_was(
    pair: Pair,
) -> None:
    await sent(pair, a_notice())
    await read_by_the_peer(pair, acknowledge=True)
    await an_hour_passes(pair)
    await upkeep(pair.ice)
    assert await value(pair.ice, AGAIN) == 0
    await an_hour_passes(pair)

    await upkeep(pair.ice)
    await relay(pair.ice, LIVE)

    first, again = await on_stream(pair, LIVE)
    assert again.jws == first.jws


async def test_an_alarm_stays_until_the_answer_comes_though_the_bus_lost_all(pair: Pair) -> None:
    draft = a_notice()
    await sent(pair, draft)
    await an_hour_passes(pair)
    await upkeep(pair.ice)
    async with bus(pair.ice) as publisher:
        await publisher.client.flushall()

    await upkeep(pair.ice)
    await upkeep(pair.ice)

    assert await value(pair.ice, ALARM) == 1
    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")
        await until(lambda: is_zero(pair, ALARM), "the end of the alarm")


async def test_what_the_bus_lost_goes_again_at_once_and_as_it_was(pair: Pair) -> None:
    entries = await sent(pair, a_notice(), a_notice())
    async with bus(pair.ice) as publisher:
        await publisher.client.flushall()

    await upkeep(pair.ice)
    await relay(pair.ice, LIVE)

    again = await on_stream(pair, LIVE)
    assert [entry.jws for entry in again] == [entry.jws for entry in entries]
    assert await value(pair.ice, "SELECT count(*) FROM sent WHERE overdue_at IS NOT NULL") == 0


async def test_what_was_refused_is_sent_no_more(pair: Pair) -> None:
    await sent(pair, a_notice())
    await change(pair.ice, "UPDATE sent SET answer = 'refusal'")
    async with bus(pair.ice) as publisher:
        await publisher.client.flushall()
    await an_hour_passes(pair)

    await upkeep(pair.ice)
    await relay(pair.ice, LIVE)

    assert await on_stream(pair, LIVE) == []


async def test_the_stream_is_trimmed_below_what_is_not_answered(pair: Pair) -> None:
    for _ in range(3):
        await sent(pair, a_notice())
    entries = await on_stream(pair, LIVE)
    await read_by_the_peer(pair, acknowledge=True)
    await change(pair.ice, "UPDATE sent SET answer = 'receipt' WHERE sequence IN (1, 3)")

    await upkeep(pair.ice)

    assert await on_stream(pair, LIVE) == entries[1:]


async def test_what_the_peer_has_not_taken_stays_whoever_wrote_it(pair: Pair) -> None:
    await sent(pair, a_notice())
    async with bus(pair.ice) as publisher:
        await publisher.publish(LIVE, [b"not ours"])
    await sent(pair, a_notice())
    await read_by_the_peer(pair, acknowledge=True, count=1)
    await change(pair.ice, "UPDATE sent SET answer = 'receipt' WHERE sequence = 1")

    await upkeep(pair.ice)

    assert b"not ours" in [entry.jws for entry in await on_stream(pair, LIVE)]


async def test_a_stream_whose_messages_are_all_answered_is_emptied(pair: Pair) -> None:
    async with pair.running():
        for _ in range(3):
            draft = a_notice()
            await accept(pair.ice, draft)
            await until(lambda d=draft: answered(pair.ice, [d]), "the receipt")  # type: ignore[misc]  # a default binds it
        # The last entry that the peer acknowledged may stay.
        await until(lambda: at_most(pair, LIVE, 1), "an empty stream")

    assert await value(pair.ice, "SELECT count(*) FROM publication WHERE stream = %s", LIVE) == 0


async def test_what_control_published_leaves_no_rows_behind(pair: Pair) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")
        await until(lambda: none_noted(pair), "an end of what was noted")

    assert await on_stream(pair, TO_ICE)


async def none_noted(pair: Pair) -> bool:
    return await value(pair.hhs, "SELECT count(*) FROM publication") == 0


async def is_zero(pair: Pair, query: str) -> bool:
    return await value(pair.ice, query) == 0


async def at_most(pair: Pair, stream: str, entries: int) -> bool:
    return len(await on_stream(pair, stream)) <= entries
