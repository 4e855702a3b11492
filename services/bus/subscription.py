"""FastStream's part: the loop that reads new entries in batches and hands them over.

FastStream 0.7 as it is used here, and what it would do if left alone (measured, and each has a
test): it makes a group at `$`, so earlier entries are lost; its own parser fails a whole batch for
one entry that is no JSON; a lost group stops it for good, any other refusal makes it read again in
a hot loop; an outage is slept over for 5 seconds; the read that is under way when it stops is
dropped. It reports none of that but to its logger. So: the thin parser, `last_id` 0, and an eye on
its logger and its task; whoever owns the subscription looks at the facts, and makes a new one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import FAKE_CONSUMER, RedisBatchStreamMessage
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from schemas.errors import UnavailableError
from services.bus.entry import Entry, entry_of
from services.bus.pending import Group
from services.settings import BusSettings

OnEntries = Callable[[Sequence[Entry]], Awaitable[None]]


class Subscription:
    """One run of FastStream's batch subscriber; made, started once, stopped once.

    `ended` is called as soon as something went wrong with it; it reads nothing more then, or soon.
    """

    def __init__(
        self,
        url: str,
        group: Group,
        on_entries: OnEntries,
        ended: Callable[[], None],
        *,
        batch_max: int,
        settings: BusSettings,
    ) -> None:
        self._ended = ended
        self._tasks: list[asyncio.Task[Any]] = []
        self._broker = RedisBroker(
            url,
            logger=_Ear(self._hear),
            apply_types=False,
            graceful_timeout=settings.answer_seconds,
            socket_connect_timeout=settings.connect_seconds,
            # A blocked read answers after `block_seconds` at the latest.
            socket_timeout=settings.block_seconds + settings.answer_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        self._subscriber = self._broker.subscriber(
            stream=StreamSub(
                group.stream,
                group=group.name,
                consumer=group.consumer,
                batch=True,
                max_records=batch_max,
                polling_interval=int(settings.block_seconds * 1000),
            ),
            ack_policy=AckPolicy.MANUAL,
            parser=_parse,
            decoder=_decode,
        )
        self._subscriber(on_entries)
        # FastStream makes the group too, should it vanish between our making it and here. The id
        # that it would use is `last_id`; the id that it reads from stays `>`.
        self._subscriber.last_id = "0"

    async def start(self) -> None:
        """Begin to read. Raises `UnavailableError` (NB-5002); call `stop` also then."""
        try:
            await self._broker.start()
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError("NB-5002", reason=type(error).__name__) from error
        self._tasks = list(self._subscriber.tasks)
        for task in self._tasks:
            # Its supervisor would start it again at once and for ever.
            task.add_done_callback(lambda _: self._ended())
        if not self._tasks or any(task.done() for task in self._tasks):
            self._ended()

    @property
    def reading(self) -> bool:
        """Whether the task that was started still runs and FastStream means it to."""
        return (
            self._subscriber.running
            and bool(self._tasks)
            and not any(task.done() for task in self._tasks)
        )

    async def stop(self) -> None:
        """Let the batch under way finish, stop reading, and close the connections."""
        # That its tasks end is our doing from here on, and no trouble.
        self._ended = _nothing
        tasks = [*self._tasks, *self._subscriber.tasks]
        await self._subscriber.stop()
        # FastStream cancels its tasks and walks away; their connections close under them.
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._broker.stop()

    def _hear(self, level: int) -> None:
        if level >= logging.ERROR:
            self._ended()


def _nothing() -> None:
    pass


async def _parse(raw: Mapping[str, Any]) -> RedisBatchStreamMessage:
    """Wrap a batch without looking into it: bytes are judged by who verifies them.

    A coroutine function: FastStream would run anything else in a thread, batch after batch.
    """
    return RedisBatchStreamMessage(
        raw_message=raw,
        body=b"",
        consumer=FAKE_CONSUMER,
        group=None,
    )


async def _decode(message: RedisBatchStreamMessage) -> list[Entry]:
    """Return the batch as entries: what the subscriber's function is called with."""
    raw = message.raw_message
    return [
        entry_of(raw["channel"], entry_id, fields, 1)
        for entry_id, fields in zip(raw["message_ids"], raw["data"], strict=True)
    ]


class _Ear:
    """Takes the place of FastStream's logger: its words may hold payloads, its levels may not."""

    def __init__(self, hear: Callable[[int], None]) -> None:
        self._hear = hear

    def log(self, level: int, message: object, *rest: object, **named: object) -> None:
        self._hear(level)
