"""Statements about what was recorded of a message before some place of our log."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A record that names a message; `record` is None while its bytes are in an archive."""

    action: str
    recorded_at: datetime
    record: bytes | None


# Of this log below an index, and of logs that a restore ended before it: what was held at the time
# of a backup is applied in the log that follows.
_TOLD = """
SELECT r.action, r.recorded_at, r.record
FROM record AS r
LEFT JOIN log_entry AS e ON %(former)s::text IS NULL AND e.record_id = r.record_id
LEFT JOIN former_entry AS f ON f.record_id = r.record_id
LEFT JOIN former_log AS l ON l.origin = f.origin
WHERE r.notice_id = %(notice_id)s AND r.message_id = %(message_id)s
  AND CASE WHEN f.origin IS NULL THEN e.record_index < %(below)s
           WHEN f.origin = %(former)s THEN f.record_index < %(below)s
           ELSE l.generation < coalesce(
               (SELECT generation FROM former_log WHERE origin = %(former)s), l.generation + 1)
      END
ORDER BY r.record_id
"""


async def told_before(
    tx: Transaction, notice_id: UUID, message_id: UUID, *, below: int, former: str | None
) -> list[Told]:
    """Return the records that name a notice and its message, below an index of our log.

    `former` is the origin of a log that a restore ended; else it is the log that grows.
    """
    values = {
        "notice_id": notice_id,
        "message_id": message_id,
        "below": below,
        "former": former,
    }
    async with tx.cursor(row_factory=class_row(Told)) as cursor:
        await cursor.execute(_TOLD, values)
        return await cursor.fetchall()
