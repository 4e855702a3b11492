"""Put signed bytes on our streams, and ask what became of them.

At least once: if the connection breaks after XADD and before its answer, publishing raises and the
entry may be there all the same. The recipient recognises the second one by its message id.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis.asyncio import Redis

from services.bus.connection import GroupGoneError, connected, speaking
from services.bus.entry import JWS_FIELD, Entry, entry_of, order
from services.settings import BusSettings

COUNTER_MAX = 2**64 - 1


# Entries looked up in one round trip: each answer brings the whole entry.
_LOOKED_UP = 500


@dataclass(frozen=True, slots=True)
class Holding:
    """What a stream holds: how many entries, the lowest id, the highest id that it ever gave.

    `added` counts all that were ever added. It falls, as the highest id does, only when the stream
    was made anew or lost its end: that tells another life of the bus from the one that we knew.
    """

    length: int
    first: str | None
    last: str
    added: int


@dataclass(frozen=True, slots=True)
class Publisher:
    """One agency's way onto the bus. All methods raise `UnavailableError` when it is away."""

    client: Redis

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, settings: BusSettings) -> "AsyncIterator[Self]":
        """Yield a publisher; nothing is connected before the first call."""
        async with connected(url, settings) as client:
            yield cls(client)

    async def publish(self, stream: str, envelopes: Sequence[bytes]) -> list[str]:
        """Append envelopes in order, in one round trip; return their entry ids.

        After an error any number of them may have been appended.
        """
        if not envelopes:
            return []
        with speaking():
            async with self.client.pipeline(transaction=False) as pipeline:
                for jws in envelopes:
                    pipeline.xadd(stream, {JWS_FIELD: jws})
                answers = await pipeline.execute()
        return [entry_id.decode("ascii") for entry_id in answers]

    async def held(self, stream: str, entry_ids: Sequence[str]) -> list[bool]:
        """Say of each entry whether the stream still holds it."""
        answers: list[bool] = []
        for at in range(0, len(entry_ids), _LOOKED_UP):
            with speaking():
                async with self.client.pipeline(transaction=False) as pipeline:
                    for entry_id in entry_ids[at : at + _LOOKED_UP]:
                        pipeline.xrange(stream, entry_id, entry_id, count=1)
                    answers += [bool(found) for found in await pipeline.execute()]
        return answers

    async def holding(self, stream: str) -> Holding | None:
        """Return what the stream holds, None if there is no such stream; one small command."""
        try:
            with speaking():
                about: dict[str, Any] = await self.client.xinfo_stream(stream)
        except GroupGoneError:
            return None
        first = about["first-entry"]
        return Holding(
            length=about["length"],
            first=first[0].decode("ascii") if first else None,
            last=about["last-generated-id"].decode("ascii"),
            added=about["entries-added"],
        )

    async def pages(self, stream: str) -> AsyncIterator[list[Entry]]:
        """Yield all that the stream holds, in order, some hundred entries at a time."""
        after = "-"
        while True:
            with speaking():
                found: Any = await self.client.xrange(stream, min=after, count=_LOOKED_UP)
            if not found:
                return
            yield [entry_of(stream, entry_id, fields, 0) for entry_id, fields in found]
            after = f"({found[-1][0].decode('ascii')}"

    async def acknowledged_up_to(self, stream: str, *, group: str) -> str | None:
        """Return the highest id up to which `group` has acknowledged everything, or None.

        It tells the sender what the peer claims to have taken; a receipt alone proves it.
        """
        try:
            with speaking():
                groups: list[dict[str, Any]] = await self.client.xinfo_groups(stream)
                delivered = {
                    each["name"].decode(): each["last-delivered-id"].decode("ascii")
                    for each in groups
                }
                if group not in delivered:
                    return None
                pending: dict[str, Any] = await self.client.xpending(stream, group)
        except GroupGoneError:
            return None
        lowest = pending["min"]
        return _before(lowest.decode("ascii")) if lowest else str(delivered[group])

    async def has_group(self, stream: str, group: str) -> bool:
        """Say whether `group` reads the stream, or did."""
        try:
            with speaking():
                groups: list[dict[str, Any]] = await self.client.xinfo_groups(stream)
        except GroupGoneError:
            return False
        return any(each["name"].decode() == group for each in groups)

    async def trim(self, stream: str, lowest: str) -> int:
        """Remove the entries below id `lowest`; return how many went."""
        with speaking():
            return int(await self.client.xtrim(stream, minid=lowest, approximate=False))

    async def trim_length(self, stream: str, entries_max: int) -> int:
        """Remove the oldest entries beyond about `entries_max`; return how many went."""
        with speaking():
            return int(await self.client.xtrim(stream, maxlen=entries_max, approximate=True))

    async def length(self, stream: str) -> int:
        """Return how many entries the stream holds."""
        with speaking():
            return int(await self.client.xlen(stream))

    async def ping(self) -> None:
        """Return if the bus answers."""
        with speaking():
            await self.client.ping()


def _before(entry_id: str) -> str:
    milliseconds, counter = order(entry_id)
    if counter:
        return f"{milliseconds}-{counter - 1}"
    return f"{milliseconds - 1}-{COUNTER_MAX}"
