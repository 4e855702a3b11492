"""Bring the gauges up to date: what waits in store and bus, read when `/metrics` is asked.

Nothing is counted twice in memory, so the numbers are right after any restart, whichever process
is asked.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from services.bus.status import group_status
from services.exchange.agency import Agency
from services.exchange.status import standing_of
from services.exchange.store import outgoing
from services.exchange.witnessed import standing_of_peer
from services.telemetry import metrics


@dataclass(frozen=True, slots=True)
class Gauges:
    """One agency's gauges; `incoming` are the streams it reads."""

    agency: Agency
    incoming: tuple[str, ...]

    async def of_store(self) -> None:
        """Read what the store knows. Raises `UnavailableError` when it is away."""
        standing = await standing_of(self.agency.store)
        async with self.agency.store.transaction() as tx:
            seen = await standing_of_peer(tx, self.agency.peer)
        now = datetime.now(UTC)
        oldest = standing.oldest_unanswered
        age = (now - oldest).total_seconds() if oldest else 0.0
        behind = None if seen is None else seen.behind_since
        metrics.OUTBOX_UNSENT.set(standing.unsent)
        metrics.UNANSWERED.set(standing.unanswered)
        metrics.OVERDUE.set(standing.overdue)
        metrics.OLDEST_UNANSWERED_SECONDS.set(age)
        metrics.GAP_SEQUENCES.set(standing.gap_sequences)
        metrics.HELD.set(standing.held)
        metrics.DEAD_LETTERS.set(standing.dead)
        metrics.ALARMS.set(standing.alarms)
        metrics.CONFLICTS.set(standing.conflicts)
        metrics.LEDGER_SIZE.set(standing.ledger_size)
        metrics.LEDGER_UNSEALED.set(standing.unsealed)
        metrics.NOT_COSIGNED_SECONDS.set((now - behind).total_seconds() if behind else 0.0)

    async def of_bus(self) -> None:
        """Read lag and pending of each stream. Raises `UnavailableError` when the bus is away."""
        settings = self.agency.settings
        async with self.agency.store.transaction() as tx:
            sending = [head.stream for head in await outgoing.heads(tx)]
        for stream in (*sending, *self.incoming):
            groups = await group_status(settings.redis_url_required, stream, settings=settings.bus)
            for group in groups:
                # Redis cannot always tell the lag after trimming; no number is better than a wrong
                # one.
                lag = float("nan") if group.lag is None else group.lag
                metrics.STREAM_LAG.labels(stream=stream).set(lag)
                metrics.STREAM_PENDING.labels(stream=stream).set(group.pending)
