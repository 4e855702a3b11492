"""The reader mends itself: Redis away, killed, emptied, its group removed, its reading frozen."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from schemas.errors import UnavailableError
from services.bus import Entry, Publisher, Verdict, group_status
from services.embedded import RedisServer
from tests.readers import (
    GROUP,
    SETTINGS,
    STREAM,
    WAIT_SECONDS,
    Recipient,
    a_reader,
    numbered,
    pending,
    running,
    until,
    until_acknowledged,
)


@pytest.mark.parametrize("how", ["XGROUP DESTROY", "DEL", "FLUSHALL"])
async def test_a_removed_group_is_made_again_at_the_beginning(
    redis_url: str, publisher: Publisher, redis: Redis, how: str
) -> None:
    recipient = Recipient()

    async with running(a_reader(redis_url, recipient)) as reader:
        for turn in range(3):
            recipient.taken.clear()
            await publisher.publish(STREAM, [b"before %d" % turn])
            await until(lambda: recipient.taken != [])
            match how:
                case "XGROUP DESTROY":
                    await redis.xgroup_destroy(STREAM, GROUP)
                case "DEL":
                    await redis.delete(STREAM)
                case _:
                    await redis.flushall()
            await publisher.publish(STREAM, [b"after %d" % turn])
            await until(lambda turn=turn: b"after %d" % turn in recipient.taken)  # type: ignore[misc]
            await until(lambda: reader.healthy)


async def test_a_missing_group_makes_no_hot_loop(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    """Somebody removes the group again and again: reads stay few."""
    recipient = Recipient()

    async def made() -> bool:
        return bool(await group_status(redis_url, STREAM, settings=SETTINGS.bus))

    async with running(a_reader(redis_url, recipient)):
        before = (await redis.info("commandstats"))["cmdstat_xreadgroup"]["calls"]
        for _ in range(5):
            await redis.xgroup_destroy(STREAM, GROUP)
            await until(made)
        after = (await redis.info("commandstats"))["cmdstat_xreadgroup"]["calls"]

    assert after - before < 60


async def test_a_refusing_redis_makes_no_hot_loop_and_is_not_healthy(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    """FastStream's supervisor would send some 300 failing reads a second."""
    recipient = Recipient()
    await redis.acl_setuser(
        "reader", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-debug"]
    )
    url = redis_url.replace("unix://", "unix://reader:any@")
    try:
        async with running(a_reader(url, recipient)) as reader:
            await redis.acl_setuser("reader", enabled=True, commands=["-xreadgroup"])
            await until(lambda: not reader.healthy)
            stats = await redis.info("commandstats")
            refused = stats["cmdstat_xreadgroup"]["rejected_calls"]
            await publisher.publish(STREAM, numbered(1, 1))
            # The longest backoff, three times.
            await asyncio.sleep(0.6)
            stats = await redis.info("commandstats")
            assert stats["cmdstat_xreadgroup"]["rejected_calls"] - refused < 20

            await redis.acl_setuser("reader", enabled=True, commands=["+xreadgroup"])

            await until(lambda: recipient.taken == numbered(1, 1))
            await until(lambda: reader.healthy)
    finally:
        await redis.acl_deluser("reader")


@pytest.mark.parametrize("empty", [False, True], ids=["with its data", "empty"])
async def test_a_killed_redis_is_waited_for(own_redis: RedisServer, empty: bool) -> None:  # noqa: FBT001
    recipient = Recipient()

    async with (
        running(a_reader(own_redis.url, recipient)) as reader,
        Publisher.open(own_redis.url, settings=SETTINGS.bus) as publisher,
    ):
        await publisher.publish(STREAM, numbered(1, 2))
        await until(lambda: len(recipient.taken) == 2)
        own_redis.kill()
        await until(lambda: not reader.healthy)
        with pytest.raises(UnavailableError):
            await publisher.publish(STREAM, numbered(3, 3))
        if empty:
            own_redis.wipe()
        own_redis.start()
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    await publisher.publish(STREAM, numbered(4, 4))
                except UnavailableError:
                    continue
                break

        await until(lambda: b"message 4" in recipient.taken)
        await until(lambda: reader.healthy)
        await until_acknowledged(own_redis.url)


async def test_a_reader_that_starts_before_redis_waits_for_it(own_redis: RedisServer) -> None:
    recipient = Recipient()
    own_redis.stop()

    async with running(a_reader(own_redis.url, recipient), healthy=False) as reader:
        assert not reader.healthy
        own_redis.start()
        await until(lambda: reader.healthy)


async def test_redis_killed_between_take_and_acknowledgement_offers_the_entry_again(
    own_redis: RedisServer,
) -> None:
    recipient = Recipient()
    take = recipient.take
    published = asyncio.Event()

    async def take_and_kill(entries: Sequence[Entry]) -> list[Verdict]:
        verdicts = await take(entries)
        # The reader may be given an entry before its publisher hears that it is stored.
        await published.wait()
        if len(recipient.calls) == 1:
            own_redis.kill()
        return verdicts

    recipient.take = take_and_kill  # type: ignore[method-assign]
    async with running(a_reader(own_redis.url, recipient)) as reader:
        async with Publisher.open(own_redis.url, settings=SETTINGS.bus) as publisher:
            await publisher.publish(STREAM, [b"message 1"])
            published.set()
        # Started any sooner, Redis might hear the acknowledgement after all.
        await until(lambda: not reader.healthy)
        own_redis.start()
        await until(lambda: len(recipient.taken) == 2)
        await until(lambda: reader.healthy)
        await until_acknowledged(own_redis.url)

    assert recipient.taken == [b"message 1"] * 2


async def test_frequent_restarts_under_load_strand_nothing(
    redis_url: str, publisher: Publisher
) -> None:
    """FastStream drops the read under way at almost every stop; draining brings it back."""
    recipient = Recipient()
    for turn in range(15):
        async with running(a_reader(redis_url, recipient), healthy=False):
            for number in range(10):
                await publisher.publish(STREAM, [b"message %d.%d" % (turn, number)])
            await until(lambda: len(recipient.taken) > 0)

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(set(recipient.taken)) == 150)
        await until_acknowledged(redis_url)


async def test_a_clean_stop_leaves_nothing_pending(redis_url: str, publisher: Publisher) -> None:
    recipient = Recipient()

    async with running(a_reader(redis_url, recipient)):
        await publisher.publish(STREAM, numbered(1, 50))

    assert await pending(redis_url) == 0


async def test_what_was_read_and_not_handed_over_is_taken_at_a_clean_stop(
    redis_url: str, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastStream drops the read that is under way when it stops; Redis has handed it out."""
    from faststream.redis.subscriber.usecases.stream_subscriber import StreamBatchSubscriber

    async def keep(self: Any, read: Callable[[str], Awaitable[object]]) -> None:
        await read(self.last_id)
        await asyncio.Event().wait()

    monkeypatch.setattr(StreamBatchSubscriber, "_get_msgs", keep)
    recipient = Recipient()
    await publisher.publish(STREAM, numbered(1, 50))

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: is_pending(redis_url, 50))
        assert recipient.taken == []

    assert recipient.taken == numbered(1, 50)
    assert await pending(redis_url) == 0


async def is_pending(redis_url: str, count: int) -> bool:
    return await pending(redis_url) == count


async def test_a_frozen_subscription_is_noticed_and_replaced(
    redis_url: str, publisher: Publisher, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health is what Redis sees of us: a task that lives and reads nothing is not healthy."""
    from services.bus import reader as module
    from services.bus.subscription import Subscription

    monkeypatch.setattr(module, "SEEN_SLACK_SECONDS", 0.2)
    starts: list[Subscription] = []
    start = Subscription.start

    async def freeze_the_first(self: Subscription) -> None:
        starts.append(self)
        await start(self)
        if len(starts) == 1:

            async def read_nothing(*_: object) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(type(self._subscriber), "_get_msgs", read_nothing)
        else:
            monkeypatch.undo()

    monkeypatch.setattr(Subscription, "start", freeze_the_first)
    recipient = Recipient()
    reader = a_reader(redis_url, recipient)

    async with running(reader, healthy=False):
        await until(lambda: len(starts) == 2)
        await publisher.publish(STREAM, numbered(1, 1))
        await until(lambda: recipient.taken == numbered(1, 1))
        await until(lambda: reader.healthy)


KILLED = """
import asyncio, sys
from tests.readers import Recipient, a_reader

class Stuck(Recipient):
    async def take(self, entries):
        if self.calls:
            print("in the middle", flush=True)
            await asyncio.Event().wait()
        return await super().take(entries)

asyncio.run(a_reader(sys.argv[1], Stuck()).run(asyncio.Event()))
"""


async def test_a_process_killed_in_the_middle_of_a_batch_strands_nothing(
    redis_url: str, publisher: Publisher
) -> None:
    await publisher.publish(STREAM, numbered(1, 250))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, redis_url),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_SECONDS):
        while b"in the middle" not in await process.stdout.readline():
            pass
    process.kill()
    # To the end of the pipe, so that it closes with the process.
    await process.communicate()
    assert await pending(redis_url) >= 100
    recipient = Recipient()

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) >= 150)
        await until_acknowledged(redis_url)

    assert recipient.taken == numbered(101, 250)


async def test_an_outage_that_is_over_at_once_counts_for_no_message(
    redis_url: str, publisher: Publisher
) -> None:
    recipient = Recipient()
    take, outages = recipient.take, iter(range(3))

    async def flapping(entries: Sequence[Entry]) -> list[Verdict]:
        if next(outages, None) is not None:
            raise UnavailableError("NB-5001", reason="away for a moment")
        return await take(entries)

    recipient.take = flapping  # type: ignore[method-assign]  # the fault
    await publisher.publish(STREAM, numbered(1, 4))

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) == 4)

    assert recipient.attempts == {}
