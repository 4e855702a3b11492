"""Read a stream's raw entries without a group, and keep copies on streams that nobody delivers.

Reading so changes nothing: no group moves, nothing is acknowledged. What is put on a stream here
has an entry id of the writer's choice, so that writing it again adds no second entry.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from schemas.errors import UnavailableError
from services.bus.connection import GroupGoneError, connected, speaking
from services.bus.entry import JWS_FIELD, Entry, entry_of
from services.settings import BusSettings


@dataclass(frozen=True, slots=True)
class History:
    """A way to look at streams. All methods raise `UnavailableError` when the bus is away."""

    client: Redis

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, settings: BusSettings) -> "AsyncIterator[Self]":
        """Yield one; nothing is connected before the first call."""
        async with connected(url, settings) as client:
            yield cls(client)

    async def entries(self, stream: str, *, count: int = 500) -> AsyncIterator[list[Entry]]:
        """Yield all that a stream holds, oldest first, in batches; nothing where there is none."""
        after = "-"
        while True:
            with speaking():
                found: Any = await self.client.xrange(stream, min=after, count=count)
            if not found:
                return
            yield [entry_of(stream, entry_id, fields, 0) for entry_id, fields in found]
            after = f"({found[-1][0].decode('ascii')}"

    async def read(self, stream: str, entry_ids: Sequence[str]) -> list[Entry | None]:
        """Return these entries, None for each that the stream no longer holds."""
        if not entry_ids:
            return []
        with speaking():
            async with self.client.pipeline(transaction=False) as pipeline:
                for entry_id in entry_ids:
                    pipeline.xrange(stream, entry_id, entry_id)
                answers = await pipeline.execute()
        return [
            entry_of(stream, found[0][0], found[0][1], 0) if found else None for found in answers
        ]

    async def last_id(self, stream: str) -> str | None:
        """Return the id of the newest entry a stream ever had, None where there is no stream."""
        try:
            with speaking():
                return str((await self.client.xinfo_stream(stream))["last-generated-id"].decode())
        except GroupGoneError:
            return None

    async def append(
        self, stream: str, entries: Sequence[tuple[str, bytes]], *, entries_max: int
    ) -> list[str]:
        """Put envelopes on a stream under rising ids of our own; what is there stays once.

        Returns the ids that are not there with their bytes, because the stream had newer ones
        already: somebody else wrote, or they were put there before and trimmed since. The oldest
        go when there are more than about `entries_max`. After an error any number may have been
        appended: the same call again makes it whole.
        """
        with speaking():
            async with self.client.pipeline(transaction=False) as pipeline:
                for entry_id, jws in entries:
                    pipeline.xadd(
                        stream, {JWS_FIELD: jws}, id=entry_id, maxlen=entries_max, approximate=True
                    )
                answers = await pipeline.execute(raise_on_error=False)
        passed: dict[str, bytes] = {}
        for (entry_id, jws), answer in zip(entries, answers, strict=True):
            if isinstance(answer, ResponseError):
                if "equal or smaller" not in str(answer):
                    kind = str(answer).partition(" ")[0]
                    raise UnavailableError("NB-5002", reason=f"it refuses: {kind}") from answer
                passed[entry_id] = jws
            elif isinstance(answer, Exception):
                raise UnavailableError("NB-5002", reason=type(answer).__name__) from answer
        there = await self.read(stream, list(passed))
        return [
            entry_id
            for (entry_id, jws), entry in zip(passed.items(), there, strict=True)
            if entry is None or entry.jws != jws
        ]
