"""Know what did not arrive: sequences are gapless for each stream, so a gap is a fact.

`arrive` is pure arithmetic; asking for what is missing is a resend request in `control`, repeated
with growing pauses until the range has arrived or the sender declared it void.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter

import structlog
from uuid_utils.compat import uuid7

from schemas.catalog import body_of
from schemas.envelope import Kind
from schemas.reply import Resend
from services.exchange import outbox
from services.exchange.agency import Agency
from services.exchange.store import gaps as store
from services.exchange.store import incoming
from services.ledger.records import make_record
from services.ledger.store import Transaction, append

log = structlog.get_logger()

# Reordering inside one read is not a gap yet: wait this long before asking.
_GRACE_SECONDS = 0.5
# Requests made in one go; the rest follows a second later.
_RANGES_MAX = 100


@dataclass(frozen=True, slots=True)
class Arrival:
    """What arriving sequences change: the highest, gaps to close, gaps to open (inclusive)."""

    highest: int
    closed: list[tuple[int, int]]
    opened: list[tuple[int, int]]


def arrive(highest: int, gaps: Sequence[tuple[int, int]], sequences: Iterable[int]) -> Arrival:
    """Return what `sequences` change for a stream that stood at `highest` with `gaps` (ascending).

    A sequence above the highest opens a gap for what it skipped; one inside a gap splits it.
    """
    current = list(gaps)
    for sequence in sorted(set(sequences)):
        if sequence > highest:
            if sequence > highest + 1:
                current.append((highest + 1, sequence - 1))
            highest = sequence
            continue
        at = bisect_left(current, sequence, key=lambda gap: gap[1])
        if at == len(current) or current[at][0] > sequence:
            continue
        first, last = current.pop(at)
        rest = [(first, sequence - 1), (sequence + 1, last)]
        current[at:at] = [gap for gap in rest if gap[0] <= gap[1]]
    before, after = set(gaps), set(current)
    return Arrival(highest, sorted(before - after), sorted(after - before))


def close(highest: int, gaps: Sequence[tuple[int, int]], first: int, last: int) -> Arrival:
    """Return what it changes that `first` to `last` will never arrive, however long a range."""
    beyond = [(highest + 1, last)] if last > highest else []
    current = [
        part
        for start, end in (*gaps, *beyond)
        for part in ((start, min(end, first - 1)), (max(start, last + 1), end))
        if part[0] <= part[1]
    ]
    before, after = set(gaps), set(current)
    return Arrival(max(highest, last), sorted(before - after), sorted(after - before))


def holes(first: int, last: int, there: Iterable[int]) -> list[tuple[int, int]]:
    """Return the ranges within `first` to `last` that hold none of `there`, ascending."""
    found = []
    for sequence in sorted(set(there)):
        if first <= sequence <= last:
            if sequence > first:
                found.append((first, sequence - 1))
            first = sequence + 1
    return [*found, (first, last)] if first <= last else found


def ranges_of(sequences: Iterable[int]) -> list[tuple[int, int]]:
    """Return the ranges that sequences form, ascending."""
    found: list[tuple[int, int]] = []
    for sequence in sorted(set(sequences)):
        if found and sequence == found[-1][1] + 1:
            found[-1] = (found[-1][0], sequence)
        else:
            found.append((sequence, sequence))
    return found


def by_generation(found: Iterable[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    """Return the sequences of each generation, given (generation, sequence) ascending."""
    return [
        (generation, [sequence for _, sequence in group])
        for generation, group in groupby(found, key=itemgetter(0))
    ]


async def note_void(
    tx: Transaction,
    stream: str,
    generation: int,
    highest: int,
    *,
    first: int,
    last: int,
    now: datetime,
) -> int:
    """Wait no longer for a range of sequences; the caller holds the stream's row.

    Returns how many of them had not arrived.
    """
    gaps = await store.of(tx, stream, generation)
    arrival = close(highest, gaps, first, last)
    await _note(tx, stream, generation, highest, arrival, now)
    missing = sum(end - start + 1 for start, end in arrival.closed)
    missing -= sum(end - start + 1 for start, end in arrival.opened)
    return missing + arrival.highest - highest


async def note_written(
    tx: Transaction, stream: str, generation: int, highest: int, now: datetime
) -> int:
    """Wait for what the sender says it wrote, up to `highest`; returns how many that adds.

    After a restore nothing may come any more on that stream that would show the gap.
    """
    stands = await incoming.lock_stream(tx, stream, generation)
    if highest <= stands:
        return 0
    arrival = Arrival(highest, [], [(stands + 1, highest)])
    await _note(tx, stream, generation, stands, arrival, now)
    return highest - stands


async def note_arrivals(
    tx: Transaction,
    stream: str,
    generation: int,
    highest: int,
    sequences: Sequence[int],
    now: datetime,
) -> None:
    """Move a stream's highest sequence and its gaps; the caller holds the stream's row."""
    if sequences and min(sequences) == highest + 1 and max(sequences) == highest + len(sequences):
        await incoming.set_highest(tx, stream, generation, max(sequences))
        return
    gaps = await store.of(tx, stream, generation)
    await _note(tx, stream, generation, highest, arrive(highest, gaps, sequences), now)


async def _note(
    tx: Transaction, stream: str, generation: int, highest: int, arrival: Arrival, now: datetime
) -> None:
    if arrival.highest != highest:
        await incoming.set_highest(tx, stream, generation, arrival.highest)
    if not arrival.closed and not arrival.opened:
        return
    await store.change(
        tx, stream, generation, closed=arrival.closed, opened=arrival.opened, now=now
    )
    found = [gap for gap in arrival.opened if gap[0] > highest]
    await append(
        tx,
        [
            make_record(
                "gap.found",
                time=now,
                stream=stream,
                generation=generation,
                detail={"first": first, "last": last},
            )
            for first, last in found
        ],
    )


async def ask(agency: Agency) -> int:
    """Ask the sender for gaps that are due; returns how many ranges were asked for."""
    now = datetime.now(UTC)
    settings = agency.settings.delivery
    asked_for = 0
    async with agency.store.transaction() as tx:
        due = await store.due(tx, now=now, grace=_GRACE_SECONDS, again=settings.gap_ask_seconds)
        for gap in due:
            for first, last in holes(gap.first, gap.last, gap.here)[: _RANGES_MAX - asked_for]:
                asked_for += 1
                await _ask(tx, gap.stream, gap.generation, first, last, now)
                log.warning(
                    "gap asked for",
                    stream=gap.stream,
                    first=first,
                    last=last,
                    attempt=gap.asked + 1,
                )
            await store.asked(tx, gap, now)
            if asked_for == _RANGES_MAX:
                break
    return asked_for


async def _ask(
    tx: Transaction, stream: str, generation: int, first: int, last: int, now: datetime
) -> None:
    message_id = uuid7()
    await outbox.say(
        tx,
        message_id=message_id,
        kind=Kind.RESEND,
        body=body_of(Resend(stream=stream, generation=generation, first=first, last=last)),
        correlation_id=message_id,
        causation_id=None,
        made_at=now,
    )
