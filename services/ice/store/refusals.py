"""Statements about messages of ours that HHS refused: what is wrong, and whether it is mended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.exchange.beginnings import Beginning
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A message that HHS refused, with the code and field that it named.

    `state` is open until a later revision is on its way (correcting) and receipted (corrected), or
    HHS took the same bytes after all (redriven).
    """

    message_id: UUID
    notice_id: UUID
    revision: int
    notice_kind: str
    office: str
    stream: str
    lane: str
    sequence: int
    cause: str
    field: str | None
    final: bool
    refused_at: datetime
    received_at: datetime
    state: str


_REFUSED = """
SELECT * FROM (
    SELECT r.message_id, s.notice_id, s.revision, n.notice_kind, o.office, s.stream,
           split_part(s.stream, '.', 3) AS lane, s.sequence, r.code AS cause, r.field, r.final,
           r.refused_at, r.received_at,
           CASE WHEN s.answer = 'receipt' THEN 'redriven'
                WHEN EXISTS (SELECT FROM sent AS later
                             WHERE later.notice_id = s.notice_id AND later.kind = 'fta'
                               AND later.revision > s.revision AND later.answer = 'receipt')
                    THEN 'corrected'
                WHEN o.revision > s.revision AND NOT EXISTS (
                             SELECT FROM sent AS newest
                             WHERE newest.notice_id = s.notice_id AND newest.kind = 'fta'
                               AND newest.revision = o.revision AND newest.answer = 'refusal')
                    THEN 'correcting'
                ELSE 'open' END AS state
    FROM refusal AS r
    JOIN sent AS s USING (message_id)
    JOIN obligation AS o ON o.notice_id = s.notice_id
    JOIN notice_revision AS n ON n.notice_id = s.notice_id AND n.revision = s.revision
) AS refused
WHERE (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(cause)s::text IS NULL OR cause = %(cause)s)
  AND (%(office)s::text IS NULL OR office = %(office)s)
  AND (%(lane)s::text IS NULL OR lane = %(lane)s)
  AND (%(low)s::uuid IS NULL OR message_id BETWEEN %(low)s AND %(high)s
       OR notice_id BETWEEN %(low)s AND %(high)s)
ORDER BY received_at DESC, message_id LIMIT %(limit)s
"""


async def refused(
    tx: Transaction,
    *,
    state: str | None = None,
    cause: str | None = None,
    office: str | None = None,
    lane: str | None = None,
    begins: Beginning | None = None,
    limit: int = 1_000,
) -> Sequence[Refused]:
    """Return messages that were refused, newest first; `begins` is for a message or a notice."""
    low, high = begins or (None, None)
    async with tx.cursor(row_factory=class_row(Refused)) as cursor:
        await cursor.execute(
            _REFUSED,
            {
                "state": state,
                "cause": cause,
                "office": office,
                "lane": lane,
                "low": low,
                "high": high,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


# The newest message of a notice that was refused, and that no later correction or withdrawal
# answers to yet.
_UNANSWERED = """
SELECT s.message_id
FROM sent AS s
WHERE s.notice_id = %(notice_id)s AND s.kind = 'fta' AND s.answer = 'refusal'
  AND NOT EXISTS (SELECT FROM notice_revision AS n
                  WHERE n.notice_id = s.notice_id AND n.revision > s.revision
                    AND n.notice_kind IN ('CORRECTION', 'WITHDRAWAL'))
ORDER BY s.revision DESC LIMIT 1
"""


async def unanswered(tx: Transaction, notice_id: UUID) -> UUID | None:
    """Return the refused message of a notice that a correction has to name, None if there is none.

    A correction that was refused itself is the newest message, and is named without looking.
    """
    cursor = await tx.execute(_UNANSWERED, {"notice_id": notice_id})
    row = await cursor.fetchone()
    return row[0] if row else None
