"""Statements about the peer's answers to our messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schemas.checkpoint import Checkpoint
from schemas.reply import Refusal
from services.ledger.store import Transaction

# Receipts: each discharges what it names, if the envelope's hash is the one that we sent.
_RECEIPTED = """
UPDATE sent SET answer = 'receipt', answer_code = NULL, answered_at = %(now)s,
                answer_message = %(answer_message)s, answer_index = t.record_index
FROM unnest(%(messages)b::uuid[], %(hashes)b::bytea[], %(indexes)b::bigint[])
    AS t (message_id, envelope_hash, record_index)
WHERE sent.message_id = t.message_id AND sent.envelope_hash = t.envelope_hash
  AND (sent.answer IS NULL OR sent.answer IN ('refusal', 'void'))
RETURNING sent.message_id, sent.notice_id, sent.kind
"""


async def receipted(
    tx: Transaction,
    *,
    answer_message: UUID,
    receipts: Sequence[tuple[UUID, bytes, int]],
    now: datetime,
) -> list[tuple[UUID, UUID | None, str]]:
    """Discharge messages by (id, envelope hash, record index); returns those newly discharged."""
    cursor = await tx.execute(
        _RECEIPTED,
        {
            "now": now,
            "answer_message": answer_message,
            "messages": [r[0] for r in receipts],
            "hashes": [r[1] for r in receipts],
            "indexes": [r[2] for r in receipts],
        },
    )
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]


async def known_hashes(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the envelope hash of each of these messages that we sent."""
    cursor = await tx.execute(
        "SELECT message_id, envelope_hash FROM sent WHERE message_id = ANY(%b)", [list(messages)]
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal to note: of exactly these bytes, carried by `answer_message`.

    `before` is the answer that it takes the place of: none yet, a receipt of what was held, or a
    refusal.
    """

    message_id: UUID
    envelope_hash: bytes
    answer_message: UUID
    code: str
    before: str | None


_REFUSED = """
WITH noted AS (
    UPDATE sent SET answer = 'refusal', answer_code = t.code, answered_at = %(now)s,
                    answer_message = t.answer_message, answer_index = NULL
    FROM unnest(%(messages)b::uuid[], %(hashes)b::bytea[], %(answers)b::uuid[], %(codes)b::text[],
                %(before)b::text[])
        AS t (message_id, envelope_hash, answer_message, code, before)
    WHERE sent.message_id = t.message_id AND sent.envelope_hash = t.envelope_hash
      AND sent.answer IS NOT DISTINCT FROM t.before
    RETURNING sent.message_id, notice_id, kind, stream, generation, sequence
), dropped AS (
    DELETE FROM republish AS r USING noted AS n
    WHERE r.stream = n.stream AND r.generation = n.generation AND r.sequence = n.sequence
)
SELECT message_id, notice_id, kind FROM noted
"""


async def refused(
    tx: Transaction, refusals: Sequence[Refused], now: datetime
) -> dict[UUID, tuple[UUID | None, str]]:
    """Note refusals, at most one a message; returns (notice id, kind) of what is refused by them.

    Nothing is refused that is answered otherwise, or whose bytes we never sent.
    """
    cursor = await tx.execute(
        _REFUSED,
        {
            "now": now,
            "messages": [r.message_id for r in refusals],
            "hashes": [r.envelope_hash for r in refusals],
            "answers": [r.answer_message for r in refusals],
            "codes": [r.code for r in refusals],
            "before": [r.before for r in refusals],
        },
    )
    return {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The receipt that a message of ours has: the message that carried it, and its record there."""

    message: UUID
    index: int
    envelope: bytes


async def receipts_of(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, Receipt]:
    """Return where the receipts of messages of ours are, of those that have one."""
    cursor = await tx.execute(
        "SELECT s.message_id, s.answer_message, s.answer_index, e.envelope FROM sent AS s"
        " JOIN envelope AS e ON e.message_id = s.answer_message"
        " WHERE s.message_id = ANY(%b::uuid[]) AND s.answer = 'receipt'",
        [list(messages)],
    )
    return {
        row[0]: Receipt(message=row[1], index=row[2], envelope=row[3])
        for row in await cursor.fetchall()
    }


_KEEP_REFUSALS = """
INSERT INTO refusal (message_id, code, field, final, refused_at, received_at, answer_message,
                     receipt_message, receipt_index)
SELECT message_id, code, field, final, refused_at, %(now)s, answer_message, receipt_message,
       receipt_index
FROM unnest(%(messages)b::uuid[], %(codes)b::text[], %(fields)b::text[], %(final)b::boolean[],
            %(refused_at)b::timestamptz[], %(answers)b::uuid[], %(receipt_messages)b::uuid[],
            %(receipt_indexes)b::bigint[])
    AS t (message_id, code, field, final, refused_at, answer_message, receipt_message,
          receipt_index)
ON CONFLICT (message_id) DO UPDATE
    SET code = EXCLUDED.code, field = EXCLUDED.field, final = EXCLUDED.final,
        refused_at = EXCLUDED.refused_at, received_at = EXCLUDED.received_at,
        answer_message = EXCLUDED.answer_message,
        receipt_message = coalesce(EXCLUDED.receipt_message, refusal.receipt_message),
        receipt_index = coalesce(EXCLUDED.receipt_index, refusal.receipt_index)
"""


async def keep_refusals(
    tx: Transaction, refusals: Sequence[tuple[Refusal, UUID, Receipt | None]], now: datetime
) -> None:
    """Keep what refusals say of messages of ours, at most one a message.

    Each comes with the message that carried it, and the receipt that it took back.
    """
    receipts = [receipt for _, _, receipt in refusals]
    await tx.execute(
        _KEEP_REFUSALS,
        {
            "now": now,
            "messages": [refusal.message_id for refusal, _, _ in refusals],
            "codes": [refusal.code for refusal, _, _ in refusals],
            "fields": [refusal.field for refusal, _, _ in refusals],
            "final": [refusal.final for refusal, _, _ in refusals],
            "refused_at": [refusal.at for refusal, _, _ in refusals],
            "answers": [answer_message for _, answer_message, _ in refusals],
            "receipt_messages": [None if r is None else r.message for r in receipts],
            "receipt_indexes": [None if r is None else r.index for r in receipts],
        },
    )


async def refused_before(tx: Transaction, refusals: Sequence[Refusal]) -> set[UUID]:
    """Return which of these messages the peer refused before, by its own clock."""
    cursor = await tx.execute(
        "SELECT r.message_id FROM refusal AS r"
        " JOIN unnest(%b::uuid[], %b::timestamptz[]) AS t (message_id, refused_at)"
        " USING (message_id) WHERE r.refused_at < t.refused_at",
        [[refusal.message_id for refusal in refusals], [refusal.at for refusal in refusals]],
    )
    return {row[0] for row in await cursor.fetchall()}


async def refused_since(tx: Transaction, held: Mapping[UUID, datetime]) -> set[UUID]:
    """Return which messages were refused at or after these times, by the peer's clock."""
    cursor = await tx.execute(
        "SELECT r.message_id FROM refusal AS r"
        " JOIN unnest(%b::uuid[], %b::timestamptz[]) AS t (message_id, held_at) USING (message_id)"
        " WHERE r.refused_at >= t.held_at",
        [list(held), list(held.values())],
    )
    return {row[0] for row in await cursor.fetchall()}


# One that was told of before it carried receipts gets its place with the first that it carries.
_KEEP_CHECKPOINT = """
INSERT INTO peer_checkpoint (origin, size, root, note, generation, sequence, seen_at)
VALUES (%(origin)s, %(size)s, %(root)s, %(note)s, %(generation)s, %(sequence)s, %(now)s)
ON CONFLICT (origin, size) DO UPDATE
    SET generation = EXCLUDED.generation, sequence = EXCLUDED.sequence
    WHERE peer_checkpoint.sequence IS NULL
"""


async def keep_peer_checkpoint(
    tx: Transaction,
    checkpoint: Checkpoint,
    note: str,
    *,
    place: tuple[int, int] | None,
    now: datetime,
) -> None:
    """Keep a checkpoint of the peer, with the place of the receipts that rested on it first.

    The place is (generation, sequence), None where none rested on it yet.
    """
    generation, sequence = place or (None, None)
    await tx.execute(
        _KEEP_CHECKPOINT,
        {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root,
            "note": note,
            "generation": generation,
            "sequence": sequence,
            "now": now,
        },
    )
