"""Statements about the way of one notice: its records, its messages, and what answered them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from services.exchange.beginnings import Beginning
from services.ledger.store import Transaction, away


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRecord:
    """A record of the notice; without an index while it waits for the sealer.

    `former` is the origin of the log that it is in, where a restore ended that log.
    """

    record_id: int
    record_index: int | None
    former: str | None
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
SELECT r.record_id, coalesce(e.record_index, f.record_index) AS record_index, f.origin AS former,
       r.action, r.notice_id, r.message_id, r.recorded_at, r.record, o.opened
FROM record AS r
LEFT JOIN log_entry AS e USING (record_id)
LEFT JOIN former_entry AS f USING (record_id)
LEFT JOIN opening AS o USING (record_id)
WHERE r.notice_id = %s
ORDER BY r.record_id
"""


async def records_of(tx: Transaction, notice_id: UUID) -> list[TracedRecord]:
    """Return every record that names a notice. Raises `NotFoundError` NB-3070 for archived ones."""
    await away.require(tx, notices=[notice_id])
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


async def kinds_of(tx: Transaction, notice_id: UUID) -> dict[UUID, tuple[str, int | None]]:
    """Return kind and revision of each message about a notice, ours and the peer's."""
    cursor = await tx.execute(
        "SELECT message_id, kind, revision FROM inbox WHERE notice_id = %(notice)s"
        " UNION ALL SELECT message_id, kind, revision FROM sent WHERE notice_id = %(notice)s"
        " UNION ALL SELECT message_id, kind, revision FROM outbox WHERE notice_id = %(notice)s",
        {"notice": notice_id},
    )
    return {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}


# Notices on record between two ids, or that a dead letter claims to be about.
_NAMED = """
SELECT notice_id FROM (
    (SELECT DISTINCT notice_id FROM record
     WHERE notice_id BETWEEN %(low)s AND %(high)s ORDER BY notice_id LIMIT 2)
    UNION
    (SELECT DISTINCT notice_id FROM dead_letter
     WHERE notice_id BETWEEN %(low)s AND %(high)s ORDER BY notice_id LIMIT 2)
) AS found
ORDER BY notice_id LIMIT 2
"""


async def named(tx: Transaction, begins: Beginning) -> list[UUID]:
    """Return the notices heard of whose ids begin so, at most two."""
    cursor = await tx.execute(_NAMED, begins._asdict())
    return [row[0] for row in await cursor.fetchall()]


async def set_aside(tx: Transaction, notice_id: UUID) -> list[UUID]:
    """Return the open dead letters that name a notice, whoever vouches for them."""
    cursor = await tx.execute(
        "SELECT dead_id FROM dead_letter WHERE notice_id = %s AND state = 'open' ORDER BY first_at",
        [notice_id],
    )
    return [row[0] for row in await cursor.fetchall()]


async def arrived_state(tx: Transaction, notice_id: UUID) -> str | None:
    """Return where the newest message of the peer about a notice stands: applied, held, refused."""
    cursor = await tx.execute(
        "SELECT state FROM inbox WHERE notice_id = %s ORDER BY revision DESC NULLS LAST LIMIT 1",
        [notice_id],
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])
