"""Statements about docket releases: which were read, whether to the end, and what came of them."""

from collections.abc import Mapping
from datetime import datetime

from psycopg.types.json import Jsonb

from services.ledger.store import Transaction


async def digest_of(tx: Transaction, release: str) -> str | None:
    """Return the digest of the files that this name stood for, or None for a new name."""
    cursor = await tx.execute("SELECT digest FROM docket_import WHERE release = %s", [release])
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


# A release that is read again keeps when it was first.
_BEGIN = """
INSERT INTO docket_import (release, digest, started_at) VALUES (%s, %s, %s)
ON CONFLICT (release) DO UPDATE SET release = excluded.release
RETURNING started_at
"""


async def begin(tx: Transaction, release: str, digest: str, now: datetime) -> datetime:
    """Note that a release is being read; returns when it was first."""
    cursor = await tx.execute(_BEGIN, [release, digest, now])
    row = await cursor.fetchone()
    assert row is not None
    began: datetime = row[0]
    return began


async def finish(
    tx: Transaction, release: str, summary: Mapping[str, object], now: datetime
) -> None:
    """Note that a release was read to its end."""
    await tx.execute(
        "UPDATE docket_import SET finished_at = %s, summary = %s WHERE release = %s",
        [now, Jsonb(dict(summary)), release],
    )
