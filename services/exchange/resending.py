"""Give the peer again what it misses: stored bytes as they were, and a void for what has none.

A sequence that was numbered is owed. When its bytes are gone (an older backup was restored, they
were erased), nothing will ever fill the gap, and saying nothing would keep the peer asking for
ever. So the sender says it, signed: both sides have it on record, and a person learns of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from uuid_utils.compat import uuid7

from schemas.catalog import body_of
from schemas.envelope import Kind, Lane
from schemas.reply import Resend, Void
from services.exchange import outbox
from services.exchange.gaps import holes
from services.exchange.outbox import OUTBOX_CHANNELS, WINDOW_CHANNEL
from services.exchange.store import dead, outgoing, published, voided
from services.exchange.store.renewals import SIGNED_BY_REVOKED
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify

log = structlog.get_logger()

BYTES_GONE = "NB-5020"
NEVER_NUMBERED = "NB-5022"
ARCHIVED = "NB-5054"
# Messages that one request brings back; the peer asks again for what lies beyond.
_MESSAGES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Provided:
    """What came of a request: messages that go again, and sequences that are void."""

    asked: int
    void: int


async def provide(tx: Transaction, resend: Resend, *, now: datetime) -> Provided:
    """Ask the relay for a range's stored bytes, and declare void what has none.

    What was moved to an archive is not void either: a person can bring it back, and is told.
    What was never numbered may be tomorrow, so it is not void; that the peer asks for it is an
    alarm, because it must have seen it.
    """
    head = next((h for h in await outgoing.heads(tx) if h.stream == resend.stream), None)
    if head is None:
        return Provided(0, 0)
    last = resend.last
    if resend.generation == head.generation:
        last = min(last, head.next_sequence - 1)
    if resend.generation > head.generation or last < resend.last:
        await dead.raise_alarm(tx, NEVER_NUMBERED, resend.stream, now)
        log.error("asked for what was never numbered", stream=resend.stream, last=resend.last)
    if resend.generation > head.generation or last < resend.first:
        return Provided(0, 0)
    sequences = await published.providable(
        tx,
        stream=resend.stream,
        generation=resend.generation,
        first=resend.first,
        last=last,
        limit=_MESSAGES_MAX,
    )
    if len(sequences) == _MESSAGES_MAX:
        last = sequences[-1]
    asked = await published.republish(
        tx,
        stream=resend.stream,
        generation=resend.generation,
        sequences=sequences,
        cause="resend",
        now=now,
    )
    for channel in OUTBOX_CHANNELS.values():
        await notify(tx, channel)
    away = await published.archived(
        tx, stream=resend.stream, generation=resend.generation, first=resend.first, last=last
    )
    if away:
        await dead.raise_alarm(tx, ARCHIVED, resend.stream, now)
        log.error("asked for what is archived", stream=resend.stream, count=len(away))
    lacking = holes(resend.first, last, sorted({*sequences, *away}))
    return Provided(
        asked, await declare_void(tx, resend.stream, resend.generation, lacking, now=now)
    )


async def declare_void(
    tx: Transaction,
    stream: str,
    generation: int,
    ranges: Sequence[tuple[int, int]],
    *,
    now: datetime,
    code: str = BYTES_GONE,
) -> int:
    """Tell the peer that these ranges (ascending) will never come; returns how many sequences.

    A range that was declared before is told again in the same bytes. `code` says why; unless it is
    that they come again under new ids, a person is told too.
    """
    if not ranges:
        return 0
    told = await voided.within(tx, stream, generation, ranges[0][0], ranges[-1][1])
    relevant = [
        void
        for void in told
        if any(first <= void.last and void.first <= last for first, last in ranges)
    ]
    if await published.republish_messages(tx, [void.message_id for void in relevant], now):
        await notify(tx, OUTBOX_CHANNELS[Lane.CONTROL])
    for first, last in ranges:
        for start, end in _left(first, last, [(void.first, void.last) for void in relevant]):
            await _declare(tx, stream, generation, start, end, now, code)
    return sum(last - first + 1 for first, last in ranges)


def _left(first: int, last: int, taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of a range that none of `taken` (ascending) covers."""
    parts = []
    for start, end in taken:
        if start > last:
            break
        if start > first:
            parts.append((first, start - 1))
        first = max(first, end + 1)
    return [*parts, (first, last)] if first <= last else parts


async def _declare(
    tx: Transaction, stream: str, generation: int, first: int, last: int, now: datetime, code: str
) -> None:
    message_id = uuid7()
    void = Void(stream=stream, generation=generation, first=first, last=last, code=code, at=now)
    await outbox.say(
        tx,
        message_id=message_id,
        kind=Kind.VOID,
        body=body_of(void),
        correlation_id=message_id,
        causation_id=None,
        made_at=now,
    )
    await voided.keep(tx, void, message_id, now)
    unanswered = await voided.answer(tx, void, message_id, now)
    await append(
        tx,
        [
            make_record(
                "void.declared",
                time=now,
                message_id=message_id,
                stream=stream,
                generation=generation,
                reason=code,
                detail={"first": first, "last": last, "unanswered": unanswered},
            )
        ],
    )
    if code != SIGNED_BY_REVOKED:
        await dead.raise_alarm(tx, code, stream, now)
    # What is void leaves the window.
    await notify(tx, WINDOW_CHANNEL)
    tell = log.warning if code == SIGNED_BY_REVOKED else log.error
    tell("messages declared void", stream=stream, first=first, last=last, code=code)
