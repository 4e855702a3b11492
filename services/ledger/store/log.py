"""Statements about the audit log: head, entries, tiles, checkpoints, and what waits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.errors import UniqueViolation

from schemas.errors import EvidenceError
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


# Numbers a batch: its first record gets the size as its index. One statement, so that numbering
# and leaving the queue cannot part.
_NUMBER = """
WITH left_queue AS (
    DELETE FROM unsealed WHERE record_id = ANY(%(records)b::bigint[])
)
INSERT INTO log_entry (record_index, record_id)
SELECT %(size)s + number - 1, record_id
FROM unnest(%(records)b::bigint[]) WITH ORDINALITY AS t (record_id, number)
"""


async def number(tx: Transaction, *, size: int, records: Sequence[int]) -> None:
    """Give records their indexes from `size` on, in the order given.

    Raises `EvidenceError` NB-3005 when one of the places or records is in the log already.
    """
    try:
        await tx.execute(_NUMBER, {"size": size, "records": list(records)}, prepare=True)
    except UniqueViolation as error:
        raise EvidenceError("NB-3005", size=size) from error


async def add_tiles(tx: Transaction, tiles: Sequence[tuple[int, int, bytes]]) -> None:
    """Keep full tiles: level, number, and 256 hashes one after the other."""
    if tiles:
        await tx.execute(
            "INSERT INTO tile (level, n, hashes) SELECT * FROM"
            " unnest(%b::smallint[], %b::bigint[], %b::bytea[])",
            [[t[0] for t in tiles], [t[1] for t in tiles], [t[2] for t in tiles]],
        )


# The head moves and its checkpoint is kept in one statement: neither is ever without the other.
_MOVE = """
WITH moved AS (
    UPDATE log_head SET size = %(size)s, frontier = %(frontier)b::bytea[], root = %(root)b
)
INSERT INTO checkpoint (size, root, note, sealed_at)
VALUES (%(size)s, %(root)b, %(note)s, %(sealed_at)s)
"""


async def move_head(
    tx: Transaction,
    *,
    size: int,
    frontier: Sequence[bytes],
    root: bytes,
    note: str,
    sealed_at: datetime,
) -> None:
    """Move the head to a new size, and keep the checkpoint that says so."""
    await tx.execute(
        _MOVE,
        {
            "size": size,
            "frontier": list(frontier),
            "root": root,
            "note": note,
            "sealed_at": sealed_at,
        },
        prepare=True,
    )


async def tiles(tx: Transaction, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """Return the hashes of those of the wanted tiles (level, number) that are full."""
    if not wanted:
        return {}
    cursor = await tx.execute(
        "SELECT level, n, hashes FROM tile WHERE (level, n) IN"
        " (SELECT * FROM unnest(%b::smallint[], %b::bigint[]))",
        [[level for level, _ in wanted], [n for _, n in wanted]],
    )
    return {(row[0], row[1]): row[2] for row in await cursor.fetchall()}


# The bytes of a range of the log, in index order.
_RECORDS = """
SELECT e.record_index, r.record
FROM log_entry AS e
JOIN record AS r USING (record_id)
WHERE e.record_index >= %s AND e.record_index < %s
ORDER BY e.record_index
"""


async def records(tx: Transaction, *, first: int, end: int) -> list[tuple[int, bytes]]:
    """Return index and bytes of the records from `first` to `end - 1`."""
    cursor = await tx.execute(_RECORDS, [first, end])
    return [(row[0], row[1]) for row in await cursor.fetchall()]


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


async def newest_checkpoint(tx: Transaction) -> tuple[int, str] | None:
    """Return size and note of the newest checkpoint, or None before the first seal."""
    cursor = await tx.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1")
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])
