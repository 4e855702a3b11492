"""Entries that were handed out and not acknowledged: find them, claim them, acknowledge them.

Claiming in place keeps an entry in its stream and its group. Redis forgets a pending entry that was
trimmed when it is claimed, without a word: what was asked for and not given is looked up here, and
reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from services.bus.connection import speaking
from services.bus.entry import Entry, entry_of


@dataclass(frozen=True, slots=True)
class Pending:
    """One line of XPENDING: who was given an entry, how long ago, and how often."""

    entry_id: str
    consumer: str
    idle_seconds: float
    delivered: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """What claiming brought: entries, and ids whose entries the stream no longer holds."""

    entries: Sequence[Entry]
    trimmed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Group:
    """One consumer group of one stream, and the consumer that we are in it."""

    client: Redis
    stream: str
    name: str
    consumer: str

    async def make(self) -> bool:
        """Make the group, and the stream, where there is none; return whether it was new.

        At 0 and not at `$`: what was published before has to be read.
        """
        with speaking():
            try:
                await self.client.xgroup_create(self.stream, self.name, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
                return False
        return True

    async def pending(
        self, *, after: str | None = None, idle_seconds: float = 0, own: bool = False, limit: int
    ) -> list[Pending]:
        """Return at most `limit` pending entries above id `after`, lowest first."""
        with speaking():
            lines: list[dict[str, Any]] = await self.client.xpending_range(
                self.stream,
                self.name,
                min="-" if after is None else f"({after}",
                max="+",
                count=limit,
                consumername=self.consumer if own else None,
                idle=int(idle_seconds * 1000) or None,
            )
        return [
            Pending(
                entry_id=line["message_id"].decode("ascii"),
                consumer=line["consumer"].decode(),
                idle_seconds=line["time_since_delivered"] / 1000,
                delivered=line["times_delivered"],
            )
            for line in lines
        ]

    async def claim(self, wanted: Sequence[Pending], *, idle_seconds: float = 0) -> Claimed:
        """Take over pending entries that are still idle for so long.

        An entry that another consumer was faster to claim or to acknowledge is in neither list.
        """
        if not wanted:
            return Claimed((), ())
        delivered = {each.entry_id: each.delivered + 1 for each in wanted}
        with speaking():
            answer = await self.client.xclaim(
                self.stream,
                self.name,
                self.consumer,
                min_idle_time=int(idle_seconds * 1000),
                message_ids=list(delivered),
            )
            found = cast(list[tuple[bytes, dict[bytes, bytes] | None]], answer)
            entries = [
                entry_of(self.stream, entry_id, fields, delivered[entry_id.decode("ascii")])
                for entry_id, fields in found
                if fields is not None
            ]
            missing = sorted(delivered.keys() - {entry.entry_id for entry in entries})
            trimmed = await self._gone(missing)
            if trimmed:
                await self.client.xack(self.stream, self.name, *trimmed)
        return Claimed(entries, trimmed)

    async def hand_over(self, to: str, *, limit: int = 500) -> Claimed:
        """Give what is pending for our consumer to consumer `to`, which drains or claims it.

        Nothing counts as handed out by it. Returns no entries, only what the stream lost.
        """
        trimmed: list[str] = []
        while lines := await self.pending(own=True, limit=limit):
            ids: list[Any] = [line.entry_id for line in lines]
            with speaking():
                moved: Any = await self.client.xclaim(
                    self.stream, self.name, to, min_idle_time=0, message_ids=ids, justid=True
                )
            given = {each.decode("ascii") for each in moved}
            gone = [each for each in ids if each not in given]
            if gone:
                await self.acknowledge(gone)
                trimmed += gone
        return Claimed((), trimmed)

    async def leave(self) -> int:
        """Remove our consumer from the group; returns how many pending entries went with it."""
        with speaking():
            return int(await self.client.xgroup_delconsumer(self.stream, self.name, self.consumer))

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Acknowledge entries, all in one command."""
        if entry_ids:
            with speaking():
                await self.client.xack(self.stream, self.name, *entry_ids)

    async def seen_seconds(self) -> float | None:
        """Return how long ago our consumer last asked for entries; None if it never did."""
        with speaking():
            consumers: list[dict[str, Any]] = await self.client.xinfo_consumers(
                self.stream, self.name
            )
        for each in consumers:
            if each["name"].decode() == self.consumer:
                return float(each["idle"]) / 1000
        return None

    async def _gone(self, entry_ids: Sequence[str]) -> list[str]:
        if not entry_ids:
            return []
        async with self.client.pipeline(transaction=False) as pipeline:
            for entry_id in entry_ids:
                pipeline.xrange(self.stream, entry_id, entry_id, count=1)
            found = await pipeline.execute()
        return [entry_id for entry_id, there in zip(entry_ids, found, strict=True) if not there]
