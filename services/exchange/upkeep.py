"""Keep the sender's side honest: what is overdue, what the bus lost, what can be trimmed.

The database is the truth and the bus a transport: entries that the bus no longer holds are sent
again from stored bytes at once, in order. An answer that is overdue is an event on record; its
message goes again only if the entry is gone, or was acknowledged a while ago without an answer.

A look a second costs a few commands, however much is out: a stream that is longer than what has to
be in it, begins below and ends above that, and never counted fewer entries than before, is whole.
Whether each entry is there is asked when one of these does not hold, and every half minute.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from schemas.envelope import Lane
from services.bus import Publisher
from services.bus.entry import order
from services.exchange.agency import Agency
from services.exchange.gaps import by_generation, ranges_of
from services.exchange.outbox import OUTBOX_CHANNELS
from services.exchange.resending import declare_void
from services.exchange.store import dead, outgoing, published
from services.exchange.store.outgoing import StreamHead
from services.exchange.store.published import Out, Publication
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify

log = structlog.get_logger()

# Control owes no answers, so age decides: what is older than this many entries has long been read,
# and what was lost is found by its gap and sent again from the database.
_CONTROL_ENTRIES_MAX = 10_000
# Ranges of sequences that one record names; a record has 8 KiB.
_RANGES_MAX = 150
_WHOLE_LOOK_SECONDS = 30.0
# A look at every entry may take a twentieth of the time at most.
_WHOLE_LOOK_SHARE = 20


@dataclass(slots=True)
class _Watch:
    """What the last look at a stream found; `whole_at` is when every entry is looked at again."""

    added: int | None = None
    whole_at: float = 0.0
    trimmed: str | None = None


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Looks after the streams that this agency writes."""

    agency: Agency
    publisher: Publisher
    _watched: dict[str, _Watch] = field(default_factory=dict)

    async def step(self) -> None:
        """Go once over every outgoing stream."""
        async with self.agency.store.transaction() as tx:
            heads = await outgoing.heads(tx)
        for head in heads:
            if head.lane == Lane.CONTROL:
                await self._look_after_control(head)
            else:
                await self._look_after(head)

    async def _look_after(self, head: StreamHead) -> None:
        now = datetime.now(UTC)
        async with self.agency.store.transaction() as tx:
            overdue = await self._note_overdue(tx, head.stream, now)
            await published.forget_answered(tx, head.stream)
            out = await published.out(tx, head.stream)
        if out is None:
            await self._trim(head.stream, None)
            return
        if await self._mended(head, out, now):
            return
        await self._trim(head.stream, out)
        if overdue:
            await self._acknowledged_without_answer(head, out, now)

    async def _look_after_control(self, head: StreamHead) -> None:
        """Keep in the stream what the peer has not acknowledged; nothing here is answered."""
        async with self.agency.store.transaction() as tx:
            await published.forget_old(tx, head.stream, _CONTROL_ENTRIES_MAX)
            out = await published.out(tx, head.stream)
        if out is None:
            return
        if await self._mended(head, out, datetime.now(UTC)):
            return
        reached = await self.publisher.acknowledged_up_to(head.stream, group=self.agency.peer)
        if reached is not None and order(reached) >= order(out.oldest):
            async with self.agency.store.transaction() as tx:
                await published.forget_acknowledged(tx, head.stream, order(reached))
        await self.publisher.trim_length(head.stream, _CONTROL_ENTRIES_MAX)

    async def _note_overdue(self, tx: Transaction, stream: str, now: datetime) -> bool:
        """Put on record what is newly overdue; returns whether anything is."""
        patience = timedelta(seconds=self.agency.settings.relay.answer_seconds)
        late = await published.mark_overdue(tx, stream, before=now - patience, now=now)
        for generation, sequences in by_generation(late):
            ranges = ranges_of(sequences)
            await append(
                tx,
                [
                    make_record(
                        "answer.overdue",
                        time=now,
                        stream=stream,
                        generation=generation,
                        detail={
                            "first": some[0][0],
                            "last": some[-1][1],
                            "count": sum(last - first + 1 for first, last in some),
                            "ranges": " ".join(f"{first}-{last}" for first, last in some),
                        },
                    )
                    for at in range(0, len(ranges), _RANGES_MAX)
                    for some in [ranges[at : at + _RANGES_MAX]]
                ],
            )
            log.error("answers overdue", stream=stream, count=len(sequences), first=sequences[0])
        if late:
            await dead.raise_alarm(tx, "NB-2120", stream, now)
            return True
        overdue = await published.any_overdue(tx, stream)
        if not overdue:
            await dead.clear_alarm(tx, "NB-2120", stream, now)
        return overdue

    async def _mended(self, head: StreamHead, out: Out, now: datetime) -> bool:
        """Send again what the bus lost; returns whether there was any."""
        watch = self._watched.setdefault(head.stream, _Watch())
        if await self._seems_whole(head.stream, out, watch):
            return False
        began = time.monotonic()
        async with self.agency.store.transaction() as tx:
            runs = await published.open_publications(tx, head.stream)
        gone = await self._gone(head.stream, runs)
        if gone:
            watch.whole_at = 0.0
            await self.send_again(head, gone, cause="lost", now=now)
            return True
        ended = time.monotonic()
        pause = max(_WHOLE_LOOK_SECONDS, _WHOLE_LOOK_SHARE * (ended - began))
        watch.whole_at = ended + pause
        return False

    async def _seems_whole(self, stream: str, out: Out, watch: _Watch) -> bool:
        """Say whether a stream may go without a look at each of its entries."""
        holding = await self.publisher.holding(stream)
        added, watch.added = watch.added, None if holding is None else holding.added
        if holding is None or holding.first is None:
            return False
        return (
            added is not None
            and holding.added >= added
            and holding.length >= out.messages
            and order(holding.first) <= order(out.oldest)
            and order(holding.last) >= order(out.newest)
            and time.monotonic() < watch.whole_at
            and all(await self.publisher.held(stream, [out.newest, out.oldest]))
        )

    async def _gone(self, stream: str, runs: Sequence[Publication]) -> list[Publication]:
        """Return the runs of which the stream no longer holds every entry."""
        holding = await self.publisher.holding(stream)
        if holding is None or holding.first is None:
            return list(runs)
        first, last = order(holding.first), order(holding.last)
        # What lies outside cannot be there, and need not be asked for.
        within = [run for run in runs if first <= order(run.last_entry) <= last]
        held = await self.publisher.held(stream, [run.last_entry for run in within])
        there = [run for run, held_ in zip(within, held, strict=True) if held_]
        if holding.length < sum(run.messages for run in runs):
            # Fewer than there have to be: some may be missing inside of a run.
            there = await self._complete(stream, there)
        whole = {run.publication_id for run in there}
        return [run for run in runs if run.publication_id not in whole]

    async def _complete(self, stream: str, runs: Sequence[Publication]) -> list[Publication]:
        """Return the runs between whose ends the stream holds as many entries as they have."""
        ids: list[tuple[int, int]] = []
        async for page in self.publisher.pages(stream):
            ids += [order(entry.entry_id) for entry in page]
        return [
            run
            for run in runs
            if bisect_right(ids, order(run.last_entry)) - bisect_left(ids, order(run.first_entry))
            >= run.messages
        ]

    async def _trim(self, stream: str, out: Out | None) -> None:
        """Remove what the peer acknowledged, below what waits for an answer.

        Between answered entries there may be others that it has not taken yet, whoever wrote them.
        Entries that the bus was given a moment ago and that are not noted here yet either stay, or
        are durable at the peer; were they trimmed all the same, they would go again as lost.
        """
        reached = await self.publisher.acknowledged_up_to(stream, group=self.agency.peer)
        if reached is None:
            return
        lowest = reached if out is None else min(reached, f"{out.lowest_millisecond}-0", key=order)
        watch = self._watched.setdefault(stream, _Watch())
        if watch.trimmed != lowest:
            await self.publisher.trim(stream, lowest)
            watch.trimmed = lowest

    async def _acknowledged_without_answer(self, head: StreamHead, out: Out, now: datetime) -> None:
        """Send again what the peer acknowledged on the bus a while ago and never answered."""
        reached = await self.publisher.acknowledged_up_to(head.stream, group=self.agency.peer)
        if reached is None or order(reached) < order(out.oldest):
            return
        async with self.agency.store.transaction() as tx:
            runs = await published.open_publications(tx, head.stream)
        taken = [r for r in runs if r.overdue and order(r.last_entry) <= order(reached)]
        patience = timedelta(seconds=self.agency.settings.relay.republish_after_seconds)
        due = [
            run
            for run in taken
            if run.acknowledged_seen_at is not None and now - run.acknowledged_seen_at >= patience
        ]
        fresh = [run.publication_id for run in taken if run.acknowledged_seen_at is None]
        if fresh:
            async with self.agency.store.transaction() as tx:
                await published.seen_acknowledged(tx, fresh, now)
        if due:
            await self.send_again(head, due, cause="overdue", now=now)

    async def send_again(
        self, head: StreamHead, runs: Sequence[Publication], *, cause: str, now: datetime
    ) -> int:
        """Ask the relay for what of `runs` waits for an answer; returns how many messages.

        What has no bytes here any more is declared void: no gap would ever show it to the peer.
        """
        ids = [run.publication_id for run in runs]
        async with self.agency.store.transaction() as tx:
            lacking = await published.without_bytes(tx, ids)
            asked = await published.again(tx, ids, cause=cause, now=now)
            for generation, sequences in by_generation(lacking):
                await declare_void(tx, head.stream, generation, ranges_of(sequences), now=now)
            await append(
                tx,
                [
                    make_record(
                        "message.republished",
                        time=now,
                        stream=head.stream,
                        generation=span.generation,
                        reason=cause.upper(),
                        detail={"first": span.first, "last": span.last, "count": span.count},
                    )
                    for span in asked
                ],
            )
            await notify(tx, OUTBOX_CHANNELS[Lane(head.lane)])
        count = sum(span.count for span in asked)
        log.warning("messages go again", stream=head.stream, count=count, cause=cause)
        return count
