"""Put on the bus again what belongs there and is not there: `bus rebuild`, for who will not wait.

Upkeep does the same by itself within seconds. This looks at the entries themselves, compares them
with the messages in the database by the hash of their bytes, and says what it would do before it
does it. What is missing is asked for in the store, like everything that goes again, so a running
process publishes it; where none runs, this publishes it itself, under the lock that relays hold.
Interrupted, the rest is published by whoever comes next; run twice, the second finds nothing.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from schemas.envelope import Lane, envelope_hash
from schemas.errors import ConflictError, NotFoundError, UnavailableError
from services.bus import Publisher
from services.exchange.agency import Agency
from services.exchange.alone import RELAY, free
from services.exchange.gaps import by_generation, ranges_of
from services.exchange.outbox import OUTBOX_CHANNELS
from services.exchange.relay import Relay
from services.exchange.resending import declare_void
from services.exchange.store import belonging, outgoing, published
from services.exchange.store.belonging import Belonging
from services.exchange.store.outgoing import StreamHead
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify

log = structlog.get_logger()

OnProgress = Callable[[int], None]

_POLL_SECONDS = 0.2
# A running process that publishes nothing for so long will not.
STALLED_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One of our streams: what belongs into it, what it holds, what is missing.

    `other` counts entries that need not be there: answered and not trimmed yet, copies, nobody's.
    `there` has the entry of each message that was found, by generation and sequence.
    """

    head: StreamHead
    exists: bool
    read: bool
    entries: int
    belong: int
    other: int
    unsent: int
    lacking: Sequence[Belonging] = field(repr=False)
    there: Mapping[tuple[int, int], str] = field(repr=False)

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.head.stream

    @property
    def missing(self) -> int:
        """How many messages belong here and are not here."""
        return len(self.lacking)

    @property
    def without_bytes(self) -> int:
        """How many of the missing nobody can send again."""
        return sum(not message.has_bytes for message in self.lacking)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refilled:
    """What was done: messages published, ranges declared void, and by whom it was published."""

    asked: int
    void: int
    by_us: bool
    after: Sequence[Survey]


async def survey(agency: Agency, publisher: Publisher, *, only: Sequence[str] = ()) -> list[Survey]:
    """Compare our streams, or `only` these, with what belongs into them; changes nothing.

    Raises `NotFoundError` NB-5026 for a stream that we do not write.
    """
    async with agency.store.transaction() as tx:
        heads = await outgoing.heads(tx)
    for stream in only:
        if stream not in {head.stream for head in heads}:
            raise NotFoundError("NB-5026", stream=stream)
    return [
        await _survey(agency, publisher, head) for head in heads if not only or head.stream in only
    ]


async def _survey(agency: Agency, publisher: Publisher, head: StreamHead) -> Survey:
    # The store first: what is published meanwhile is then in the stream when we look there.
    async with agency.store.transaction() as tx:
        wanted = {m.envelope_hash: m for m in await belonging.belonging(tx, head.stream)}
        unsent = await outgoing.count_waiting(tx, head.stream)
    holding = await publisher.holding(head.stream)
    found: dict[bytes, str] = {}
    entries = 0
    async for page in publisher.pages(head.stream):
        entries += len(page)
        for entry in page:
            if (key := envelope_hash(entry.jws)) in wanted:
                found.setdefault(key, entry.entry_id)
    return Survey(
        head=head,
        exists=holding is not None,
        read=await publisher.has_group(head.stream, agency.peer),
        entries=entries,
        belong=len(wanted),
        other=entries - len(found),
        unsent=unsent,
        lacking=[message for key, message in wanted.items() if key not in found],
        there={(wanted[key].generation, wanted[key].sequence): at for key, at in found.items()},
    )


async def refill(
    agency: Agency,
    publisher: Publisher,
    *,
    only: Sequence[str] = (),
    confirm: int,
    actor: str,
    reason: str,
    progress: OnProgress = lambda _: None,
) -> Refilled:
    """Put on the bus what is missing there, and return when it is there.

    `progress` is told how many are published. Raises `ConflictError` NB-5024, with nothing done,
    when more is missing than was confirmed; fewer is fine, upkeep may have been quicker. Raises
    `UnavailableError` NB-5025 when the process that publishes makes no progress.
    """
    surveys = await survey(agency, publisher, only=only)
    missing = sum(each.missing for each in surveys)
    if missing > confirm:
        raise ConflictError("NB-5024", confirm=confirm, missing=missing)
    streams = [each.head for each in surveys]
    asked = void = 0
    for each in surveys:
        if each.missing:
            async with agency.store.transaction() as tx:
                void += each.without_bytes
                asked += each.missing - each.without_bytes
                await _ask(tx, each, actor=actor, reason=reason)
    async with free(agency, RELAY) as ours:
        if ours:
            await _publish(agency, publisher, streams, asked, progress)
        else:
            await _wait(agency, streams, asked, progress)
    after = await survey(agency, publisher, only=only)
    return Refilled(asked=asked, void=void, by_us=ours, after=after)


async def _ask(tx: Transaction, found: Survey, *, actor: str, reason: str) -> None:
    """Note that a person asked and what is really there, and ask for what lacks."""
    now = datetime.now(UTC)
    head = found.head
    again = [(m.generation, m.sequence) for m in found.lacking if m.published and m.has_bytes]
    lost = [(m.generation, m.sequence) for m in found.lacking if not m.has_bytes]
    await _note_what_is_there(tx, found, now)
    for generation, sequences in by_generation(again):
        await published.republish(
            tx,
            stream=head.stream,
            generation=generation,
            sequences=sequences,
            cause="rebuild",
            now=now,
        )
    for generation, sequences in by_generation(lost):
        await declare_void(tx, head.stream, generation, ranges_of(sequences), now=now)
    await append(
        tx,
        [
            make_record(
                "bus.rebuilt",
                time=now,
                stream=head.stream,
                generation=head.generation,
                actor=actor,
                text=reason,
                detail={
                    "entries": found.entries,
                    "belong": found.belong,
                    "missing": found.missing,
                    "void": found.without_bytes,
                },
            )
        ],
    )
    await notify(tx, OUTBOX_CHANNELS[Lane(head.lane)])
    log.warning("messages go again", stream=head.stream, count=found.missing, cause="rebuild")


async def _note_what_is_there(tx: Transaction, found: Survey, now: datetime) -> None:
    """Put what is there in the place of each run of which something is missing."""
    there = sorted(found.there)
    lacking = sorted((m.generation, m.sequence) for m in found.lacking)
    broken = [
        (run, bisect_left(there, start), bisect_right(there, end))
        for run in await published.open_publications(tx, found.stream)
        for start in [(run.generation, run.first_sequence)]
        for end in [(run.generation, run.last_sequence)]
        if bisect_left(lacking, start) < bisect_right(lacking, end)
    ]
    await belonging.forget_runs(tx, [run.publication_id for run, _, _ in broken])
    for run, first, last in broken:
        runs = [
            (start, end, found.there[run.generation, start], found.there[run.generation, end])
            for start, end in ranges_of(sequence for _, sequence in there[first:last])
        ]
        if runs:
            await published.note_runs(tx, found.stream, run.generation, runs, now)


async def _publish(
    agency: Agency,
    publisher: Publisher,
    heads: Sequence[StreamHead],
    asked: int,
    progress: OnProgress,
) -> None:
    """Do what relays would: hand to the bus what is asked for or numbered, and number nothing."""
    streams = [head.stream for head in heads]
    for head in heads:
        relay = Relay(agency, head.stream, Lane(head.lane), publisher)
        while True:
            async with agency.store.transaction() as tx:
                work = await outgoing.work(tx, head.stream)
                progress(max(0, asked - await belonging.left(tx, streams)))
            if not (work.again or work.left) or not await relay.step():
                break
        await relay.settle()


async def _wait(
    agency: Agency, heads: Sequence[StreamHead], asked: int, progress: OnProgress
) -> None:
    """Wait until the process that holds the relays' lock has published what was asked for."""
    streams = [head.stream for head in heads]
    loop = asyncio.get_running_loop()
    least, moved_at = asked + 1, loop.time()
    while True:
        async with agency.store.transaction() as tx:
            left = await belonging.left(tx, streams)
        progress(max(0, asked - left))
        if not left:
            return
        if left < least:
            least, moved_at = left, loop.time()
        elif loop.time() - moved_at > STALLED_SECONDS:
            raise UnavailableError("NB-5025", seconds=STALLED_SECONDS, left=left)
        await asyncio.sleep(_POLL_SECONDS)
