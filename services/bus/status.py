"""How far a consumer group has come on a stream, for `bus status`, health and metrics."""

from dataclasses import dataclass
from typing import Any

from services.bus.connection import GroupGoneError, connected, speaking
from services.settings import BusSettings


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """One process in a group; `idle_seconds` since it last asked for entries."""

    name: str
    pending: int
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One group of one stream. `lag` is None when Redis cannot tell (after trimming).

    The oldest pending entry was last given to a consumer `oldest_idle_seconds` ago, for the
    `oldest_delivered`th time. `oldest_waiting_id` is the first entry that was given to nobody yet.
    """

    stream: str
    group: str
    length: int
    lag: int | None
    pending: int
    oldest_pending_id: str | None
    last_delivered_id: str
    consumers: tuple[ConsumerStatus, ...]
    oldest_idle_seconds: float | None = None
    oldest_delivered: int | None = None
    oldest_waiting_id: str | None = None

    @property
    def oldest_untaken_id(self) -> str | None:
        """The oldest entry that nobody has taken for good: pending, or not given out yet."""
        # What is given out goes in order, so what is pending is older than what waits.
        return self.oldest_pending_id or self.oldest_waiting_id


async def group_status(url: str, stream: str, *, settings: BusSettings) -> list[GroupStatus]:
    """Return the groups of a stream; none if there is no such stream.

    Raises `UnavailableError` (NB-5002).
    """
    async with connected(url, settings) as client:
        try:
            with speaking():
                length = int(await client.xlen(stream))
                groups: list[dict[str, Any]] = await client.xinfo_groups(stream)
                found = []
                for each in groups:
                    name = each["name"].decode()
                    pending: dict[str, Any] = await client.xpending(stream, name)
                    oldest: list[dict[str, Any]] = []
                    if pending["min"]:
                        oldest = await client.xpending_range(stream, name, "-", "+", 1)
                    consumers: list[dict[str, Any]] = await client.xinfo_consumers(stream, name)
                    waiting: Any = []
                    if each.get("lag") != 0:
                        after = f"({each['last-delivered-id'].decode('ascii')}"
                        waiting = await client.xrange(stream, min=after, count=1)
                    found.append(_status(stream, length, each, pending, oldest, consumers, waiting))
                return found
        except GroupGoneError:
            return []


def _status(
    stream: str,
    length: int,
    group: dict[str, Any],
    pending: dict[str, Any],
    oldest: list[dict[str, Any]],
    consumers: list[dict[str, Any]],
    waiting: list[Any],
) -> GroupStatus:
    lowest = pending["min"]
    return GroupStatus(
        stream=stream,
        group=group["name"].decode(),
        length=length,
        lag=group.get("lag"),
        pending=group["pending"],
        oldest_pending_id=lowest.decode("ascii") if lowest else None,
        last_delivered_id=group["last-delivered-id"].decode("ascii"),
        consumers=tuple(
            ConsumerStatus(each["name"].decode(), each["pending"], each["idle"] / 1000)
            for each in consumers
        ),
        oldest_idle_seconds=oldest[0]["time_since_delivered"] / 1000 if oldest else None,
        oldest_delivered=oldest[0]["times_delivered"] if oldest else None,
        oldest_waiting_id=waiting[0][0].decode("ascii") if waiting else None,
    )
