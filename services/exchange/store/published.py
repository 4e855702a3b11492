"""Statements about what the bus holds: publications, requests to send again, what is overdue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schemas.envelope import Lane
from services.exchange.store.outgoing import StreamHead
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A run of entries handed to the bus in one go that holds unanswered messages."""

    publication_id: int
    first_sequence: int
    last_sequence: int
    first_entry: str
    last_entry: str
    acknowledged_seen_at: datetime | None
    overdue: bool


_PUBLISHED = """
INSERT INTO publication (stream, generation, first_sequence, last_sequence, first_entry,
                         last_entry, published_at)
SELECT %s, %s, t.first_sequence, t.last_sequence, t.first_entry, t.last_entry, %s
FROM unnest(%b::bigint[], %b::bigint[], %b::text[], %b::text[])
    AS t (first_sequence, last_sequence, first_entry, last_entry)
"""


async def published(
    tx: Transaction,
    head: StreamHead,
    runs: Sequence[tuple[int, int, str, str]],
    now: datetime,
    *,
    again: Sequence[int] = (),
) -> None:
    """Note runs (first and last sequence, first and last entry id) that the bus now holds.

    `again` names sequences that were asked for once more: their requests end here. Control owes no
    answers, so nobody would ask for its runs, and they are not kept.
    """
    if head.lane != Lane.CONTROL:
        await tx.execute(
            _PUBLISHED,
            [
                head.stream,
                head.generation,
                now,
                [r[0] for r in runs],
                [r[1] for r in runs],
                [r[2] for r in runs],
                [r[3] for r in runs],
            ],
        )
    if again:
        await tx.execute(
            "DELETE FROM republish"
            " WHERE stream = %s AND generation = %s AND sequence = ANY(%b::bigint[])",
            [head.stream, head.generation, list(again)],
        )
    else:
        await tx.execute(
            "UPDATE stream_out SET published = greatest(published, %s) WHERE stream = %s",
            [runs[-1][1], head.stream],
        )


# Sequences of a range that were numbered; asking twice is asking once.
_REPUBLISH = """
INSERT INTO republish (stream, generation, sequence, cause, requested_at)
SELECT stream, generation, sequence, %(cause)s, %(now)s FROM sent
WHERE stream = %(stream)s AND generation = %(generation)s
  AND sequence BETWEEN %(first)s AND %(last)s
  AND (answer IS NULL OR NOT %(unanswered_only)s)
ORDER BY sequence LIMIT %(limit)s
ON CONFLICT DO NOTHING
RETURNING sequence
"""


async def republish(
    tx: Transaction,
    *,
    stream: str,
    generation: int,
    first: int,
    last: int,
    cause: str,
    now: datetime,
    unanswered_only: bool,
    limit: int = 10_000,
) -> int:
    """Ask the relay to send stored bytes again; returns how many were newly asked for."""
    cursor = await tx.execute(
        _REPUBLISH,
        {
            "stream": stream,
            "generation": generation,
            "first": first,
            "last": last,
            "cause": cause,
            "now": now,
            "unanswered_only": unanswered_only,
            "limit": limit,
        },
    )
    return len(await cursor.fetchall())


_REPUBLISH_ANSWERS = """
INSERT INTO republish (stream, generation, sequence, cause, requested_at)
SELECT stream, generation, sequence, 'duplicate', %(now)s FROM sent
WHERE message_id = ANY(%(messages)b)
ON CONFLICT DO NOTHING
RETURNING sequence
"""


async def republish_messages(tx: Transaction, messages: Sequence[UUID], now: datetime) -> int:
    """Ask for the stored bytes of these messages of ours again: answers to duplicates."""
    cursor = await tx.execute(_REPUBLISH_ANSWERS, {"messages": list(messages), "now": now})
    return len(await cursor.fetchall())


# Runs whose messages are all answered are of no more use.
_FORGET = """
DELETE FROM publication AS p
WHERE p.stream = %(stream)s AND p.generation = %(generation)s
  AND NOT EXISTS (
      SELECT FROM sent AS s
      WHERE s.stream = p.stream AND s.generation = p.generation AND s.answer IS NULL
        AND s.sequence BETWEEN p.first_sequence AND p.last_sequence)
"""

_OPEN = """
SELECT p.publication_id, p.first_sequence, p.last_sequence, p.first_entry, p.last_entry,
       p.acknowledged_seen_at,
       EXISTS (SELECT FROM sent AS s
               WHERE s.stream = p.stream AND s.generation = p.generation AND s.answer IS NULL
                 AND s.sequence BETWEEN p.first_sequence AND p.last_sequence
                 AND s.overdue_at IS NOT NULL)
FROM publication AS p
WHERE p.stream = %(stream)s AND p.generation = %(generation)s
ORDER BY p.publication_id
"""


async def open_publications(tx: Transaction, head: StreamHead) -> list[Publication]:
    """Forget what is fully answered; return the runs that still hold unanswered messages."""
    place = {"stream": head.stream, "generation": head.generation}
    await tx.execute(_FORGET, place)
    cursor = await tx.execute(_OPEN, place)
    return [
        Publication(
            publication_id=row[0],
            first_sequence=row[1],
            last_sequence=row[2],
            first_entry=row[3],
            last_entry=row[4],
            acknowledged_seen_at=row[5],
            overdue=row[6],
        )
        for row in await cursor.fetchall()
    ]


async def forget_publications(tx: Transaction, publications: Sequence[int]) -> None:
    """Drop runs whose entries the bus no longer holds."""
    await tx.execute(
        "DELETE FROM publication WHERE publication_id = ANY(%b::bigint[])", [list(publications)]
    )


async def seen_acknowledged(tx: Transaction, publications: Sequence[int], now: datetime) -> None:
    """Note when runs were first seen acknowledged though their answers are missing."""
    await tx.execute(
        "UPDATE publication SET acknowledged_seen_at = %s"
        " WHERE publication_id = ANY(%b::bigint[]) AND acknowledged_seen_at IS NULL",
        [now, list(publications)],
    )


# Messages whose answer is late, each told once.
_OVERDUE = """
UPDATE sent SET overdue_at = %(now)s
WHERE stream = %(stream)s AND generation = %(generation)s AND answer IS NULL
  AND overdue_at IS NULL AND sequenced_at < %(before)s
RETURNING sequence
"""


async def any_overdue(tx: Transaction, head: StreamHead) -> bool:
    """Return whether an answer of a stream is overdue, on the bus or not."""
    cursor = await tx.execute(
        "SELECT EXISTS (SELECT FROM sent WHERE stream = %s AND generation = %s"
        " AND answer IS NULL AND overdue_at IS NOT NULL)",
        [head.stream, head.generation],
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def mark_overdue(
    tx: Transaction, head: StreamHead, *, before: datetime, now: datetime
) -> list[int]:
    """Mark unanswered messages numbered before `before`; returns the newly overdue sequences."""
    cursor = await tx.execute(
        _OVERDUE,
        {
            "stream": head.stream,
            "generation": head.generation,
            "before": before,
            "now": now,
        },
    )
    return sorted(row[0] for row in await cursor.fetchall())
