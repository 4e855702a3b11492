"""Statements about what the bus holds: publications, requests to send again, what is overdue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.exchange.store.outgoing import StreamHead
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A run of entries handed to the bus in one go that holds unanswered messages."""

    publication_id: int
    generation: int
    first_sequence: int
    last_sequence: int
    first_entry: str
    last_entry: str
    acknowledged_seen_at: datetime | None
    overdue: bool

    @property
    def messages(self) -> int:
        """How many messages, and entries, the run has."""
        return self.last_sequence - self.first_sequence + 1


_RUNS = """
INSERT INTO publication (stream, generation, first_sequence, last_sequence, first_entry,
                         last_entry, published_at)
SELECT %(stream)s, %(generation)s, t.first_sequence, t.last_sequence, t.first_entry, t.last_entry,
       %(now)s
FROM unnest(%(firsts)b::bigint[], %(lasts)b::bigint[], %(first_entries)b::text[],
            %(last_entries)b::text[])
    AS t (first_sequence, last_sequence, first_entry, last_entry)
"""
# One statement, so one transaction, in place of four round trips: each batch waits for it.
_NEWLY_PUBLISHED = f"""
WITH noted AS ({_RUNS})
UPDATE stream_out SET published = greatest(published, %(reached)s) WHERE stream = %(stream)s
"""  # noqa: S608 - a constant
_AGAIN_PUBLISHED = f"""
WITH noted AS ({_RUNS})
DELETE FROM republish
WHERE stream = %(stream)s AND generation = %(generation)s
  AND sequence = ANY(%(again)b::bigint[])
"""  # noqa: S608 - a constant


def _columns(runs: Sequence[tuple[int, int, str, str]]) -> dict[str, list[int] | list[str]]:
    return {
        "firsts": [run[0] for run in runs],
        "lasts": [run[1] for run in runs],
        "first_entries": [run[2] for run in runs],
        "last_entries": [run[3] for run in runs],
    }


async def note_runs(
    tx: Transaction,
    stream: str,
    generation: int,
    runs: Sequence[tuple[int, int, str, str]],
    now: datetime,
) -> None:
    """Note that the bus holds runs (first and last sequence, first and last entry id)."""
    await tx.execute(
        _RUNS, {"stream": stream, "generation": generation, "now": now, **_columns(runs)}
    )


async def published(
    tx: Transaction,
    head: StreamHead,
    runs: Sequence[tuple[int, int, str, str]],
    now: datetime,
    *,
    again: Sequence[int] = (),
) -> None:
    """Note runs (first and last sequence, first and last entry id) that the bus now holds.

    `again` names sequences that were asked for once more: their requests end here.
    """
    await tx.execute(
        _AGAIN_PUBLISHED if again else _NEWLY_PUBLISHED,
        {
            "stream": head.stream,
            "generation": head.generation,
            "now": now,
            "reached": runs[-1][1],
            "again": list(again),
            **_columns(runs),
        },
    )


# What of a range the store can still send: numbered, its exact bytes are here, and they are signed
# by a key that was not revoked since.
_PROVIDABLE = """
SELECT s.sequence FROM sent AS s JOIN envelope AS e USING (message_id)
WHERE s.stream = %(stream)s AND s.generation = %(generation)s
  AND s.sequence BETWEEN %(first)s AND %(last)s
  AND NOT EXISTS (SELECT FROM voided AS v
                  WHERE v.stream = s.stream AND v.generation = s.generation
                    AND s.sequence BETWEEN v.first_sequence AND v.last_sequence
                    AND v.code = 'NB-3183')
ORDER BY s.sequence LIMIT %(limit)s
"""


async def providable(
    tx: Transaction, *, stream: str, generation: int, first: int, last: int, limit: int
) -> list[int]:
    """Return the sequences of a range whose bytes are stored, ascending, at most `limit`."""
    cursor = await tx.execute(
        _PROVIDABLE,
        {"stream": stream, "generation": generation, "first": first, "last": last, "limit": limit},
    )
    return [row[0] for row in await cursor.fetchall()]


# Sequences of a range whose bytes were moved to archive files.
_ARCHIVED = """
SELECT s.sequence FROM sent AS s JOIN archived AS a USING (message_id)
WHERE s.stream = %(stream)s AND s.generation = %(generation)s
  AND s.sequence BETWEEN %(first)s AND %(last)s
"""


async def archived(
    tx: Transaction, *, stream: str, generation: int, first: int, last: int
) -> list[int]:
    """Return the sequences of a range that a person can bring back from an archive."""
    cursor = await tx.execute(
        _ARCHIVED, {"stream": stream, "generation": generation, "first": first, "last": last}
    )
    return [row[0] for row in await cursor.fetchall()]


# Asking twice is asking once.
_REPUBLISH = """
INSERT INTO republish (stream, generation, sequence, cause, requested_at)
SELECT %(stream)s, %(generation)s, sequence, %(cause)s, %(now)s
FROM unnest(%(sequences)b::bigint[]) AS t (sequence)
ON CONFLICT DO NOTHING
RETURNING sequence
"""


async def republish(
    tx: Transaction,
    *,
    stream: str,
    generation: int,
    sequences: Sequence[int],
    cause: str,
    now: datetime,
) -> int:
    """Ask the relay to send stored bytes again; returns how many were newly asked for."""
    cursor = await tx.execute(
        _REPUBLISH,
        {
            "stream": stream,
            "generation": generation,
            "sequences": list(sequences),
            "cause": cause,
            "now": now,
        },
    )
    return len(await cursor.fetchall())


_REPUBLISH_ANSWERS = """
INSERT INTO republish (stream, generation, sequence, cause, requested_at)
SELECT stream, generation, sequence, 'duplicate', %(now)s FROM sent
WHERE message_id = ANY(%(messages)b)
  AND EXISTS (SELECT FROM envelope WHERE envelope.message_id = sent.message_id)
ON CONFLICT DO NOTHING
RETURNING sequence
"""


async def republish_messages(tx: Transaction, messages: Sequence[UUID], now: datetime) -> int:
    """Ask for the stored bytes of these messages of ours again: answers to duplicates."""
    cursor = await tx.execute(_REPUBLISH_ANSWERS, {"messages": list(messages), "now": now})
    return len(await cursor.fetchall())


# Runs whose messages are all answered are of no more use. The next unanswered message at or above a
# run's first is one step into an index; a join of runs and messages has no such index.
_FORGET_ANSWERED = """
DELETE FROM publication AS p
WHERE p.stream = %s
  AND coalesce((SELECT min(s.sequence) FROM sent AS s
                WHERE s.stream = p.stream AND s.generation = p.generation AND s.answer IS NULL
                  AND s.sequence >= p.first_sequence) > p.last_sequence, true)
"""


async def forget_answered(tx: Transaction, stream: str) -> None:
    """Forget the runs of a stream whose messages are all answered."""
    await tx.execute(_FORGET_ANSWERED, [stream])


_FORGET_ACKNOWLEDGED = """
DELETE FROM publication
WHERE stream = %s
  AND (split_part(last_entry, '-', 1)::numeric, split_part(last_entry, '-', 2)::numeric) <= (%s, %s)
"""


async def forget_acknowledged(tx: Transaction, stream: str, reached: tuple[int, int]) -> None:
    """Forget the runs of a stream up to an entry id (milliseconds, counter)."""
    await tx.execute(_FORGET_ACKNOWLEDGED, [stream, *reached])


# All but the newest runs that hold at least so many messages together.
_FORGET_OLD = """
DELETE FROM publication WHERE publication_id IN (
    SELECT publication_id FROM (
        SELECT publication_id, last_sequence - first_sequence + 1 AS messages,
               sum(last_sequence - first_sequence + 1)
                   OVER (ORDER BY publication_id DESC) AS newest
        FROM publication WHERE stream = %s
    ) AS summed
    WHERE newest - messages >= %s)
"""


async def forget_old(tx: Transaction, stream: str, messages_max: int) -> None:
    """Forget all but the newest runs of a stream."""
    await tx.execute(_FORGET_OLD, [stream, messages_max])


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """What of a stream has to be on the bus: `messages` in runs, from the oldest to the newest.

    No entry of them is below `lowest_millisecond`, the first half of an entry id.
    """

    messages: int
    oldest: str
    newest: str
    lowest_millisecond: int


# Text order is enough for the milliseconds, whose digits are as many in every id.
_OUT = """
SELECT (sum(last_sequence - first_sequence + 1))::bigint,
       (SELECT first_entry FROM publication WHERE stream = %(stream)s
        ORDER BY publication_id LIMIT 1),
       (SELECT last_entry FROM publication WHERE stream = %(stream)s
        ORDER BY publication_id DESC LIMIT 1),
       min(split_part(first_entry, '-', 1) COLLATE "C")::bigint
FROM publication WHERE stream = %(stream)s
"""


async def out(tx: Transaction, stream: str) -> Out | None:
    """Return what of a stream has to be on the bus, None for nothing."""
    cursor = await tx.execute(_OUT, {"stream": stream})
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return None
    return Out(
        messages=row[0],
        oldest=row[1],
        newest=row[2],
        lowest_millisecond=row[3],
    )


_OPEN = """
SELECT p.publication_id, p.generation, p.first_sequence, p.last_sequence, p.first_entry,
       p.last_entry, p.acknowledged_seen_at,
       EXISTS (SELECT FROM sent AS s
               WHERE s.stream = p.stream AND s.generation = p.generation AND s.answer IS NULL
                 AND s.sequence BETWEEN p.first_sequence AND p.last_sequence
                 AND s.overdue_at IS NOT NULL)
FROM publication AS p WHERE p.stream = %s
ORDER BY p.publication_id
"""


async def open_publications(tx: Transaction, stream: str) -> list[Publication]:
    """Return the runs of a stream that have to be on the bus, oldest first."""
    cursor = await tx.execute(_OPEN, [stream])
    return [
        Publication(
            publication_id=row[0],
            generation=row[1],
            first_sequence=row[2],
            last_sequence=row[3],
            first_entry=row[4],
            last_entry=row[5],
            acknowledged_seen_at=row[6],
            overdue=row[7],
        )
        for row in await cursor.fetchall()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Messages of one generation: the first sequence, the last, and how many."""

    generation: int
    first: int
    last: int
    count: int


# Runs that are sent again: what of them still waits for an answer (in control, none ever comes).
_AGAIN = """
WITH run AS (
    DELETE FROM publication WHERE publication_id = ANY(%(runs)b::bigint[])
    RETURNING stream, generation, first_sequence, last_sequence
), asked AS (
    INSERT INTO republish (stream, generation, sequence, cause, requested_at)
    SELECT s.stream, s.generation, s.sequence, %(cause)s, %(now)s
    FROM run AS r
    JOIN sent AS s ON s.stream = r.stream AND s.generation = r.generation
                  AND s.sequence BETWEEN r.first_sequence AND r.last_sequence
    WHERE (s.answer IS NULL OR s.answer = 'none')
      AND EXISTS (SELECT FROM envelope AS e WHERE e.message_id = s.message_id)
    ON CONFLICT DO NOTHING
    RETURNING generation, sequence
)
SELECT generation, min(sequence), max(sequence), count(*) FROM asked
GROUP BY generation ORDER BY generation
"""


async def again(tx: Transaction, runs: Sequence[int], *, cause: str, now: datetime) -> list[Span]:
    """Forget runs, by their ids, and ask the relay for what of them still waits for an answer."""
    cursor = await tx.execute(_AGAIN, {"runs": list(runs), "cause": cause, "now": now})
    return [
        Span(generation=row[0], first=row[1], last=row[2], count=row[3])
        for row in await cursor.fetchall()
    ]


# Messages that wait for an answer and whose bytes are not here any more.
_WITHOUT_BYTES = """
SELECT s.generation, s.sequence
FROM publication AS p
JOIN sent AS s ON s.stream = p.stream AND s.generation = p.generation
              AND s.sequence BETWEEN p.first_sequence AND p.last_sequence
WHERE p.publication_id = ANY(%b::bigint[]) AND (s.answer IS NULL OR s.answer = 'none')
  AND NOT EXISTS (SELECT FROM envelope AS e WHERE e.message_id = s.message_id)
ORDER BY s.generation, s.sequence
"""


async def without_bytes(tx: Transaction, runs: Sequence[int]) -> list[tuple[int, int]]:
    """Return (generation, sequence) of what runs hold, by their ids, and nobody can send again."""
    cursor = await tx.execute(_WITHOUT_BYTES, [list(runs)])
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def seen_acknowledged(tx: Transaction, publications: Sequence[int], now: datetime) -> None:
    """Note when runs were first seen acknowledged though their answers are missing."""
    await tx.execute(
        "UPDATE publication SET acknowledged_seen_at = %s"
        " WHERE publication_id = ANY(%b::bigint[]) AND acknowledged_seen_at IS NULL",
        [now, list(publications)],
    )


# Messages whose answer is late, each told once. Where a restore lost answers, the same bytes go
# again to be answered again: then an answer is late that did not come since.
_OVERDUE = """
UPDATE sent SET overdue_at = %(now)s
WHERE stream = %(stream)s AND answer IS NULL AND overdue_at IS NULL
  AND sequenced_at < %(before)s
  AND coalesce((SELECT max(adopted_at) FROM restoration), '-infinity') < %(before)s
  AND NOT (EXISTS (SELECT FROM restoration)
           AND EXISTS (SELECT FROM record AS r
                       WHERE r.notice_id = sent.notice_id AND r.message_id = sent.message_id
                         AND r.action = 'message.recovered' AND r.recorded_at >= %(before)s))
RETURNING generation, sequence
"""


async def mark_overdue(
    tx: Transaction, stream: str, *, before: datetime, now: datetime
) -> list[tuple[int, int]]:
    """Mark unanswered messages that were numbered, or came back after a restore, before `before`.

    Returns (generation, sequence) of what is newly overdue, ascending.
    """
    cursor = await tx.execute(_OVERDUE, {"stream": stream, "before": before, "now": now})
    return sorted((row[0], row[1]) for row in await cursor.fetchall())


async def any_overdue(tx: Transaction, stream: str) -> bool:
    """Return whether an answer of a stream is overdue, on the bus or not."""
    cursor = await tx.execute(
        "SELECT EXISTS (SELECT FROM sent WHERE stream = %s"
        " AND answer IS NULL AND overdue_at IS NOT NULL)",
        [stream],
    )
    row = await cursor.fetchone()
    return bool(row and row[0])
