"""Statements about the peer's answers to our messages."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

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


async def refused(
    tx: Transaction,
    *,
    message_id: UUID,
    envelope_hash: bytes,
    answer_message: UUID,
    code: str,
    now: datetime,
) -> tuple[UUID | None, str] | None:
    """Note a refusal of exactly these bytes; returns (notice id, kind), or None if unknown."""
    cursor = await tx.execute(
        "UPDATE sent SET answer = 'refusal', answer_code = %s, answered_at = %s,"
        " answer_message = %s, answer_index = NULL"
        " WHERE message_id = %s AND envelope_hash = %s AND answer IS NULL"
        " RETURNING notice_id, kind, stream, generation, sequence",
        [code, now, answer_message, message_id, envelope_hash],
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    await tx.execute(
        "DELETE FROM republish WHERE stream = %s AND generation = %s AND sequence = %s",
        [row[2], row[3], row[4]],
    )
    return row[0], row[1]


async def keep_peer_checkpoint(
    tx: Transaction, *, origin: str, size: int, root: bytes, note: str, now: datetime
) -> bytes:
    """Keep a checkpoint of the peer; returns the root known for its size, which may be another."""
    await tx.execute(
        "INSERT INTO peer_checkpoint (origin, size, root, note, seen_at)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (origin, size) DO NOTHING",
        [origin, size, root, note, now],
    )
    cursor = await tx.execute(
        "SELECT root FROM peer_checkpoint WHERE origin = %s AND size = %s", [origin, size]
    )
    row = await cursor.fetchone()
    assert row is not None
    return bytes(row[0])
