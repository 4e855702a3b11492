"""Statements that read a ledger in order to verify it: everything that is stored, in order."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql

from services.ledger.store.connection import Transaction

WHOLE_LEDGER_SECONDS = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One place of the audit log and what is stored for it; `record` is None if that is gone.

    `leaf` is the leaf hash of a record whose bytes are in an archive.
    """

    index: int
    record: bytes | None
    leaf: bytes | None
    action: str
    notice_id: UUID | None
    message_id: UUID | None
    recorded_at: datetime
    opened: object


@dataclass(frozen=True, slots=True)
class Bare:
    """One place of the audit log and the bytes hashed for it, or the hash that they had."""

    index: int
    record: bytes | None
    leaf: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A stored checkpoint: the signed note, and its columns."""

    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts of one moment, to be compared with what was walked through."""

    size: int
    entries: int
    end: int
    newest_checkpoint: int
    unsealed: int


# Each row is looked up by its key, whatever the planner knows: without statistics it would read the
# whole table of records again for every part of the log.
_ENTRIES = """
SELECT e.record_index, r.record, r.leaf, r.action, r.notice_id, r.message_id, r.recorded_at,
       o.opened
FROM log_entry AS e
LEFT JOIN LATERAL (SELECT * FROM record WHERE record_id = e.record_id LIMIT 1) AS r ON true
LEFT JOIN LATERAL (SELECT opened FROM opening WHERE record_id = e.record_id LIMIT 1) AS o ON true
WHERE e.record_index >= %s AND e.record_index < %s
ORDER BY e.record_index LIMIT %s
"""


async def entries(tx: Transaction, *, first: int, end: int, limit: int) -> list[Entry]:
    """Return at most `limit` entries of the log from index `first` on, below `end`."""
    cursor = await tx.execute(_ENTRIES, [first, end, limit], binary=True)
    return [
        Entry(
            index=row[0],
            record=row[1],
            leaf=row[2],
            action=row[3],
            notice_id=row[4],
            message_id=row[5],
            recorded_at=row[6],
            opened=row[7],
        )
        for row in await cursor.fetchall()
    ]


_RECORDS = """
SELECT e.record_index, r.record, r.leaf
FROM log_entry AS e
LEFT JOIN LATERAL (SELECT * FROM record WHERE record_id = e.record_id LIMIT 1) AS r ON true
WHERE e.record_index >= %s AND e.record_index < %s
ORDER BY e.record_index LIMIT %s
"""


async def records(tx: Transaction, *, first: int, end: int, limit: int) -> list[Bare]:
    """Return at most `limit` records of the log from index `first` on, below `end`."""
    cursor = await tx.execute(_RECORDS, [first, end, limit], binary=True)
    return [Bare(row[0], row[1], row[2]) for row in await cursor.fetchall()]


async def checkpoints(tx: Transaction, *, above: int, end: int, limit: int) -> list[Sealed]:
    """Return at most `limit` checkpoints of sizes above `above` up to `end`, smallest first."""
    cursor = await tx.execute(
        "SELECT size, root, note FROM checkpoint WHERE size > %s AND size <= %s"
        " ORDER BY size LIMIT %s",
        [above, end, limit],
    )
    return [Sealed(size=row[0], root=row[1], note=row[2]) for row in await cursor.fetchall()]


async def hold_still(tx: Transaction, *, snapshot: str | None = None) -> None:
    """Let all that this transaction reads be of one moment, while the sealer may go on.

    Of its own first statement, or of the `snapshot` that another transaction shares. Its statements
    read whole tables and may take their time, and it may wait while other work is done.
    """
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if snapshot is not None:
        await tx.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
        await tx.execute(f"SET LOCAL {limit} = '{WHOLE_LEDGER_SECONDS}s'")


async def share_still(tx: Transaction) -> str:
    """Return what lets others see the moment of this transaction, while it lasts."""
    cursor = await tx.execute("SELECT pg_export_snapshot()")
    [(snapshot,)] = await cursor.fetchall()
    return str(snapshot)


_TOTALS = """
SELECT coalesce((SELECT size FROM log_head), 0),
       (SELECT count(*) FROM log_entry),
       (SELECT coalesce(max(record_index) + 1, 0) FROM log_entry),
       (SELECT coalesce(max(size), 0) FROM checkpoint),
       (SELECT count(*) FROM unsealed)
"""


async def totals(tx: Transaction) -> Totals:
    """Return the counts of this moment."""
    cursor = await tx.execute(_TOTALS)
    (row,) = await cursor.fetchall()
    return Totals(
        size=row[0], entries=row[1], end=row[2], newest_checkpoint=row[3], unsealed=row[4]
    )


# Each record is in the log, in the sealer's queue, or in a log that a restore ended: in one alone.
_STRAY = """
SELECT record_id
FROM record AS r
WHERE (EXISTS (SELECT FROM log_entry AS e WHERE e.record_id = r.record_id))::int
    + (EXISTS (SELECT FROM unsealed AS u WHERE u.record_id = r.record_id))::int
    + (EXISTS (SELECT FROM former_entry AS f WHERE f.record_id = r.record_id))::int <> 1
ORDER BY record_id LIMIT 1
"""


async def stray_record(tx: Transaction) -> int | None:
    """Return the first record that is neither in the log nor waiting, or in both."""
    cursor = await tx.execute(_STRAY)
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def tile_counts(tx: Transaction) -> dict[int, int]:
    """Return how many tiles are stored, by level."""
    cursor = await tx.execute("SELECT level, count(*) FROM tile GROUP BY level")
    return {row[0]: row[1] for row in await cursor.fetchall()}
