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
from services.bus.entry import JWS_FIELD, order
from services.settings import BusSettings

COUNTER_MAX = 2**64 - 1


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
        """Say of each entry whether the stream still holds it, in one round trip."""
        if not entry_ids:
            return []
        with speaking():
            async with self.client.pipeline(transaction=False) as pipeline:
                for entry_id in entry_ids:
                    pipeline.xrange(stream, entry_id, entry_id, count=1)
                answers = await pipeline.execute()
        return [bool(found) for found in answers]

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
