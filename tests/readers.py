"""A reader on a real server, and a recipient that fails as it is told to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from schemas.errors import UnavailableError
from services.bus import Entry, Reader, Verdict, group_status
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
    forgetful: bool = False

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
        if self.forgetful:
            raise ValueError("a failure that cannot be noted")
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


def numbered(first: int, last: int) -> list[bytes]:
    return [b"message %d" % number for number in range(first, last + 1)]


async def pending(url: str) -> int:
    groups = await group_status(url, STREAM, settings=SETTINGS.bus)
    return groups[0].pending


async def until_acknowledged(url: str) -> None:
    async def none_left() -> bool:
        return await pending(url) == 0

    await until(none_left)
