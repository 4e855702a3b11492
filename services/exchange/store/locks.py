"""Statements about locks that processes hold for as long as they live."""

from services.ledger.store import Transaction

# The numbers of all advisory locks of this database that a session holds now, of those that are one
# number (`objsubid` 1, in halves) and not two.
_HELD = """
SELECT (classid::bigint << 32) | objid::bigint
FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def held(tx: Transaction) -> frozenset[int]:
    """Return the number of each advisory lock that somebody holds; waits for none, takes none."""
    return frozenset(row[0] for row in await (await tx.execute(_HELD)).fetchall())
