"""Keep the sender's side honest: what is overdue, what the bus lost, what can be trimmed.

The database is the truth and the bus a transport: entries that the bus no longer holds are sent
again from stored bytes at once, in order. An answer that is overdue is an event on record; its
message goes again only if the entry is gone, or was acknowledged a while ago without an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from schemas.envelope import Lane
from services.bus import Publisher
from services.exchange.agency import Agency
from services.exchange.outbox import OUTBOX_CHANNELS
from services.exchange.store import dead, outgoing, published
from services.exchange.store.outgoing import StreamHead
from services.exchange.store.published import Publication
from services.ledger.records import make_record
from services.ledger.store import append, notify

log = structlog.get_logger()

# Control owes no answers, so age decides: what is older than this many entries has long been read,
# and what was lost is found by its gap and sent again from the database.
_CONTROL_ENTRIES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Looks after the streams that this agency writes."""

    agency: Agency
    publisher: Publisher

    async def step(self) -> None:
        """Go once over every outgoing stream."""
        async with self.agency.store.transaction() as tx:
            heads = await outgoing.heads(tx)
        for head in heads:
            if head.lane == Lane.CONTROL:
                await self.publisher.trim_length(head.stream, _CONTROL_ENTRIES_MAX)
            else:
                await self._look_after(head)

    async def _look_after(self, head: StreamHead) -> None:
        now = datetime.now(UTC)
        settings = self.agency.settings.relay
        async with self.agency.store.transaction() as tx:
            late = await published.mark_overdue(
                tx, head, before=now - timedelta(seconds=settings.answer_seconds), now=now
            )
            if late:
                await append(
                    tx,
                    [
                        make_record(
                            "answer.overdue",
                            time=now,
                            stream=head.stream,
                            generation=head.generation,
                            detail={"first": late[0], "last": late[-1], "count": len(late)},
                        )
                    ],
                )
                await dead.raise_alarm(tx, "NB-2120", head.stream, now)
            elif not await published.any_overdue(tx, head):
                await dead.clear_alarm(tx, "NB-2120", head.stream, now)
            waiting = await published.open_publications(tx, head)
        if late:
            log.error("answers overdue", stream=head.stream, count=len(late), first=late[0])
        if not waiting:
            await self._trim_answered(head)
            return
        held = await self.publisher.held(head.stream, [p.last_entry for p in waiting])
        gone = [p for p, there in zip(waiting, held, strict=True) if not there]
        if gone:
            await self._send_again(head, gone, cause="lost", now=now)
            return
        await self.publisher.trim(head.stream, min((p.first_entry for p in waiting), key=_order))
        overdue = [p for p in waiting if p.overdue]
        if overdue:
            await self._acknowledged_without_answer(head, overdue, now)

    async def _trim_answered(self, head: StreamHead) -> None:
        """Remove what the peer acknowledged from a stream where nothing waits for an answer.

        Entries that the bus was given a moment ago and that are not noted here yet either stay, or
        are durable at the peer; were they trimmed all the same, they would go again as lost.
        """
        reached = await self.publisher.acknowledged_up_to(head.stream, group=self.agency.peer)
        if reached is not None:
            await self.publisher.trim(head.stream, reached)

    async def _acknowledged_without_answer(
        self, head: StreamHead, overdue: Sequence[Publication], now: datetime
    ) -> None:
        """Send again what the peer acknowledged on the bus a while ago and never answered."""
        reached = await self.publisher.acknowledged_up_to(head.stream, group=self.agency.peer)
        if reached is None:
            return
        taken = [p for p in overdue if _order(p.last_entry) <= _order(reached)]
        patience = timedelta(seconds=self.agency.settings.relay.republish_after_seconds)
        due = [
            p
            for p in taken
            if p.acknowledged_seen_at is not None and now - p.acknowledged_seen_at >= patience
        ]
        fresh = [p.publication_id for p in taken if p.acknowledged_seen_at is None]
        if fresh:
            async with self.agency.store.transaction() as tx:
                await published.seen_acknowledged(tx, fresh, now)
        if due:
            await self._send_again(head, due, cause="overdue", now=now)

    async def _send_again(
        self, head: StreamHead, runs: Sequence[Publication], *, cause: str, now: datetime
    ) -> None:
        asked = 0
        async with self.agency.store.transaction() as tx:
            for run in runs:
                asked += await published.republish(
                    tx,
                    stream=head.stream,
                    generation=head.generation,
                    first=run.first_sequence,
                    last=run.last_sequence,
                    cause=cause,
                    now=now,
                    unanswered_only=True,
                )
            await published.forget_publications(tx, [p.publication_id for p in runs])
            if asked:
                await append(
                    tx,
                    [
                        make_record(
                            "message.republished",
                            time=now,
                            stream=head.stream,
                            generation=head.generation,
                            reason=cause.upper(),
                            detail={
                                "first": min(p.first_sequence for p in runs),
                                "last": max(p.last_sequence for p in runs),
                                "count": asked,
                            },
                        )
                    ],
                )
                await notify(tx, OUTBOX_CHANNELS[Lane(head.lane)])
        log.warning("messages go again", stream=head.stream, count=asked, cause=cause)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, counter = entry_id.partition("-")
    return int(milliseconds), int(counter or 0)
