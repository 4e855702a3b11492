"""The reader on a real server: whatever Redis or FastStream do, each entry reaches `take`.

Each test is a trap of FastStream's or of Redis Streams' that would lose, strand or loop.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from schemas.errors import UnavailableError
from services.bus import Entry, Publisher, Reader, Verdict, group_status
from services.embedded import RedisServer
from services.settings import BusSettings, DeliverySettings, Settings

STREAM = "{ice.hhs.live.0}:out"
GROUP, CONSUMER = "hhs", "hhs-0"
WAIT_SECONDS = 20.0
SETTINGS = Settings(
    agency="hhs",
    bus=BusSettings(
        block_seconds=0.2,
        claim_idle_seconds=0.2,
        outage_backoff_seconds_min=0.01,
        outage_backoff_seconds_max=0.2,
    ),
    delivery=DeliverySettings(
        batch_max=100, backoff_seconds_min=0.01, backoff_seconds_max=0.05, attempts_max=5
    ),
)


async def until(done: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            answer = done()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


@dataclass
class Recipient:
    """Stands for the delivery: remembers what it took, and fails as it is told to."""

    calls: list[list[Entry]] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    poison: set[bytes] = field(default_factory=set)
    not_yet: set[bytes] = field(default_factory=set)
    attempts: dict[bytes, int] = field(default_factory=dict)
    set_aside: list[bytes] = field(default_factory=list)
    away: bool = False

    async def take(self, entries: Sequence[Entry]) -> list[Verdict]:
        self.calls.append(list(entries))
        if self.away:
            raise UnavailableError("NB-5001", reason="a test took it away")
        for entry in entries:
            if entry.jws in self.poison:
                raise ValueError("poison")
        self.taken.extend(entry.jws for entry in entries if entry.jws not in self.not_yet)
        return [
            Verdict.LEAVE_PENDING if entry.jws in self.not_yet else Verdict.ACKNOWLEDGE
            for entry in entries
        ]

    async def failed(self, entry: Entry, error: Exception) -> bool:
        if self.away:
            raise UnavailableError("NB-5001", reason="a test took it away")
        self.attempts[entry.jws] = self.attempts.get(entry.jws, 0) + 1
        if self.attempts[entry.jws] < SETTINGS.delivery.attempts_max:
            return False
        self.set_aside.append(entry.jws)
        return True


def a_reader(url: str, recipient: Recipient, *, settings: Settings = SETTINGS) -> Reader:
    return Reader(
        url,
        stream=STREAM,
        group=GROUP,
        consumer=CONSUMER,
        take=recipient.take,
        failed=recipient.failed,
        settings=settings,
    )


@asynccontextmanager
async def running(reader: Reader, *, healthy: bool = True) -> AsyncIterator[Reader]:
    stop = asyncio.Event()
    task = asyncio.create_task(reader.run(stop))
    try:
        if healthy:
            await until(lambda: reader.healthy)
        yield reader
    finally:
        stop.set()
        async with asyncio.timeout(WAIT_SECONDS):
            await task


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def publisher(redis_url: str) -> AsyncIterator[Publisher]:
    async with Publisher.open(redis_url, settings=SETTINGS.bus) as open_publisher:
        yield open_publisher


def numbered(first: int, last: int) -> list[bytes]:
    return [b"message %d" % number for number in range(first, last + 1)]


async def pending(url: str) -> int:
    groups = await group_status(url, STREAM, settings=SETTINGS.bus)
    return groups[0].pending


async def until_acknowledged(url: str) -> None:
    async def none_left() -> bool:
        return await pending(url) == 0

    await until(none_left)


async def test_what_was_published_before_the_first_start_is_taken_in_order(
    redis_url: str, publisher: Publisher
) -> None:
    recipient = Recipient()
    sent = numbered(1, 250)
    await publisher.publish(STREAM, sent)

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) >= 250)
        await until_acknowledged(redis_url)

    assert recipient.taken == sent
    assert [len(call) for call in recipient.calls] == [100, 100, 50]


async def test_faststream_itself_would_make_a_lost_group_at_the_beginning(
    redis_url: str, publisher: Publisher, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group vanishes between our making it and FastStream's start."""
    recipient = Recipient()
    reader = a_reader(redis_url, recipient)
    drain = reader._drain

    async def vanish(*given: object) -> None:
        await drain(*given)  # type: ignore[arg-type]
        if not recipient.calls:
            await redis.xgroup_destroy(STREAM, GROUP)
            await publisher.publish(STREAM, numbered(1, 3))

    monkeypatch.setattr(reader, "_drain", vanish)

    async with running(reader):
        await until(lambda: recipient.taken == numbered(1, 3))


async def test_entries_of_an_earlier_life_come_first_and_then_new_ones(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    recipient = Recipient()
    await publisher.publish(STREAM, numbered(1, 150))
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=120)

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) >= 150)
        await until_acknowledged(redis_url)

    assert recipient.taken == numbered(1, 150)
    assert {entry.delivered for call in recipient.calls[:2] for entry in call} == {2}


async def test_an_entry_handed_out_more_than_twice_is_tried_alone(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    recipient = Recipient()
    ids = await publisher.publish(STREAM, numbered(1, 10))
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, CONSUMER, {STREAM: ">"})
    await redis.xclaim(STREAM, GROUP, CONSUMER, 0, [ids[3]])

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) == 10)

    assert [entry.jws for entry in recipient.calls[0]] == [*numbered(1, 3), *numbered(5, 10)]
    assert [(entry.jws, entry.delivered) for entry in recipient.calls[1]] == [(b"message 4", 3)]


async def test_one_raising_entry_among_a_hundred_does_not_stop_the_others(
    redis_url: str, publisher: Publisher
) -> None:
    recipient = Recipient(poison={b"message 42"})
    await publisher.publish(STREAM, numbered(1, 100))

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: recipient.set_aside == [b"message 42"])
        await until_acknowledged(redis_url)

    assert sorted(recipient.taken) == sorted(set(numbered(1, 100)) - {b"message 42"})
    assert recipient.attempts == {b"message 42": 5}
    alone = [call for call in recipient.calls if call[0].jws == b"message 42" and len(call) == 1]
    assert len(alone) == 5


async def test_an_outage_of_the_store_counts_for_no_message_and_ends_by_itself(
    redis_url: str, publisher: Publisher
) -> None:
    recipient = Recipient(away=True, poison={b"message 2"})

    async with running(a_reader(redis_url, recipient)) as reader:
        await publisher.publish(STREAM, numbered(1, 3))
        await until(lambda: len(recipient.calls) > 3)
        assert not reader.healthy
        assert recipient.attempts == {}
        assert await pending(redis_url) > 0

        recipient.away = False

        await until(lambda: recipient.set_aside == [b"message 2"])
        await until_acknowledged(redis_url)
        await until(lambda: reader.healthy)
    assert recipient.taken == [b"message 1", b"message 3"]


async def test_stopping_in_an_outage_is_prompt_and_the_next_run_takes_everything(
    redis_url: str, publisher: Publisher
) -> None:
    recipient = Recipient(away=True)
    await publisher.publish(STREAM, numbered(1, 130))
    async with running(a_reader(redis_url, recipient), healthy=False):
        await until(lambda: len(recipient.calls) > 1)
    recipient.away = False

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) == 130)

    assert recipient.taken == numbered(1, 130)


async def test_an_entry_left_pending_is_offered_again(redis_url: str, publisher: Publisher) -> None:
    recipient = Recipient(not_yet={b"message 2"})

    async with running(a_reader(redis_url, recipient)):
        await publisher.publish(STREAM, numbered(1, 3))
        await until(lambda: len(recipient.calls) > 3)
        assert await pending(redis_url) == 1
        recipient.not_yet.clear()
        await until_acknowledged(redis_url)

    assert recipient.taken == [b"message 1", b"message 3", b"message 2"]
    assert recipient.attempts == {}


async def test_a_dead_consumers_entries_are_claimed_in_place(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    recipient = Recipient()
    await publisher.publish(STREAM, numbered(1, 130))
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, "hhs-7", {STREAM: ">"})

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) >= 130)
        await until_acknowledged(redis_url)

    assert recipient.taken == numbered(1, 130)


async def test_entries_that_are_no_messages_reach_the_taker_and_stop_nobody(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    """FastStream's own parser would fail the whole batch, for ever."""
    recipient = Recipient()
    await publisher.publish(STREAM, numbered(1, 2))
    await redis.xadd(STREAM, {"other": "field"})
    await redis.xadd(STREAM, {b"jws": b"\xff\xfe\x00"})
    await redis.xadd(STREAM, {b"__data__": b"\x89BIN\r\n\x1a\n\xff", b"\xff": b"\xff"})
    await publisher.publish(STREAM, numbered(3, 4))

    async with running(a_reader(redis_url, recipient)):
        await until(lambda: len(recipient.taken) == 7)
        await until_acknowledged(redis_url)

    assert recipient.taken == [*numbered(1, 2), b"", b"\xff\xfe\x00", b"", *numbered(3, 4)]


async def test_trimmed_pending_entries_are_counted_and_not_waited_for(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    recipient = Recipient()
    ids = await publisher.publish(STREAM, numbered(1, 5))
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=4)
    await publisher.trim(STREAM, ids[2])

    async with running(a_reader(redis_url, recipient)) as reader:
        await until(lambda: len(recipient.taken) >= 3)
        await until_acknowledged(redis_url)

        assert reader.trimmed == 2
    assert recipient.taken == numbered(3, 5)


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

    async def take_and_kill(entries: Sequence[Entry]) -> list[Verdict]:
        verdicts = await take(entries)
        if len(recipient.calls) == 1:
            own_redis.kill()
            own_redis.start()
        return verdicts

    recipient.take = take_and_kill  # type: ignore[method-assign]
    async with Publisher.open(own_redis.url, settings=SETTINGS.bus) as publisher:
        await publisher.publish(STREAM, numbered(1, 3))

    async with running(a_reader(own_redis.url, recipient)) as reader:
        await until(lambda: len(recipient.taken) == 6)
        await until(lambda: reader.healthy)
        await until_acknowledged(own_redis.url)

    assert recipient.taken == numbered(1, 3) * 2


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


async def test_no_password_reaches_an_error(own_redis: RedisServer) -> None:
    url = own_redis.url.replace("unix://", "unix://nobody:s3cret@")

    async with Publisher.open(url, settings=SETTINGS.bus) as publisher:
        with pytest.raises(UnavailableError) as caught:
            await publisher.ping()

    assert caught.value.code == "NB-5002"
    assert "s3cret" not in str(caught.value)


async def test_the_sender_sees_how_far_the_peer_acknowledged(
    redis_url: str, publisher: Publisher, redis: Redis
) -> None:
    assert await publisher.acknowledged_up_to(STREAM, group=GROUP) is None
    ids = await publisher.publish(STREAM, numbered(1, 3))
    assert await publisher.acknowledged_up_to(STREAM, group=GROUP) is None
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=2)
    await redis.xack(STREAM, GROUP, ids[0])

    reached = await publisher.acknowledged_up_to(STREAM, group=GROUP)

    assert reached is not None
    assert ids[0] <= reached < ids[1]
    await redis.xack(STREAM, GROUP, ids[1])
    assert await publisher.acknowledged_up_to(STREAM, group=GROUP) == ids[1]
