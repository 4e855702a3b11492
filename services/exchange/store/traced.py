"""Statements about the way of one notice: its records, its messages, and what answered them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRecord:
    """A record of the notice; without an index while it waits for the sealer."""

    record_id: int
    record_index: int | None
    action: str
    notice_id: UUID | None
    message_id: UUID | None
    recorded_at: datetime
    record: bytes
    opened: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedMessage:
    """A message of ours about the notice, numbered, and the peer's answer to it."""

    message_id: UUID
    kind: str
    revision: int | None
    stream: str
    generation: int
    sequence: int
    published: bool
    envelope_hash: bytes
    answer: str | None
    answer_code: str | None
    answer_index: int | None
    answered_at: datetime | None
    answer_envelope: bytes | None


# In the order in which they were written; ids of one transaction follow each other.
_RECORDS = """
SELECT r.record_id, e.record_index, r.action, r.notice_id, r.message_id, r.recorded_at, r.record,
       o.opened
FROM record AS r
LEFT JOIN log_entry AS e USING (record_id)
LEFT JOIN opening AS o USING (record_id)
WHERE r.notice_id = %s
ORDER BY r.record_id
"""


async def records_of(tx: Transaction, notice_id: UUID) -> list[TracedRecord]:
    """Return every record that names a notice."""
    async with tx.cursor(row_factory=class_row(TracedRecord)) as cursor:
        await cursor.execute(_RECORDS, [notice_id])
        return await cursor.fetchall()


_MESSAGES = """
SELECT s.message_id, s.kind, s.revision, s.stream, s.generation, s.sequence,
       s.sequence <= o.published AS published, s.envelope_hash, s.answer, s.answer_code,
       s.answer_index, s.answered_at, e.envelope AS answer_envelope
FROM sent AS s
JOIN stream_out AS o ON o.stream = s.stream
LEFT JOIN envelope AS e ON e.message_id = s.answer_message
WHERE s.notice_id = %s
ORDER BY s.sequenced_at, s.revision
"""


async def messages_of(tx: Transaction, notice_id: UUID) -> list[TracedMessage]:
    """Return our messages about a notice, with the exact bytes of what answered each."""
    async with tx.cursor(row_factory=class_row(TracedMessage)) as cursor:
        await cursor.execute(_MESSAGES, [notice_id])
        return await cursor.fetchall()


async def kinds_of(tx: Transaction, notice_id: UUID) -> dict[UUID, str]:
    """Return the kind of each message about a notice, ours and the peer's."""
    cursor = await tx.execute(
        "SELECT message_id, kind FROM inbox WHERE notice_id = %(notice)s"
        " UNION ALL SELECT message_id, kind FROM sent WHERE notice_id = %(notice)s"
        " UNION ALL SELECT message_id, kind FROM outbox WHERE notice_id = %(notice)s",
        {"notice": notice_id},
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}
