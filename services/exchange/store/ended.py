"""Statements about logs of the peer that a restore ended, and the receipts that ended with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Voided:
    """A message of ours whose receipt is void, and the receipt."""

    message_id: UUID
    notice_id: UUID | None
    stream: str
    generation: int
    sequence: int
    answer_message: UUID
    answer_index: int


async def keep(
    tx: Transaction, *, origin: str, size: int, root: bytes, note: str, now: datetime
) -> bool:
    """Keep where a log of the peer ended; False if it is known."""
    cursor = await tx.execute(
        "INSERT INTO peer_ended (origin, size, root, note, ended_at) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (origin) DO NOTHING RETURNING TRUE",
        [origin, size, root, note, now],
    )
    return await cursor.fetchone() is not None


async def size_of(tx: Transaction, origin: str) -> int | None:
    """Return the size at which a log of the peer ended, None for one that goes on."""
    cursor = await tx.execute("SELECT size FROM peer_ended WHERE origin = %s", [origin])
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


# Streams of the peer have the generation of its log. A receipt that was said later is of records
# that the restored store still had.
_VOID = """
WITH lost AS (
    SELECT s.message_id, s.notice_id, s.stream, s.generation, s.sequence, s.answer_message,
           s.answer_index
    FROM sent AS s JOIN inbox AS i ON i.message_id = s.answer_message
    WHERE s.answer = 'receipt' AND s.answer_index >= %(size)s AND i.generation = %(generation)s
), kept AS (
    INSERT INTO voided_receipt (message_id, answer_message, answer_index, origin, voided_at)
    SELECT message_id, answer_message, answer_index, %(origin)s, %(now)s FROM lost
    ON CONFLICT DO NOTHING
), opened AS (
    UPDATE sent SET answer = NULL, answer_code = NULL, answer_message = NULL, answer_index = NULL,
                    answered_at = NULL
    FROM lost WHERE sent.message_id = lost.message_id
)
SELECT message_id, notice_id, stream, generation, sequence, answer_message, answer_index
FROM lost ORDER BY stream, generation, sequence
"""


async def void(
    tx: Transaction, *, origin: str, generation: int, size: int, now: datetime
) -> list[Voided]:
    """Make void the receipts that rested on records from `size` on; their messages are open."""
    values = {"origin": origin, "generation": generation, "size": size, "now": now}
    async with tx.cursor(row_factory=class_row(Voided)) as cursor:
        await cursor.execute(_VOID, values)
        return await cursor.fetchall()


async def taken_since(tx: Transaction, generation: int) -> Sequence[tuple[UUID, bytes]]:
    """Return (message id, bytes) of receipts of later generations that were taken already."""
    cursor = await tx.execute(
        "SELECT i.message_id, e.envelope FROM inbox AS i JOIN envelope AS e USING (message_id)"
        " WHERE i.kind = 'receipts' AND i.state = 'control' AND i.generation > %s"
        " ORDER BY i.generation, i.sequence",
        [generation],
    )
    return [(row[0], bytes(row[1])) for row in await cursor.fetchall()]
