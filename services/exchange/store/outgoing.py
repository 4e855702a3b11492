"""Statements about what leaves: outbox, numbering, and the bytes that the bus still lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A message for a person or a case that waits for its sequence; its content lies beside it."""

    stream: str
    message_id: UUID
    kind: str
    notice_id: UUID | None
    revision: int | None
    correlation_id: UUID
    causation_id: UUID | None
    commitment: bytes | None
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An outbox row as the relay takes it, with its plain content and salt."""

    message_id: UUID
    kind: str
    notice_id: UUID | None
    revision: int | None
    correlation_id: UUID
    causation_id: UUID | None
    commitment: bytes | None
    made_at: datetime
    body: bytes
    salt: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """A message with its sequence and its exact bytes."""

    sequence: int
    message_id: UUID
    kind: str
    notice_id: UUID | None
    revision: int | None
    envelope: bytes
    envelope_hash: bytes
    casetag: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHead:
    """Where a stream stands: the next sequence to give, and the highest handed to the bus."""

    stream: str
    lane: str
    partition: int
    generation: int
    next_sequence: int
    published: int


# Each stream once; a second declaration changes nothing.
_DECLARE = """
INSERT INTO stream_out (stream, lane, partition, generation)
SELECT stream, lane, partition, %(generation)s
FROM unnest(%(streams)b::text[], %(lanes)b::text[], %(partitions)b::int[])
    AS t (stream, lane, partition)
ON CONFLICT (stream) DO NOTHING
"""


async def declare(
    tx: Transaction, streams: Sequence[tuple[str, str, int]], generation: int
) -> None:
    """Write the rows of `streams` (name, lane, partition) that are not there yet."""
    await tx.execute(
        _DECLARE,
        {
            "generation": generation,
            "streams": [name for name, _, _ in streams],
            "lanes": [lane for _, lane, _ in streams],
            "partitions": [partition for _, _, partition in streams],
        },
    )


async def heads(tx: Transaction) -> list[StreamHead]:
    """Return where every outgoing stream stands."""
    cursor = await tx.execute(
        "SELECT stream, lane, partition, generation, next_sequence, published"
        " FROM stream_out ORDER BY lane, partition"
    )
    return [
        StreamHead(
            stream=row[0],
            lane=row[1],
            partition=row[2],
            generation=row[3],
            next_sequence=row[4],
            published=row[5],
        )
        for row in await cursor.fetchall()
    ]


async def streams_by_lane(tx: Transaction) -> Mapping[str, Sequence[str]]:
    """Return the outgoing streams of each lane, in order of partition."""
    lanes: dict[str, list[str]] = {}
    for head in await heads(tx):
        lanes.setdefault(head.lane, []).append(head.stream)
    return lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What there is to do for a stream: sent once more, left by a crash, not numbered yet.

    `unanswered` are the numbered messages of its generation that still wait for their answer; they
    are counted only where something waits to be numbered.
    """

    head: StreamHead
    again: bool
    left: bool
    waiting: bool
    unanswered: int


# One look at everything a relay may have to do. What rests on a checkpoint of ours stays until that
# one stands outside the database too.
_WORK = """
SELECT stream, lane, partition, generation, next_sequence, published,
       EXISTS (SELECT FROM republish AS r WHERE r.stream = o.stream),
       next_sequence > published + 1,
       new.waiting,
       CASE WHEN new.waiting THEN (
           SELECT count(*) FROM sent AS s
           WHERE s.stream = o.stream AND s.generation = o.generation AND s.answer IS NULL
       ) ELSE 0 END
FROM stream_out AS o
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM outbox AS w WHERE w.stream = o.stream
                   AND coalesce(w.checkpoint_size, 0) <= coalesce((SELECT size FROM anchored), 0))
        AS waiting
) AS new
WHERE o.stream = %s
"""


async def work(tx: Transaction, stream: str) -> Work:
    """Return where a stream stands and what there is to do for it."""
    cursor = await tx.execute(_WORK, [stream])
    row = await cursor.fetchone()
    assert row is not None, stream
    return Work(
        head=StreamHead(
            stream=row[0],
            lane=row[1],
            partition=row[2],
            generation=row[3],
            next_sequence=row[4],
            published=row[5],
        ),
        again=row[6],
        left=row[7],
        waiting=row[8],
        unanswered=row[9],
    )


async def lock_head(tx: Transaction, stream: str) -> StreamHead:
    """Return a stream's row, held until the transaction ends: one numbering at a time."""
    cursor = await tx.execute(
        "SELECT stream, lane, partition, generation, next_sequence, published"
        " FROM stream_out WHERE stream = %s FOR UPDATE",
        [stream],
    )
    row = await cursor.fetchone()
    assert row is not None, stream
    return StreamHead(
        stream=row[0],
        lane=row[1],
        partition=row[2],
        generation=row[3],
        next_sequence=row[4],
        published=row[5],
    )


# One statement for any number of messages; positions follow the order given.
_ADD = """
INSERT INTO outbox (stream, message_id, kind, notice_id, revision, correlation_id, causation_id,
                    commitment, made_at)
SELECT * FROM unnest(%b::text[], %b::uuid[], %b::text[], %b::uuid[], %b::int[], %b::uuid[],
                     %b::uuid[], %b::bytea[], %b::timestamptz[])
"""


async def add(tx: Transaction, rows: Sequence[OutboxRow]) -> None:
    """Append messages of the lanes `live` and `backlog` to the outbox."""
    await tx.execute(
        _ADD,
        [
            [r.stream for r in rows],
            [r.message_id for r in rows],
            [r.kind for r in rows],
            [r.notice_id for r in rows],
            [r.revision for r in rows],
            [r.correlation_id for r in rows],
            [r.causation_id for r in rows],
            [r.commitment for r in rows],
            [r.made_at for r in rows],
        ],
    )


# The lane `control` is never partitioned. Without streams of ours there is none, and this fails.
_SAY = """
INSERT INTO outbox (stream, message_id, kind, correlation_id, causation_id, made_at, body,
                    checkpoint_size)
VALUES ((SELECT stream FROM stream_out WHERE lane = 'control'), %(message_id)s, %(kind)s,
        %(correlation_id)s, %(causation_id)s, %(made_at)s, %(body)b, %(checkpoint_size)s)
"""


async def say(
    tx: Transaction,
    *,
    message_id: UUID,
    kind: str,
    correlation_id: UUID,
    causation_id: UUID | None,
    made_at: datetime,
    body: bytes,
    checkpoint_size: int | None,
) -> None:
    """Append a control message to the outbox, in one statement that waits for no answer.

    `checkpoint_size` is the checkpoint of ours that it rests on, None where it rests on none.
    """
    await tx.execute(
        _SAY,
        {
            "message_id": message_id,
            "kind": kind,
            "correlation_id": correlation_id,
            "causation_id": causation_id,
            "made_at": made_at,
            "body": body,
            "checkpoint_size": checkpoint_size,
        },
    )


async def keep_payloads(tx: Transaction, payloads: Sequence[tuple[UUID, bytes, bytes]]) -> None:
    """Store (message id, salt, canonical body): the plain content, which retention may erase."""
    await tx.execute(
        "INSERT INTO payload (message_id, salt, body)"
        " SELECT * FROM unnest(%b::uuid[], %b::bytea[], %b::bytea[])"
        " ON CONFLICT (message_id) DO NOTHING",
        [[p[0] for p in payloads], [p[1] for p in payloads], [p[2] for p in payloads]],
    )


# The oldest waiting messages of one stream, taken out of the outbox as they are numbered.
_TAKE = """
WITH taken AS (
    DELETE FROM outbox WHERE position IN (
        SELECT position FROM outbox WHERE stream = %(stream)s
          AND coalesce(checkpoint_size, 0) <= coalesce((SELECT size FROM anchored), 0)
        ORDER BY position LIMIT %(limit)s
    )
    RETURNING position, message_id, kind, notice_id, revision, correlation_id, causation_id,
              commitment, made_at, body
)
SELECT t.message_id, t.kind, t.notice_id, t.revision, t.correlation_id, t.causation_id,
       t.commitment, t.made_at, coalesce(t.body, p.body), p.salt
FROM taken AS t LEFT JOIN payload AS p USING (message_id)
ORDER BY t.position
"""


async def take(tx: Transaction, stream: str, limit: int) -> list[Waiting]:
    """Remove and return up to `limit` waiting messages of a stream, oldest first."""
    cursor = await tx.execute(_TAKE, {"stream": stream, "limit": limit})
    return [
        Waiting(
            message_id=row[0],
            kind=row[1],
            notice_id=row[2],
            revision=row[3],
            correlation_id=row[4],
            causation_id=row[5],
            commitment=row[6],
            made_at=row[7],
            body=row[8],
            salt=row[9],
        )
        for row in await cursor.fetchall()
    ]


# Messages, their bytes and the stream's next sequence in one statement: none is without the others.
_NUMBER = """
WITH message AS MATERIALIZED (
    SELECT * FROM unnest(%(sequence)b::bigint[], %(message_id)b::uuid[], %(kind)b::text[],
                         %(notice_id)b::uuid[], %(revision)b::int[], %(envelope_hash)b::bytea[],
                         %(envelope)b::bytea[])
        AS t (sequence, message_id, kind, notice_id, revision, envelope_hash, envelope)
), numbered AS (
    INSERT INTO sent (stream, generation, sequence, message_id, kind, notice_id, revision,
                      envelope_hash, sequenced_at, answer)
    SELECT %(stream)s, %(generation)s, sequence, message_id, kind, notice_id, revision,
           envelope_hash, %(now)s, %(answer)s
    FROM message
), kept AS (
    INSERT INTO envelope (message_id, envelope)
    SELECT message_id, envelope FROM message
    ON CONFLICT (message_id) DO NOTHING
)
UPDATE stream_out SET next_sequence = %(next_sequence)s WHERE stream = %(stream)s
"""


async def number(
    tx: Transaction, head: StreamHead, messages: Sequence[Numbered], now: datetime
) -> None:
    """Keep numbered messages with their bytes and move the stream's next sequence past them."""
    await tx.execute(
        _NUMBER,
        {
            "stream": head.stream,
            "generation": head.generation,
            "now": now,
            "answer": "none" if head.lane == "control" else None,
            "next_sequence": messages[-1].sequence + 1,
            "sequence": [m.sequence for m in messages],
            "message_id": [m.message_id for m in messages],
            "kind": [m.kind for m in messages],
            "notice_id": [m.notice_id for m in messages],
            "revision": [m.revision for m in messages],
            "envelope_hash": [m.envelope_hash for m in messages],
            "envelope": [m.envelope for m in messages],
        },
    )


async def keep_envelopes(tx: Transaction, envelopes: Sequence[tuple[UUID, bytes]]) -> None:
    """Store the exact bytes of messages; what is there already stays as it is."""
    await tx.execute(
        "INSERT INTO envelope (message_id, envelope)"
        " SELECT * FROM unnest(%b::uuid[], %b::bytea[])"
        " ON CONFLICT (message_id) DO NOTHING",
        [[e[0] for e in envelopes], [e[1] for e in envelopes]],
    )


async def count_waiting(tx: Transaction, stream: str) -> int:
    """Return how many messages of a stream have no sequence yet."""
    cursor = await tx.execute("SELECT count(*) FROM outbox WHERE stream = %s", [stream])
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


_UNPUBLISHED = """
SELECT s.sequence, s.message_id, s.kind, s.notice_id, s.revision, e.envelope, s.envelope_hash
FROM sent AS s JOIN envelope AS e USING (message_id)
WHERE s.stream = %(stream)s AND s.generation = %(generation)s AND s.sequence > %(published)s
ORDER BY s.sequence LIMIT %(limit)s
"""

# The oldest generation first: what was sent before a restore goes before what came after it. The
# page first, then one step into each index: whatever else the planner chose (it does not know how
# long `republish` is) would read whole tables for every page.
_ASKED_AGAIN = """
WITH page AS MATERIALIZED (
    SELECT stream, generation, sequence FROM republish
    WHERE stream = %(stream)s AND generation = (
              SELECT min(generation) FROM republish
              WHERE stream = %(stream)s AND (generation, sequence) > (%(generation)s, %(above)s))
      AND (generation, sequence) > (%(generation)s, %(above)s)
    ORDER BY sequence LIMIT %(limit)s
)
SELECT p.sequence, s.message_id, s.kind, s.notice_id, s.revision, e.envelope, s.envelope_hash,
       p.generation
FROM page AS p
CROSS JOIN LATERAL (
    SELECT message_id, kind, notice_id, revision, envelope_hash FROM sent
    WHERE stream = p.stream AND generation = p.generation AND sequence = p.sequence LIMIT 1
) AS s
CROSS JOIN LATERAL (
    SELECT envelope FROM envelope WHERE message_id = s.message_id LIMIT 1
) AS e
ORDER BY p.sequence
"""


def _numbered(row: tuple[object, ...]) -> Numbered:
    sequence, message_id, kind, notice_id, revision, envelope, envelope_hash = row
    return Numbered(
        sequence=sequence,  # type: ignore[arg-type]  # rows are untyped at the driver's border
        message_id=message_id,  # type: ignore[arg-type]  # see above
        kind=kind,  # type: ignore[arg-type]  # see above
        notice_id=notice_id,  # type: ignore[arg-type]  # see above
        revision=revision,  # type: ignore[arg-type]  # see above
        envelope=envelope,  # type: ignore[arg-type]  # see above
        envelope_hash=envelope_hash,  # type: ignore[arg-type]  # see above
    )


async def unpublished(tx: Transaction, head: StreamHead, limit: int) -> list[Numbered]:
    """Return numbered messages that the bus was not given yet: a crash came in between."""
    cursor = await tx.execute(
        _UNPUBLISHED,
        {
            "stream": head.stream,
            "generation": head.generation,
            "published": head.published,
            "limit": limit,
        },
    )
    return [_numbered(row) for row in await cursor.fetchall()]


async def asked_again(
    tx: Transaction, head: StreamHead, limit: int, *, above: tuple[int, int] | None = None
) -> tuple[StreamHead, list[Numbered]]:
    """Return messages whose stored bytes are to be sent once more, in order of sequence.

    They are of one generation, that of the head returned with them; `above` is a generation and
    a sequence that all of them are above.
    """
    generation, sequence = above or (0, 0)
    place = {"stream": head.stream, "generation": generation, "above": sequence}
    cursor = await tx.execute(_ASKED_AGAIN, {**place, "limit": limit})
    rows = await cursor.fetchall()
    generation = rows[0][7] if rows else head.generation
    return replace(head, generation=generation), [_numbered(row[:7]) for row in rows]
