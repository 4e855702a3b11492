"""Statements that count: what waits, is late, missing or set aside."""

from dataclasses import dataclass
from datetime import datetime

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where one agency's exchange stands."""

    unsent: int
    unanswered: int
    overdue: int
    oldest_unanswered: datetime | None
    republish: int
    gap_sequences: int
    voided_sequences: int
    held: int
    dead: int
    alarms: int
    conflicts: int
    unsealed: int
    ledger_size: int


_READ = """
SELECT (SELECT count(*) FROM outbox),
       (SELECT count(*) FROM sent WHERE answer IS NULL),
       (SELECT count(*) FROM sent WHERE answer IS NULL AND overdue_at IS NOT NULL),
       (SELECT min(sequenced_at) FROM sent WHERE answer IS NULL),
       (SELECT count(*) FROM republish),
       (SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM gap),
       (SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM voided),
       (SELECT count(*) FROM inbox WHERE state = 'held'),
       (SELECT count(*) FROM dead_letter WHERE state = 'open'),
       (SELECT count(*) FROM alarm WHERE cleared_at IS NULL),
       (SELECT count(*) FROM conflict WHERE resolved_at IS NULL),
       (SELECT count(*) FROM unsealed),
       (SELECT coalesce(max(record_index) + 1, 0) FROM log_entry)
"""


async def read(tx: Transaction) -> Standing:
    """Return the counts as of this transaction."""
    cursor = await tx.execute(_READ)
    row = await cursor.fetchone()
    assert row is not None
    return Standing(
        unsent=row[0],
        unanswered=row[1],
        overdue=row[2],
        oldest_unanswered=row[3],
        republish=row[4],
        gap_sequences=int(row[5]),
        voided_sequences=int(row[6]),
        held=row[7],
        dead=row[8],
        alarms=row[9],
        conflicts=row[10],
        unsealed=row[11],
        ledger_size=row[12],
    )


async def restored(tx: Transaction) -> bool:
    """Say whether the store was made from a backup that nobody has adopted."""
    cursor = await tx.execute("SELECT EXISTS (SELECT FROM restoration WHERE adopted_at IS NULL)")
    row = await cursor.fetchone()
    return bool(row and row[0])
