"""Statements that read the audit log for those who watch it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction, away


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A sealed record, with what this agency knows of its notice and message."""

    record_index: int
    action: str
    notice_id: UUID | None
    message_id: UUID | None
    recorded_at: datetime
    record: bytes
    away: bool
    office: str | None
    lane: str | None
    kind: str | None
    revision: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A message of ours that a batch of receipts names."""

    message_id: UUID
    notice_id: UUID | None
    kind: str | None
    revision: int | None
    office: str | None
    stream: str | None
    sequence: int | None


# Where each agency keeps the office and lane of a notice.
_NOTICES = {"ice": "obligation", "hhs": "case_file"}

# Sealed records from an index on. The office is the one on record, else the notice's as it is now.
_PAGE = """
SELECT e.record_index, r.action, r.notice_id, r.message_id, r.recorded_at, r.record,
       r.record IS NULL AS away, coalesce(w.opened -> 'office' ->> 'value', n.office) AS office,
       n.lane, m.kind, m.revision
FROM log_entry AS e
JOIN record AS r USING (record_id)
LEFT JOIN opening AS w USING (record_id)
LEFT JOIN {notices} AS n ON n.notice_id = r.notice_id
LEFT JOIN LATERAL (
    SELECT kind, revision FROM sent WHERE sent.message_id = r.message_id
    UNION ALL SELECT kind, revision FROM inbox WHERE inbox.message_id = r.message_id
    UNION ALL SELECT kind, revision FROM outbox WHERE outbox.message_id = r.message_id
    LIMIT 1
) AS m ON true
WHERE e.record_index >= %s
ORDER BY e.record_index LIMIT %s
"""


async def page(tx: Transaction, agency: str, *, first: int, limit: int) -> list[Watched]:
    """Return at most `limit` sealed records from index `first` on, in order.

    Raises `NotFoundError` NB-3070 where some of them are in an archive.
    """
    async with tx.cursor(row_factory=class_row(Watched)) as cursor:
        await cursor.execute(
            _PAGE.format(notices=_NOTICES[agency]).encode(), [first, limit], prepare=True
        )
        rows = await cursor.fetchall()
    if any(row.away for row in rows):
        await away.require(tx, first=first, end=rows[-1].record_index + 1)
    return rows


async def envelopes(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the exact bytes of these messages, by id; those that are gone are left out."""
    cursor = await tx.execute(
        "SELECT message_id, envelope FROM envelope WHERE message_id = ANY(%b)", [list(messages)]
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


_SENT = """
SELECT s.message_id, s.notice_id, s.kind, s.revision, n.office, s.stream, s.sequence
FROM sent AS s
LEFT JOIN {notices} AS n ON n.notice_id = s.notice_id
WHERE s.message_id = ANY(%b)
"""


async def sent(tx: Transaction, agency: str, messages: Sequence[UUID]) -> dict[UUID, Told]:
    """Return what we sent under these ids."""
    async with tx.cursor(row_factory=class_row(Told)) as cursor:
        await cursor.execute(_SENT.format(notices=_NOTICES[agency]).encode(), [list(messages)])
        return {row.message_id: row for row in await cursor.fetchall()}


# The size of the log before the first checkpoint that was signed at a moment or later. The clock
# may have been set back in between, so it is the first such checkpoint, not the last before it.
_SIZE_BEFORE = """
SELECT coalesce((SELECT max(size) FROM checkpoint WHERE size < f.size), 0)
FROM (SELECT min(size) AS size FROM checkpoint WHERE sealed_at >= %s) AS f
WHERE f.size IS NOT NULL
"""


async def size_before(tx: Transaction, moment: datetime) -> int | None:
    """Return how many records were sealed before a moment; None when none was sealed since."""
    row = await (await tx.execute(_SIZE_BEFORE, [moment])).fetchone()
    return None if row is None else int(row[0])


async def unsealed_before(tx: Transaction, moment: datetime) -> int:
    """Return how many records from before a moment wait for the sealer."""
    cursor = await tx.execute(
        "SELECT count(*) FROM unsealed JOIN record USING (record_id) WHERE recorded_at < %s",
        [moment],
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
