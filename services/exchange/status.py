"""How the exchange stands: what is owed, late, missing or set aside, on this side."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.bus import Publisher, group_status
from services.exchange.agency import Agency
from services.exchange.store import standing
from services.exchange.store.standing import Standing
from services.exchange.troubles import entered_at
from services.ledger.store import Store
from services.telemetry.health import Probe


@dataclass(frozen=True, slots=True)
class Status:
    """Answers the questions of `/ready`, `bus status` and `doctor`."""

    agency: Agency
    publisher: Publisher

    async def store(self) -> Probe:
        """Say whether the store answers."""
        async with self.agency.store.transaction() as tx:
            await tx.execute("SELECT 1")
        return Probe(ok=True, detail="answers")

    async def bus(self) -> Probe:
        """Say whether the bus answers."""
        await self.publisher.ping()
        return Probe(ok=True, detail="answers")

    async def answers(self) -> Probe:
        """Say whether the oldest unanswered message is younger than its deadline."""
        now = datetime.now(UTC)
        oldest = (await standing_of(self.agency.store)).oldest_unanswered
        age = (now - oldest).total_seconds() if oldest else 0.0
        limit = self.agency.settings.relay.answer_seconds
        return Probe(ok=age <= limit, detail=f"oldest unanswered {age:.0f} s, limit {limit:.0f} s")

    async def groups(self, streams: Sequence[str]) -> Probe:
        """Say whether our group exists on every stream that we read, and keeps up.

        How much waits is no reason to fail: the sender's window bounds it, not ours, and a reader
        that catches up takes what comes. How long the oldest waits is: whoever sent it has no
        answer. An entry is as old as the bus' clock says.
        """
        settings = self.agency.settings
        missing, lag = [], 0
        waiting: list[tuple[datetime, str]] = []
        for stream in streams:
            found = await group_status(settings.redis_url_required, stream, settings=settings.bus)
            ours = [group for group in found if group.group == self.agency.name]
            if not ours:
                missing.append(stream)
            for group in ours:
                lag += (group.lag or 0) + group.pending
                if (entered := entered_at(group.oldest_untaken_id)) is not None:
                    waiting.append((entered, stream))
        if missing:
            return Probe(ok=False, detail=f"no group on {', '.join(missing)}")
        if not waiting:
            return Probe(ok=True, detail=f"{lag} entries to take")
        oldest, stream = min(waiting)
        age = max(0.0, (datetime.now(UTC) - oldest).total_seconds())
        limit = settings.delivery.lag_seconds_max
        detail = f"{lag} entries to take, the oldest for {age:.0f} s, limit {limit:.0f} s"
        return Probe(ok=age <= limit, detail=f"{detail}, on {stream}")


async def standing_of(store: Store) -> Standing:
    """Return the counts of everything that waits, is late, missing or set aside."""
    async with store.transaction() as tx:
        return await standing.read(tx)
