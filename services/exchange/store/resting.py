"""Statements about what was built upon our checkpoints, and whether these are there."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Something that names a checkpoint of ours which is not there.

    `what` is the table. `end` is where that log ends here, None for a log that is not here at all;
    `name` is whose cosignature it is, or the archive's id; `first_index` where answers begin.
    """

    what: str
    origin: str
    size: int
    name: str
    first_index: int
    end: int | None


# Everything that was made from a checkpoint of the log that grows, or of one that a restore ended,
# without that checkpoint; the smallest size first, and there what others signed.
_ALONE = """
WITH log AS (
    SELECT origin, size AS "end" FROM log_head
    UNION ALL SELECT origin, size FROM former_log
), kept AS (
    SELECT h.origin, c.size FROM checkpoint AS c CROSS JOIN log_head AS h
    UNION ALL SELECT origin, size FROM former_checkpoint
), resting AS (
    SELECT 'cosignature' AS what, origin, size, name, 0::bigint AS first_index FROM cosignature
    UNION ALL
    SELECT 'answer_batch', coalesce(h.origin, ''), b.size, '', b.first_index
    FROM answer_batch AS b LEFT JOIN log_head AS h ON true
    UNION ALL
    SELECT 'answer_batch', origin, size, '', first_index FROM former_answer_batch
    UNION ALL
    SELECT 'archive', origin, size, archive_id::text, 0 FROM archive
    UNION ALL
    SELECT 'anchored', origin, size, '', 0 FROM anchored WHERE size > 0
)
SELECT r.what, r.origin, r.size, r.name, r.first_index, l."end"
FROM resting AS r
LEFT JOIN log AS l USING (origin)
LEFT JOIN kept AS k USING (origin, size)
WHERE k.size IS NULL AND (%(origin)s::text IS NULL OR r.origin = %(origin)s)
ORDER BY r.size, r.origin, r.what <> 'cosignature', r.what DESC, r.name, r.first_index LIMIT 1
"""


async def alone(tx: Transaction, origin: str | None) -> Alone | None:
    """Return the first thing whose checkpoint is missing, of all our logs or of one."""
    async with tx.cursor(row_factory=class_row(Alone)) as cursor:
        await cursor.execute(_ALONE, {"origin": origin})
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A log that a restore ended, as it is kept."""

    origin: str
    size: int
    root: bytes


async def ended(tx: Transaction) -> list[Ended]:
    """Return the logs that restores ended, by name."""
    async with tx.cursor(row_factory=class_row(Ended)) as cursor:
        await cursor.execute("SELECT origin, size, root FROM former_log ORDER BY origin")
        return await cursor.fetchall()


async def adoptions(tx: Transaction) -> Sequence[bytes]:
    """Return the records of adoptions, whose bytes never leave the store."""
    cursor = await tx.execute(
        "SELECT record FROM record WHERE action = 'ledger.adopted' AND record IS NOT NULL"
        " ORDER BY record_id"
    )
    return [bytes(row[0]) for row in await cursor.fetchall()]
