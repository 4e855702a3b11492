"""Statements about the anchor's mark: which checkpoint is known to stand outside the database."""

from datetime import datetime

from services.ledger.store.connection import Transaction

ANCHORED_CHANNEL = "anchored"

# The mark need not survive a crash, because the next sealer sets it again: its commit waits for no
# disk. Whoever holds back what rests on a checkpoint is told.
_MARK = """
WITH loose AS (
    SELECT set_config('synchronous_commit', 'off', true)
), marked AS (
    INSERT INTO anchored (origin, size, anchored_at)
    SELECT %(origin)s, %(size)s, %(now)s FROM loose
    ON CONFLICT (singleton) DO UPDATE
        SET origin = EXCLUDED.origin, size = EXCLUDED.size, anchored_at = EXCLUDED.anchored_at
)
SELECT pg_notify('anchored', '')
"""


async def mark(tx: Transaction, *, origin: str, size: int, now: datetime) -> None:
    """Let go what rests on checkpoints of at most `size` records."""
    await tx.execute(_MARK, {"origin": origin, "size": size, "now": now}, prepare=True)


async def was_marked(tx: Transaction) -> bool:
    """Say whether anything of this store was ever anchored."""
    query = "SELECT EXISTS (SELECT FROM anchored WHERE anchored_at IS NOT NULL)"
    row = await (await tx.execute(query)).fetchone()
    return row is not None and bool(row[0])
