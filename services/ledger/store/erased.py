"""Statements about contents and records that are gone."""

from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store.connection import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One erasure and the record that tells of it."""

    erasure_id: UUID
    policy: str
    record: bytes
    record_index: int | None


async def batches(tx: Transaction) -> list[Batch]:
    """Return every erasure, oldest first."""
    async with tx.cursor(row_factory=class_row(Batch)) as cursor:
        await cursor.execute(
            "SELECT e.erasure_id, e.policy, r.record, l.record_index FROM erasure AS e"
            " JOIN record AS r USING (record_id) LEFT JOIN log_entry AS l USING (record_id)"
            " ORDER BY e.erased_at, e.erasure_id"
        )
        return await cursor.fetchall()


_COUNTED = """
SELECT p.erasure_id, a.message_id IS NOT NULL AS archived, count(*)
FROM payload AS p
LEFT JOIN archived AS a USING (message_id)
WHERE p.body IS NULL
GROUP BY 1, 2
"""


async def counted(tx: Transaction) -> tuple[dict[UUID, int], int, int]:
    """Return contents that are gone: by erasure, moved to archives, and for no reason known."""
    cursor = await tx.execute(_COUNTED)
    found: dict[UUID, int] = {}
    archived = unexplained = 0
    for erasure_id, is_archived, count in await cursor.fetchall():
        if erasure_id is not None:
            found[erasure_id] = found.get(erasure_id, 0) + count
        elif is_archived:
            archived += count
        else:
            unexplained += count
    return found, archived, unexplained


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """An archive that records are in: how many are away, and the record that tells of it."""

    archive_id: UUID
    digest: bytes
    away: int
    record: bytes | None


_MOVED = """
SELECT m.archive_id, coalesce(a.digest, '') AS digest, m.away, r.record
FROM (
    SELECT archive_id, count(*) AS away FROM public.record
    WHERE archive_id IS NOT NULL GROUP BY archive_id
) AS m
LEFT JOIN archive AS a USING (archive_id)
LEFT JOIN record AS r ON r.record_id = a.record_id
ORDER BY a.made_at
"""


async def moved(tx: Transaction) -> list[Moved]:
    """Return the archives that hold records of ours, oldest first; also those of unknown ids."""
    async with tx.cursor(row_factory=class_row(Moved)) as cursor:
        await cursor.execute(_MOVED)
        return await cursor.fetchall()
