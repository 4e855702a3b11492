"""Names in our consumer groups that nobody uses any more: found, emptied, and removed.

Redis keeps a consumer for ever, and removing one loses what it was given and has not acknowledged.
So one is removed only under the lock that a living process holds for its name, and only with
nothing pending: living readers claim that by themselves, and a person may have it handed over.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from services.bus import ConsumerStatus, Group, GroupGoneError, connected, group_status
from services.exchange.agency import Agency
from services.exchange.alone import free, living, slots
from services.exchange.store import dead
from services.ledger.records import make_record
from services.ledger.store import append

log = structlog.get_logger()

# What a removal took along although nothing was pending a moment before.
LOST_PENDING = "NB-5027"
# Looked at this often in the time that a consumer may be idle, at most once a minute.
_LOOKS = 4
_LOOK_SECONDS_MAX = 60.0
_NAME_CHARACTERS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What became of one idle consumer; `kept` says why it stays, None if it is gone."""

    stream: str
    consumer: str
    idle_seconds: float
    handed_over: int
    to: str | None
    kept: str | None


@dataclass(slots=True)
class IdleConsumers:
    """Removes idle consumers from time to time, as part of a running agency."""

    agency: Agency
    _next: float = field(default=0.0, init=False)

    async def step(self, streams: Sequence[str]) -> None:
        """Look, if it is time to; what still holds entries is left to the readers' claims."""
        if time.monotonic() < self._next:
            return
        idle = self.agency.settings.bus.consumer_idle_seconds
        self._next = time.monotonic() + min(_LOOK_SECONDS_MAX, idle / _LOOKS)
        await remove_idle(self.agency, streams, idle_seconds=idle)


async def remove_idle(
    agency: Agency,
    streams: Sequence[str],
    *,
    idle_seconds: float,
    hand_over: bool = False,
    actor: str | None = None,
) -> list[Removal]:
    """Remove our consumers that asked for nothing for `idle_seconds`; returns what became of each.

    With `hand_over` what they hold goes to the first name that a living process holds, else to the
    first slot's, whose next process begins with it. Raises `UnavailableError` when store or bus is
    away.
    """
    settings = agency.settings
    names = slots(agency.name)
    heir = min(await living(agency, names), default=names[0])
    removals: list[Removal] = []
    for stream in streams:
        groups = await group_status(settings.redis_url_required, stream, settings=settings.bus)
        for group in groups:
            if group.group != agency.name:
                continue
            for consumer in group.consumers:
                if consumer.idle_seconds >= idle_seconds:
                    removals.append(
                        await _remove(
                            agency, stream, consumer, heir if hand_over else None, actor=actor
                        )
                    )
    return removals


async def _remove(
    agency: Agency, stream: str, consumer: ConsumerStatus, heir: str | None, *, actor: str | None
) -> Removal:
    """Remove one consumer if its name is free; under its lock nobody can begin to use it."""
    handed_over = 0
    to = kept = None
    url, bus = agency.settings.redis_url_required, agency.settings.bus
    async with free(agency, consumer.name) as ours, connected(url, bus) as client:
        group = Group(client, stream, agency.name, consumer.name)
        try:
            pending = len(await group.pending(own=True, limit=1))
            if not ours:
                kept = "a living process holds its name"
            elif pending and heir is None:
                kept = "it holds entries, which the next reader claims"
            elif pending and heir == consumer.name:
                kept = "it holds entries, and the next process takes them under this name"
            else:
                if pending and heir is not None:
                    handed_over, to = consumer.pending, heir
                    trimmed = (await group.hand_over(heir)).trimmed
                    if trimmed:
                        log.error("entries were removed before they were taken", stream=stream)
                lost = await group.leave()
                await _record(agency, stream, consumer, handed_over, lost, actor)
        except GroupGoneError:
            kept = "its group is gone"
    return Removal(
        stream=stream,
        consumer=consumer.name,
        idle_seconds=consumer.idle_seconds,
        handed_over=handed_over,
        to=to,
        kept=kept,
    )


async def _record(
    agency: Agency,
    stream: str,
    consumer: ConsumerStatus,
    handed_over: int,
    lost: int,
    actor: str | None,
) -> None:
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        await append(
            tx,
            [
                make_record(
                    "consumer.removed",
                    time=now,
                    stream=stream,
                    actor=actor,
                    detail={
                        "consumer": consumer.name[:_NAME_CHARACTERS_MAX],
                        "idle_seconds": int(consumer.idle_seconds),
                        "handed_over": handed_over,
                        "lost": lost,
                    },
                )
            ],
        )
        if lost:
            await dead.raise_alarm(tx, LOST_PENDING, stream, now)
    log.info("idle consumer removed", stream=stream, consumer=consumer.name, lost=lost)
