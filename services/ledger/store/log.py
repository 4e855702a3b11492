"""Statements about the audit log: head, entries, tiles, checkpoints, and what waits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from schemas.errors import EvidenceError
from schemas.proof import leaf_hash
from services.ledger.store.away import require
from services.ledger.store.connection import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the tree stands: its size, its root, and the frontier that appending needs."""

    origin: str
    size: int
    frontier: list[bytes]
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A committed record that no checkpoint covers yet; `owes` waits for its receipt."""

    record_id: int
    record: bytes
    message_id: UUID | None
    owes: str | None


_HEAD = "SELECT origin, size, frontier, root FROM log_head"


async def head(tx: Transaction, *, lock: bool = False) -> Head | None:
    """Return the head, or None before the first seal; `lock` keeps other sealers out."""
    cursor = await tx.execute(_HEAD + " FOR UPDATE" if lock else _HEAD)
    row = await cursor.fetchone()
    if row is None:
        return None
    return Head(origin=row[0], size=row[1], frontier=list(row[2]), root=row[3])


async def size_of(tx: Transaction, former: str | None = None) -> int:
    """Return the size of the log that grows, or of the `former` log of that origin; 0 for none."""
    cursor = await tx.execute(
        "SELECT size FROM log_head WHERE %(former)s::text IS NULL"
        " UNION ALL SELECT size FROM former_log WHERE origin = %(former)s",
        {"former": former},
    )
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def begin(tx: Transaction, *, origin: str, root: bytes) -> Head:
    """Make the head of an empty log; returns it locked, as it is if another was faster."""
    cursor = await tx.execute(
        "INSERT INTO log_head (origin, size, frontier, root) VALUES (%s, 0, '{}', %s)"
        " ON CONFLICT (singleton) DO UPDATE SET origin = log_head.origin"
        " RETURNING origin, size, frontier, root",
        [origin, root],
    )
    (row,) = await cursor.fetchall()
    return Head(origin=row[0], size=row[1], frontier=list(row[2]), root=row[3])


# What is committed and not sealed, in the order of record ids. An id below those sealed before may
# still appear: its transaction committed late, and it is simply next.
_WAITING = """
SELECT u.record_id, r.record, r.message_id, u.owes
FROM unsealed AS u
JOIN record AS r USING (record_id)
WHERE u.record_id > %s
ORDER BY u.record_id LIMIT %s
"""


async def waiting(tx: Transaction, *, after: int, limit: int) -> list[Waiting]:
    """Return at most `limit` records to seal, with ids above `after`."""
    # Prepared at once: the plan is always the same, and latency hangs on it.
    cursor = await tx.execute(_WAITING, [after, limit], prepare=True)
    return [
        Waiting(record_id=row[0], record=row[1], message_id=row[2], owes=row[3])
        for row in await cursor.fetchall()
    ]


@dataclass(slots=True)
class Numbering:
    """A batch that is being numbered: the size of the log before it, once that is known."""

    size: int = 0


@contextmanager
def gapless() -> Iterator[Numbering]:
    """Raise `EvidenceError` NB-3005 when a place or record that is numbered is in the log already.

    Stands around the whole transaction: in a pipelined one a statement may fail at its end.
    """
    numbering = Numbering()
    try:
        yield numbering
    except UniqueViolation as error:
        raise EvidenceError("NB-3005", size=numbering.size) from error


async def add_tiles(tx: Transaction, tiles: Sequence[tuple[int, int, bytes]]) -> None:
    """Keep full tiles: level, number, and 256 hashes one after the other."""
    if tiles:
        await tx.execute(
            "INSERT INTO tile (level, n, hashes) SELECT * FROM"
            " unnest(%b::smallint[], %b::bigint[], %b::bytea[])",
            [[t[0] for t in tiles], [t[1] for t in tiles], [t[2] for t in tiles]],
        )


SEALED_CHANNEL = "sealed"

# One statement: records leave the queue as they get their places, the first one that of the size
# before, and the head moves as its checkpoint is kept. None is ever without the others. Whoever
# follows the log is told once all are committed.
_EXTEND = """
WITH left_queue AS (
    DELETE FROM unsealed WHERE record_id = ANY(%(records)b::bigint[])
), numbered AS (
    INSERT INTO log_entry (record_index, record_id)
    SELECT %(before)s + number - 1, record_id
    FROM unnest(%(records)b::bigint[]) WITH ORDINALITY AS t (record_id, number)
), moved AS (
    UPDATE log_head SET size = %(size)s, frontier = %(frontier)b::bytea[], root = %(root)b
), kept AS (
    INSERT INTO checkpoint (size, root, note, sealed_at)
    VALUES (%(size)s, %(root)b, %(note)s, %(sealed_at)s)
)
SELECT pg_notify('sealed', '')
"""


async def extend(
    tx: Transaction,
    *,
    before: int,
    records: Sequence[int],
    frontier: Sequence[bytes],
    root: bytes,
    note: str,
    sealed_at: datetime,
) -> None:
    """Append records, by their ids and in the order given, to a log of `before` records.

    The head moves, and the checkpoint that says so is kept. Inside `gapless`.
    """
    await tx.execute(
        _EXTEND,
        {
            "before": before,
            "records": list(records),
            "size": before + len(records),
            "frontier": list(frontier),
            "root": root,
            "note": note,
            "sealed_at": sealed_at,
        },
        prepare=True,
    )


# The same of the log that grows, and of one that a restore ended.
_TILES = """
SELECT level, n, hashes FROM tile
WHERE (level, n) IN (SELECT * FROM unnest(%(levels)b::smallint[], %(numbers)b::bigint[]))
"""
_FORMER_TILES = """
SELECT level, n, hashes FROM former_tile
WHERE origin = %(former)s
  AND (level, n) IN (SELECT * FROM unnest(%(levels)b::smallint[], %(numbers)b::bigint[]))
"""


async def tiles(
    tx: Transaction, wanted: Sequence[tuple[int, int]], *, former: str | None = None
) -> dict[tuple[int, int], bytes]:
    """Return the hashes of those of the wanted tiles (level, number) that are full.

    `former` is the origin of a log that a restore ended; else it is the log that grows.
    """
    if not wanted:
        return {}
    cursor = await tx.execute(
        _TILES if former is None else _FORMER_TILES,
        {
            "former": former,
            "levels": [level for level, _ in wanted],
            "numbers": [n for _, n in wanted],
        },
    )
    return {(row[0], row[1]): row[2] for row in await cursor.fetchall()}


# The bytes of a range of the log, in index order.
_RECORDS = """
SELECT e.record_index, r.record, r.leaf
FROM log_entry AS e
JOIN record AS r USING (record_id)
WHERE e.record_index >= %(first)s AND e.record_index < %(end)s
ORDER BY e.record_index
"""
_FORMER_RECORDS = """
SELECT e.record_index, r.record, r.leaf
FROM former_entry AS e
JOIN record AS r USING (record_id)
WHERE e.origin = %(former)s AND e.record_index >= %(first)s AND e.record_index < %(end)s
ORDER BY e.record_index
"""


async def records(tx: Transaction, *, first: int, end: int) -> list[tuple[int, bytes]]:
    """Return index and bytes of the records from `first` to `end - 1`.

    Raises `NotFoundError` NB-3070 where some of them are in an archive.
    """
    cursor = await tx.execute(_RECORDS, {"first": first, "end": end})
    rows = await cursor.fetchall()
    if any(row[1] is None for row in rows):
        await require(tx, first=first, end=end)
    return [(row[0], row[1]) for row in rows]


async def leaves(
    tx: Transaction, *, first: int, end: int, former: str | None = None
) -> list[tuple[int, bytes]]:
    """Return index and leaf hash of the records from `first` to `end - 1`, wherever they are.

    `former` as for `tiles`.
    """
    cursor = await tx.execute(
        _RECORDS if former is None else _FORMER_RECORDS,
        {"first": first, "end": end, "former": former},
    )
    return [
        (row[0], row[2] if row[1] is None else leaf_hash(row[1])) for row in await cursor.fetchall()
    ]


async def index_of(tx: Transaction, record_id: int) -> int | None:
    """Return a record's place in the audit log, or None while it waits for the sealer."""
    cursor = await tx.execute(
        "SELECT record_index FROM log_entry WHERE record_id = %s", [record_id]
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def checkpoint_covering(tx: Transaction, size: int) -> tuple[int, str] | None:
    """Return size and note of the first checkpoint of at least `size` records."""
    cursor = await tx.execute(
        "SELECT size, note FROM checkpoint WHERE size >= %s ORDER BY size LIMIT 1", [size]
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRow:
    """A stored checkpoint: its columns and its signed note."""

    size: int
    root: bytes
    note: str
    sealed_at: datetime


async def checkpoint_at(tx: Transaction, at: datetime) -> CheckpointRow | None:
    """Return the newest checkpoint that was sealed at or before a moment, of a former log too."""
    async with tx.cursor(row_factory=class_row(CheckpointRow)) as cursor:
        await cursor.execute(
            "SELECT size, root, note, sealed_at FROM ("
            " (SELECT size, root, note, sealed_at FROM checkpoint"
            "  WHERE sealed_at <= %(at)s ORDER BY size DESC LIMIT 1)"
            " UNION ALL"
            " (SELECT size, root, note, sealed_at FROM former_checkpoint"
            "  WHERE sealed_at <= %(at)s ORDER BY sealed_at DESC LIMIT 1)"
            ") AS sealed ORDER BY sealed_at DESC LIMIT 1",
            {"at": at},
        )
        return await cursor.fetchone()


async def first_recorded(tx: Transaction, notice_id: UUID | None = None) -> datetime | None:
    """Return when the first record was made, of all or of one notice; None without any."""
    cursor = await tx.execute(
        "SELECT recorded_at FROM record"
        " WHERE %(notice_id)s::uuid IS NULL OR notice_id = %(notice_id)s"
        " ORDER BY record_id LIMIT 1",
        {"notice_id": notice_id},
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


# A checkpoint may be shown once it is anchored.
_NEWEST = """
SELECT size, note FROM checkpoint
WHERE %(former)s::text IS NULL AND size <= (SELECT size FROM anchored)
UNION ALL
SELECT size, note FROM former_checkpoint WHERE origin = %(former)s
ORDER BY size DESC LIMIT 1
"""


async def newest_checkpoint(
    tx: Transaction, *, former: str | None = None
) -> tuple[int, str] | None:
    """Return size and note of the newest checkpoint that may be shown, None where there is none.

    `former` as for `tiles`.
    """
    cursor = await tx.execute(_NEWEST, {"former": former})
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])
