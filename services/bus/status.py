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
    """One group of one stream. `lag` is None when Redis cannot tell (after trimming)."""

    stream: str
    group: str
    length: int
    lag: int | None
    pending: int
    oldest_pending_id: str | None
    last_delivered_id: str
    consumers: tuple[ConsumerStatus, ...]


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
                    consumers: list[dict[str, Any]] = await client.xinfo_consumers(stream, name)
                    found.append(_status(stream, length, each, pending, consumers))
                return found
        except GroupGoneError:
            return []


def _status(
    stream: str,
    length: int,
    group: dict[str, Any],
    pending: dict[str, Any],
    consumers: list[dict[str, Any]],
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
    )
