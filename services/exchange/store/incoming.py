"""Statements about what comes in: inbox, order of revisions, arrivals, and what answered them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the inbox holds under a message id."""

    envelope_hash: bytes
    state: str
    record_id: int | None
    answered_by: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """A message that is being taken, held or refused.

    `envelope` are its exact bytes, `salt` and `plain` its content; None is not kept here.
    """

    message_id: UUID
    sequence: int
    kind: str
    notice_id: UUID | None
    revision: int | None
    envelope_hash: bytes
    state: str
    record_id: int | None = None
    answered_by: UUID | None = None
    envelope: bytes | None = None
    salt: bytes | None = None
    plain: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A message that waits for an earlier revision of its notice."""

    message_id: UUID
    notice_id: UUID
    revision: int
    envelope: bytes
    received_at: datetime


async def known(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, Known]:
    """Return what the inbox holds of these message ids."""
    cursor = await tx.execute(
        "SELECT message_id, envelope_hash, state, record_id, answered_by"
        " FROM inbox WHERE message_id = ANY(%b)",
        [list(messages)],
    )
    return {
        row[0]: Known(envelope_hash=row[1], state=row[2], record_id=row[3], answered_by=row[4])
        for row in await cursor.fetchall()
    }


_BEFORE = """
SELECT message_id, NULL::bigint, envelope_hash, state, record_id, answered_by
FROM inbox WHERE message_id = ANY(%(messages)b)
UNION ALL
SELECT message_id, sequence, NULL, NULL, NULL, NULL
FROM inbox WHERE stream = %(stream)s AND generation = %(generation)s
             AND sequence = ANY(%(sequences)b::bigint[])
"""


async def before(
    tx: Transaction,
    stream: str,
    generation: int,
    messages: Sequence[UUID],
    sequences: Sequence[int],
) -> tuple[dict[UUID, Known], dict[int, UUID]]:
    """Return what the inbox holds under these ids, and which message under these sequences."""
    cursor = await tx.execute(
        _BEFORE,
        {
            "messages": list(messages),
            "stream": stream,
            "generation": generation,
            "sequences": list(sequences),
        },
    )
    held: dict[UUID, Known] = {}
    holders: dict[int, UUID] = {}
    for (
        message_id,
        sequence,
        envelope_hash,
        state,
        record_id,
        answered_by,
    ) in await cursor.fetchall():
        if sequence is not None:
            holders[sequence] = message_id
        else:
            held[message_id] = Known(
                envelope_hash=envelope_hash,
                state=state,
                record_id=record_id,
                answered_by=answered_by,
            )
    return held, holders


# Row, bytes and content in one statement: each message waits for every round trip.
_ADD = """
WITH message AS MATERIALIZED (
    SELECT * FROM unnest(%(message_id)b::uuid[], %(sequence)b::bigint[], %(kind)b::text[],
                         %(notice_id)b::uuid[], %(revision)b::int[], %(envelope_hash)b::bytea[],
                         %(state)b::text[], %(record_id)b::bigint[], %(answered_by)b::uuid[],
                         %(envelope)b::bytea[], %(salt)b::bytea[], %(plain)b::bytea[])
        AS t (message_id, sequence, kind, notice_id, revision, envelope_hash, state, record_id,
              answered_by, envelope, salt, plain)
), kept AS (
    INSERT INTO envelope (message_id, envelope)
    SELECT message_id, envelope FROM message WHERE envelope IS NOT NULL
    ON CONFLICT (message_id) DO NOTHING
), content AS (
    INSERT INTO payload (message_id, salt, body)
    SELECT message_id, salt, plain FROM message WHERE plain IS NOT NULL
    ON CONFLICT (message_id) DO NOTHING
)
INSERT INTO inbox (stream, generation, received_at, message_id, sequence, kind, notice_id,
                   revision, envelope_hash, state, record_id, answered_by)
SELECT %(stream)s, %(generation)s, %(now)s, message_id, sequence, kind, notice_id, revision,
       envelope_hash, state, record_id, answered_by
FROM message
ON CONFLICT (message_id) DO UPDATE
    SET state = EXCLUDED.state, record_id = EXCLUDED.record_id, answered_by = NULL,
        received_at = EXCLUDED.received_at
    WHERE inbox.state = 'refused' AND inbox.envelope_hash = EXCLUDED.envelope_hash
"""


async def add(
    tx: Transaction, stream: str, generation: int, rows: Sequence[InboxRow], now: datetime
) -> None:
    """Write messages in order of their ids; one that was refused before is taken after all.

    Bytes and content that are here already stay as they are.
    """
    ordered = sorted(rows, key=lambda row: row.message_id)
    await tx.execute(
        _ADD,
        {
            "stream": stream,
            "generation": generation,
            "now": now,
            "message_id": [r.message_id for r in ordered],
            "sequence": [r.sequence for r in ordered],
            "kind": [r.kind for r in ordered],
            "notice_id": [r.notice_id for r in ordered],
            "revision": [r.revision for r in ordered],
            "envelope_hash": [r.envelope_hash for r in ordered],
            "state": [r.state for r in ordered],
            "record_id": [r.record_id for r in ordered],
            "answered_by": [r.answered_by for r in ordered],
            "envelope": [r.envelope for r in ordered],
            "salt": [r.salt for r in ordered],
            "plain": [r.plain for r in ordered],
        },
    )


async def applied(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, int]:
    """Return how far the revisions of these notices were applied; their rows are held."""
    cursor = await tx.execute(
        "SELECT notice_id, revision FROM applied WHERE notice_id = ANY(%b)"
        " ORDER BY notice_id FOR UPDATE",
        [list(notices)],
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def reached(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, int]:
    """Return how far the revisions of these notices were applied; nothing is held."""
    cursor = await tx.execute(
        "SELECT notice_id, revision FROM applied WHERE notice_id = ANY(%b)", [list(notices)]
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


_ADVANCE = """
WITH advanced AS (
    INSERT INTO applied (notice_id, revision) SELECT * FROM unnest(%b::uuid[], %b::int[])
    ON CONFLICT (notice_id) DO UPDATE SET revision = EXCLUDED.revision
        WHERE applied.revision < EXCLUDED.revision
    RETURNING 1
)
SELECT count(*) FROM advanced
"""


async def advance(tx: Transaction, revisions: Mapping[UUID, int]) -> bool:
    """Note how far each notice was applied; False if another stream brought one as far just now."""
    ordered = sorted(revisions.items())
    cursor = await tx.execute(
        _ADVANCE, [[notice for notice, _ in ordered], [revision for _, revision in ordered]]
    )
    row = await cursor.fetchone()
    return row is not None and row[0] == len(ordered)


# Held messages whose turn has come: their revision is the next one of their notice.
_NEXT_HELD = """
SELECT i.message_id, i.notice_id, i.revision, e.envelope, i.received_at
FROM inbox AS i
JOIN applied AS a ON a.notice_id = i.notice_id AND i.revision = a.revision + 1
JOIN envelope AS e ON e.message_id = i.message_id
WHERE i.state = 'held' AND (%(only)s::uuid IS NULL OR i.message_id = %(only)s)
  AND NOT EXISTS (SELECT FROM attempt AS t
                  WHERE t.stream = i.stream AND t.generation = i.generation
                    AND t.sequence = i.sequence
                    AND t.failed_at > %(now)s - %(pause)s * interval '1 second')
ORDER BY i.message_id LIMIT 500
FOR UPDATE OF i, a SKIP LOCKED
"""


async def next_held(
    tx: Transaction, *, now: datetime, pause: float, only: UUID | None = None
) -> list[Held]:
    """Return held messages that can be applied now: all of them, or `only` that one if it can.

    What failed less than `pause` seconds ago waits.
    """
    cursor = await tx.execute(_NEXT_HELD, {"now": now, "pause": pause, "only": only})
    return [_held(row) for row in await cursor.fetchall()]


def _held(row: tuple[Any, ...]) -> Held:
    message_id, notice_id, revision, envelope, received_at = row
    return Held(
        message_id=message_id,
        notice_id=notice_id,
        revision=revision,
        envelope=envelope,
        received_at=received_at,
    )


async def apply_held(tx: Transaction, messages: Sequence[UUID]) -> None:
    """Mark held messages as applied."""
    await tx.execute(
        "UPDATE inbox SET state = 'applied' WHERE message_id = ANY(%b) AND state = 'held'",
        [list(messages)],
    )


async def give_up_held(tx: Transaction, message_id: UUID, *, answered_by: UUID) -> bool:
    """Mark a held message as refused by this answer; False if it is not held any more."""
    cursor = await tx.execute(
        "UPDATE inbox SET state = 'refused', answered_by = %s"
        " WHERE message_id = %s AND state = 'held'",
        [answered_by, message_id],
    )
    return cursor.rowcount == 1


async def set_answer(tx: Transaction, message_id: UUID, answered_by: UUID) -> None:
    """Say which refusal answers a message now."""
    await tx.execute(
        "UPDATE inbox SET answered_by = %s WHERE message_id = %s", [answered_by, message_id]
    )


async def set_arrived(tx: Transaction, arrived: Mapping[UUID, datetime]) -> None:
    """Say when messages first arrived that were set aside for a while: clocks start once."""
    await tx.execute(
        "UPDATE inbox AS i SET received_at = t.received_at"
        " FROM unnest(%b::uuid[], %b::timestamptz[]) AS t (message_id, received_at)"
        " WHERE i.message_id = t.message_id",
        [list(arrived), list(arrived.values())],
    )


# A message that names as its cause one that was refused here says what is to be taken instead: of
# it, and of whatever of the same notice was refused before it.
_SUPERSEDE = """
UPDATE inbox AS i SET state = 'superseded'
FROM unnest(%b::uuid[], %b::uuid[], %b::int[]) AS t (cause, notice_id, revision)
JOIN inbox AS c
  ON c.message_id = t.cause AND c.notice_id = t.notice_id AND c.revision < t.revision
     AND c.state = 'refused'
LEFT JOIN applied AS a ON a.notice_id = c.notice_id
WHERE i.notice_id = c.notice_id AND i.state = 'refused'
  AND i.revision <= c.revision AND i.revision > coalesce(a.revision, 0)
RETURNING i.notice_id
"""


async def supersede(tx: Transaction, claims: Sequence[tuple[UUID, UUID, int]]) -> set[UUID]:
    """Mark refused messages that later ones stand in for; returns the notices concerned.

    `claims` are (cause, notice, revision) of messages that were verified and not refused.
    """
    cursor = await tx.execute(_SUPERSEDE, [[claim[part] for claim in claims] for part in range(3)])
    return {row[0] for row in await cursor.fetchall()}


async def superseded(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, dict[int, datetime]]:
    """Return, by notice, the revisions that others stand in for, each with when it arrived."""
    cursor = await tx.execute(
        "SELECT notice_id, revision, received_at FROM inbox"
        " WHERE state = 'superseded' AND notice_id = ANY(%b)",
        [list(notices)],
    )
    found: dict[UUID, dict[int, datetime]] = {}
    for notice_id, revision, received_at in await cursor.fetchall():
        found.setdefault(notice_id, {})[revision] = received_at
    return found


# One step over what others stand in for, of notices where something waits behind it.
_STEP_OVER = """
INSERT INTO applied (notice_id, revision)
SELECT DISTINCT s.notice_id, s.revision
FROM (SELECT DISTINCT notice_id FROM inbox WHERE state = 'held') AS h
JOIN inbox AS s ON s.notice_id = h.notice_id AND s.state = 'superseded'
LEFT JOIN applied AS a ON a.notice_id = s.notice_id
WHERE s.revision = coalesce(a.revision, 0) + 1
ORDER BY s.notice_id
ON CONFLICT (notice_id) DO UPDATE SET revision = EXCLUDED.revision
    WHERE applied.revision = EXCLUDED.revision - 1
"""


async def step_over(tx: Transaction) -> int:
    """Step over a superseded revision of each notice where one is next; returns how many were."""
    return (await tx.execute(_STEP_OVER)).rowcount


async def held_of(tx: Transaction, notice_id: UUID) -> list[Held]:
    """Return the held messages of a notice, in order of revision."""
    cursor = await tx.execute(
        "SELECT i.message_id, i.notice_id, i.revision, e.envelope, i.received_at"
        " FROM inbox AS i JOIN envelope AS e USING (message_id)"
        " WHERE i.notice_id = %s AND i.state = 'held' ORDER BY i.revision",
        [notice_id],
    )
    return [_held(row) for row in await cursor.fetchall()]


async def count_held(tx: Transaction) -> int:
    """Return how many messages wait for an earlier revision."""
    cursor = await tx.execute("SELECT count(*) FROM inbox WHERE state = 'held'")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


# One statement also for a stream that nothing came on before: what is asked along with it is then
# read behind the lock.
_LOCK = """
INSERT INTO stream_in (stream, generation) VALUES (%s, %s)
ON CONFLICT (stream, generation) DO UPDATE SET highest = stream_in.highest
RETURNING highest
"""


async def lock_stream(tx: Transaction, stream: str, generation: int) -> int:
    """Return the highest sequence that arrived, its row held: one taker of a stream at a time."""
    row = await (await tx.execute(_LOCK, [stream, generation])).fetchone()
    assert row is not None, stream
    return int(row[0])


async def set_highest(tx: Transaction, stream: str, generation: int, highest: int) -> None:
    """Note the highest sequence that arrived."""
    await tx.execute(
        "UPDATE stream_in SET highest = %s WHERE stream = %s AND generation = %s",
        [highest, stream, generation],
    )


async def keep_answer_batch(
    tx: Transaction, *, first_index: int, size: int, message_id: UUID
) -> None:
    """Note which control message carries the receipts of records first_index to size - 1."""
    await tx.execute(
        "INSERT INTO answer_batch (first_index, size, message_id) VALUES (%s, %s, %s)",
        [first_index, size, message_id],
    )


# The control messages that answered what these records stand for, in this log or a former one.
_ANSWERS = """
SELECT b.message_id
FROM log_entry AS e
CROSS JOIN LATERAL (
    SELECT message_id, size FROM answer_batch
    WHERE first_index <= e.record_index ORDER BY first_index DESC LIMIT 1
) AS b
WHERE e.record_id = ANY(%(records)b::bigint[]) AND e.record_index < b.size
UNION
SELECT b.message_id
FROM former_entry AS e
CROSS JOIN LATERAL (
    SELECT message_id, size FROM former_answer_batch
    WHERE origin = e.origin AND first_index <= e.record_index ORDER BY first_index DESC LIMIT 1
) AS b
WHERE e.record_id = ANY(%(records)b::bigint[]) AND e.record_index < b.size
"""


async def answers_of(tx: Transaction, records: Sequence[int]) -> list[UUID]:
    """Return the ids of the receipts messages that carried these records."""
    cursor = await tx.execute(_ANSWERS, {"records": list(records)})
    return [row[0] for row in await cursor.fetchall()]
