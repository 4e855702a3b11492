"""Statements about party files: our own, and those of the peer that a person trusted."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyRow:
    """A stored party file: exact bytes, and whether it is the newest of its agency."""

    agency: str
    fingerprint: str
    party: bytes
    status: str
    trusted_at: datetime


async def all_parties(tx: Transaction) -> list[PartyRow]:
    """Return every stored party file, the newest of each agency first."""
    cursor = await tx.execute(
        "SELECT agency, fingerprint, party, status, trusted_at FROM party"
        " ORDER BY agency, (status = 'current') DESC, trusted_at DESC"
    )
    return [
        PartyRow(agency=row[0], fingerprint=row[1], party=row[2], status=row[3], trusted_at=row[4])
        for row in await cursor.fetchall()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyRecord:
    """A record that names a party file by its fingerprint; `former` in a log that ended."""

    recorded_at: datetime
    record_index: int | None
    former: bool
    record: bytes


# The partial index of migration 0009 answers this, however large the log is.
_RECORDS = """
SELECT r.recorded_at, e.record_index, f.record_id IS NOT NULL AS former, r.record
FROM record AS r
LEFT JOIN log_entry AS e USING (record_id)
LEFT JOIN former_entry AS f USING (record_id)
WHERE r.action = %(action)s AND r.action IN ('party.published', 'party.trusted', 'content.erased')
ORDER BY r.record_id
"""


async def records(tx: Transaction, action: str) -> list[PartyRecord]:
    """Return the records of one action (`party.published`, `party.trusted`), the oldest first."""
    async with tx.cursor(row_factory=class_row(PartyRecord)) as cursor:
        await cursor.execute(_RECORDS, {"action": action})
        return await cursor.fetchall()


async def current(tx: Transaction, agency: str) -> str | None:
    """Return the fingerprint of an agency's current party file, None before there is one."""
    cursor = await tx.execute(
        "SELECT fingerprint FROM party WHERE agency = %s AND status = 'current'", [agency]
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def trust(
    tx: Transaction, *, agency: str, fingerprint: str, party: bytes, now: datetime
) -> bool:
    """Make a party file the current one of its agency; False if it already was."""
    cursor = await tx.execute(
        "SELECT FROM party WHERE agency = %s AND fingerprint = %s AND status = 'current'",
        [agency, fingerprint],
    )
    if await cursor.fetchone() is not None:
        return False
    await tx.execute("UPDATE party SET status = 'former' WHERE agency = %s", [agency])
    await tx.execute(
        "INSERT INTO party (agency, fingerprint, party, status, trusted_at)"
        " VALUES (%s, %s, %s, 'current', %s)"
        " ON CONFLICT (agency, fingerprint) DO UPDATE"
        " SET status = 'current', trusted_at = EXCLUDED.trusted_at",
        [agency, fingerprint, party, now],
    )
    return True
