"""Statements that count over notices, for reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficeCounts:
    """One office's missed hearings and what came of them; times in seconds, medians and tails."""

    office: str
    known_missed: int
    to_confirm: int
    dismissed: int
    sent: int
    receipts: int
    taken: int
    closed: int
    withdrawn: int
    dead: int
    hearing_to_sent_p50: float | None
    sent_to_receipt_p50: float | None
    sent_to_receipt_p95: float | None
    receipt_to_taken_p50: float | None
    receipt_to_taken_p95: float | None


# Everything is counted on the first revision: a later correction neither sends a notice a second
# time nor takes back that it was sent. What a person dismissed was no missed hearing.
_USAGE = """
SELECT n.office,
       count(*) FILTER (WHERE n.state <> 'dismissed') AS known_missed,
       count(*) FILTER (WHERE n.state = 'to_confirm') AS to_confirm,
       count(*) FILTER (WHERE n.state = 'dismissed') AS dismissed,
       count(*) FILTER (WHERE f.sequenced_at IS NOT NULL) AS sent,
       count(*) FILTER (WHERE f.answer = 'receipt') AS receipts,
       count(*) FILTER (WHERE n.acknowledged_at IS NOT NULL) AS taken,
       count(*) FILTER (WHERE n.closed_at IS NOT NULL) AS closed,
       count(*) FILTER (WHERE n.state = 'withdrawn') AS withdrawn,
       count(*) FILTER (WHERE n.state = 'dead') AS dead,
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM f.sequenced_at - n.hearing_at)) AS hearing_to_sent_p50,
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM f.receipt_at - f.sequenced_at)) AS sent_to_receipt_p50,
       percentile_cont(0.95) WITHIN GROUP (
           ORDER BY extract(epoch FROM f.receipt_at - f.sequenced_at)) AS sent_to_receipt_p95,
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM n.acknowledged_at - f.receipt_at)) AS receipt_to_taken_p50,
       percentile_cont(0.95) WITHIN GROUP (
           ORDER BY extract(epoch FROM n.acknowledged_at - f.receipt_at)) AS receipt_to_taken_p95
FROM notice AS n
LEFT JOIN (
    SELECT notice_id, sequenced_at, answer,
           CASE WHEN answer = 'receipt' THEN answered_at END AS receipt_at
    FROM sent WHERE kind = 'fta' AND revision = 1
      AND message_id NOT IN (SELECT message_id FROM renewed)
) AS f ON f.notice_id = n.notice_id
WHERE (%(since)s::timestamptz IS NULL OR n.hearing_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR n.hearing_at < %(until)s)
GROUP BY n.office
ORDER BY n.office
"""


async def usage(
    tx: Transaction, *, since: datetime | None, until: datetime | None
) -> list[OfficeCounts]:
    """Return counts of each office whose hearings fell between `since` and `until`."""
    async with tx.cursor(row_factory=class_row(OfficeCounts)) as cursor:
        await cursor.execute(_USAGE, {"since": since, "until": until})
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenNotice:
    """A notice that is not closed: since when it waits for what."""

    notice_id: UUID
    office: str
    lane: str
    state: str
    confirm: str | None
    detected_at: datetime
    recorded_at: datetime | None
    receipt_at: datetime | None
    acknowledged_at: datetime | None


# Notices that wait for something, oldest first: a receipt, a person at HHS, an outcome, or us.
_OPEN = """
SELECT notice_id, office, lane, state, confirm, detected_at, recorded_at, receipt_at,
       acknowledged_at
FROM notice
WHERE state IN ('to_confirm', 'recorded', 'sent', 'dead', 'receipted', 'acknowledged')
  AND detected_at < %(before)s
  AND (%(office)s::text IS NULL OR office = %(office)s)
  AND (%(after)s::uuid IS NULL OR notice_id > %(after)s)
ORDER BY notice_id LIMIT %(limit)s
"""


async def open_notices(
    tx: Transaction, *, before: datetime, office: str | None, after: UUID | None, limit: int
) -> Sequence[OpenNotice]:
    """Return notices detected before a moment that still wait for something."""
    async with tx.cursor(row_factory=class_row(OpenNotice)) as cursor:
        await cursor.execute(
            _OPEN, {"before": before, "office": office, "after": after, "limit": limit}
        )
        return await cursor.fetchall()
