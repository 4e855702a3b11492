"""Statements of an adoption: what a restored store is, and how its log and streams end."""

from dataclasses import dataclass
from datetime import datetime

from psycopg import sql
from psycopg.rows import class_row

from services.backup.store.snapshot import FROZEN
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """A restore of this store; `generation` once a person began to adopt it.

    A store that went back without a restore of ours has no digest; `anchor` is the note that it is
    behind, or that it contradicts, `found` its own newest one.
    """

    restored_at: datetime
    backup_made_at: datetime
    backup_digest: bytes | None
    generation: int | None
    adopted_at: datetime | None
    anchor: str | None = None
    found: str | None = None


async def restorations(tx: Transaction) -> list[Restoration]:
    """Return every restore of this store, newest first."""
    async with tx.cursor(row_factory=class_row(Restoration)) as cursor:
        await cursor.execute(
            "SELECT restored_at, backup_made_at, backup_digest, generation, adopted_at,"
            " anchor, found"
            " FROM restoration ORDER BY restored_at DESC"
        )
        return await cursor.fetchall()


_WENT_BACK = """
INSERT INTO restoration (restored_at, backup_made_at, anchor, found)
SELECT %(now)s, coalesce((SELECT max(sealed_at) FROM checkpoint), %(now)s), %(anchor)s, %(found)s
"""


async def went_back(
    tx: Transaction, *, anchor: str | None, found: str | None, now: datetime
) -> None:
    """Note that the store is not what its anchor says, with both notes; it waits for adoption."""
    await tx.execute(_WENT_BACK, {"anchor": anchor, "found": found, "now": now})


async def decide(tx: Transaction, generation: int) -> None:
    """Note the generation that an adoption goes on with, before anything else changes."""
    await tx.execute(
        "UPDATE restoration SET generation = %s WHERE adopted_at IS NULL", [generation]
    )


async def thaw(tx: Transaction) -> None:
    """Let the store be changed again."""
    for name in FROZEN:
        await tx.execute(
            sql.SQL("DROP TRIGGER IF EXISTS restored ON {}").format(sql.Identifier(name))
        )


async def adopted(tx: Transaction, now: datetime) -> None:
    """Note that a person adopted what was restored."""
    await tx.execute("UPDATE restoration SET adopted_at = %s WHERE adopted_at IS NULL", [now])


async def lock_log(tx: Transaction, key: int) -> bool:
    """Keep sealers out until the transaction ends; False while one is at work."""
    await tx.execute("SET LOCAL statement_timeout = '1h'")
    row = await (await tx.execute("SELECT pg_try_advisory_xact_lock(%s)", [key])).fetchone()
    return row is not None and bool(row[0])


# The log that ends: everything under its origin, each table once.
_END_LOG = (
    "INSERT INTO former_log (origin, generation, size, frontier, root, ended_at)"
    " SELECT origin, %(generation)s, size, frontier, root, %(now)s FROM log_head",
    "INSERT INTO former_entry (origin, record_index, record_id)"
    " SELECT %(origin)s, record_index, record_id FROM log_entry",
    "INSERT INTO former_tile (origin, level, n, hashes)"
    " SELECT %(origin)s, level, n, hashes FROM tile",
    "INSERT INTO former_checkpoint (origin, size, root, note, sealed_at)"
    " SELECT %(origin)s, size, root, note, sealed_at FROM checkpoint",
    "INSERT INTO former_answer_batch (origin, first_index, size, message_id)"
    " SELECT %(origin)s, first_index, size, message_id FROM answer_batch",
)
_EMPTY_LOG = ("log_entry", "tile", "checkpoint", "log_head", "answer_batch")
_APPEND_ONLY = ("log_entry", "tile", "checkpoint")


async def end_log(tx: Transaction, *, origin: str, generation: int, now: datetime) -> None:
    """Keep the log as a former one, and leave an empty one in its place."""
    for statement in _END_LOG:
        await tx.execute(statement, {"origin": origin, "generation": generation, "now": now})
    for name in _APPEND_ONLY:
        await tx.execute(
            sql.SQL("ALTER TABLE {} DISABLE TRIGGER append_only").format(sql.Identifier(name))
        )
    for name in _EMPTY_LOG:
        await tx.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(name)))
    for name in _APPEND_ONLY:
        await tx.execute(
            sql.SQL("ALTER TABLE {} ENABLE TRIGGER append_only").format(sql.Identifier(name))
        )


# What may not have reached the other agency: unanswered messages, and control that the bus was
# never given. The same bytes go again; what came before is answered again.
_SEND_AGAIN = """
INSERT INTO republish (stream, generation, sequence, cause, requested_at)
SELECT s.stream, s.generation, s.sequence, 'restore', %(now)s
FROM sent AS s JOIN stream_out AS o USING (stream, generation)
WHERE s.answer IS NULL OR s.sequence > o.published
ON CONFLICT DO NOTHING
"""


async def begin_streams(tx: Transaction, *, generation: int, now: datetime) -> int:
    """Begin every outgoing stream anew; returns how many messages of the old one go again."""
    again = await tx.execute(_SEND_AGAIN, {"now": now})
    await tx.execute(
        "UPDATE stream_out SET generation = %s, next_sequence = 1, published = 0", [generation]
    )
    # What rests on a checkpoint of the log that ended waits for no anchor any more.
    await tx.execute("UPDATE outbox SET checkpoint_size = NULL")
    return again.rowcount


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerLog:
    """A log that a restore ended."""

    origin: str
    generation: int
    size: int
    root: bytes
    ended_at: datetime


async def former_logs(tx: Transaction) -> list[FormerLog]:
    """Return the logs that ended, oldest first."""
    async with tx.cursor(row_factory=class_row(FormerLog)) as cursor:
        await cursor.execute(
            "SELECT origin, generation, size, root, ended_at FROM former_log ORDER BY ended_at"
        )
        return await cursor.fetchall()
