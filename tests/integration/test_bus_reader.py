"""The reader on a real server: each entry reaches `take`, and exactly what is durable is done.

Each test is a trap of FastStream's or of Redis Streams' that would lose, strand or loop.
"""

import pytest
from redis.asyncio import Redis
from structlog.testing import CapturingLogger

from schemas.errors import UnavailableError, wordings
from services.bus import Publisher
from services.bus import reader as reader_module
from services.embedded import RedisServer
from services.telemetry.metrics import REGISTRY
from tests.readers import (
    CONSUMER,
    GROUP,
    SETTINGS,
    STREAM,
    Recipient,
    a_reader,
    numbered,
    pending,
    running,
    until,
    until_acknowledged,
)


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


async def test_a_failure_that_cannot_be_noted_leaves_its_entry_pending_and_stops_nobody(
    redis_url: str, publisher: Publisher
) -> None:
    recipient = Recipient(poison={b"message 2"}, forgetful=True)

    async with running(a_reader(redis_url, recipient)) as reader:
        await publisher.publish(STREAM, numbered(1, 3))
        await until(lambda: len(recipient.calls) > 6 and len(recipient.taken) == 2)
        assert recipient.taken == [b"message 1", b"message 3"]
        assert await pending(redis_url) == 1
        assert reader.healthy

        recipient.poison.clear()

        await until(lambda: recipient.taken[2:] == [b"message 2"])
        await until_acknowledged(redis_url)
    assert (recipient.attempts, recipient.set_aside) == ({}, [])


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
    redis_url: str, publisher: Publisher, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = CapturingLogger()
    monkeypatch.setattr(reader_module, "log", told)
    recipient = Recipient()
    ids = await publisher.publish(STREAM, numbered(1, 5))
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=4)
    await publisher.trim(STREAM, ids[2])
    raised = alarms("NB-5003")

    async with running(a_reader(redis_url, recipient)) as reader:
        await until(lambda: len(recipient.taken) >= 3)
        await until_acknowledged(redis_url)

        assert reader.trimmed == 2
    assert recipient.taken == numbered(3, 5)
    assert alarms("NB-5003") == raised + 1
    [line] = [call for call in told.calls if call.kwargs.get("code") == "NB-5003"]
    assert (line.method_name, line.args) == (
        "error",
        ("entries were removed before they were taken",),
    )
    assert (line.kwargs["count"], line.kwargs["first"]) == (2, ids[0])
    assert wordings()["NB-5003"].sentence.format(**line.kwargs) == (
        f"2 entries of stream {STREAM} were removed before they were taken"
    )


def alarms(code: str) -> float:
    return REGISTRY.get_sample_value("noticebus_alarms_raised_total", {"code": code}) or 0.0


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
