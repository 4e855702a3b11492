"""Statements about party files: our own, and those of the peer that a person trusted."""

from dataclasses import dataclass
from datetime import datetime

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
