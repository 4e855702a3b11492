"""Statements about records whose bytes are in archives, for those who need the bytes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from schemas.canonical import format_time
from schemas.errors import NotFoundError
from services.ledger.store.connection import Transaction

# Where an archive lies beside the store, its records are there and not counted.
_AWAY = """
SELECT count(*), array_agg(DISTINCT a.made_at)
FROM record AS r
JOIN archive AS a USING (archive_id)
WHERE r.archive_id IS NOT NULL AND r.record IS NULL
  AND (%(notices)s::uuid[] IS NULL OR r.notice_id = ANY(%(notices)s::uuid[]))
  AND (%(until)s::timestamptz IS NULL OR r.recorded_at <= %(until)s)
  AND (%(end)s::bigint IS NULL OR EXISTS (
      SELECT FROM log_entry AS e WHERE e.record_id = r.record_id
      AND e.record_index >= %(first)s::bigint AND e.record_index < %(end)s::bigint))
"""


async def require(
    tx: Transaction,
    *,
    notices: Sequence[UUID] | None = None,
    until: datetime | None = None,
    first: int = 0,
    end: int | None = None,
) -> None:
    """Raise `NotFoundError` NB-3070 when the bytes of some records are in archives alone.

    Of all, or of these notices, recorded up to a moment, with an index from `first` below `end`.
    """
    cursor = await tx.execute(
        _AWAY,
        {
            "notices": None if notices is None else list(notices),
            "until": until,
            "first": first,
            "end": end,
        },
    )
    (row,) = await cursor.fetchall()
    if row[0]:
        made = ", ".join(format_time(each) for each in sorted(row[1]))
        raise NotFoundError("NB-3070", count=row[0], made=made)
