"""Statements about our own signing keys that ended."""

from datetime import datetime

from services.ledger.store import Transaction


async def hold_streams(tx: Transaction) -> dict[str, tuple[int, int]]:
    """Return the last (generation, sequence) of every stream that we write, all rows held.

    Until the transaction ends nothing is numbered.
    """
    cursor = await tx.execute(
        "SELECT stream, generation, next_sequence - 1 FROM stream_out ORDER BY stream FOR UPDATE"
    )
    return {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}


async def keep(
    tx: Transaction, *, kid: str, ended: str, ended_at: datetime, statement: bytes
) -> None:
    """Note how a key of ours ended: `retired` or `revoked`; what was noted first stays."""
    await tx.execute(
        "INSERT INTO key_end (kid, ended, ended_at, statement) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        [kid, ended, ended_at, statement],
    )


async def kept(tx: Transaction) -> list[tuple[str, bytes]]:
    """Return (how, statement) of every end of ours, the oldest first."""
    cursor = await tx.execute("SELECT ended, statement FROM key_end ORDER BY ended_at, kid")
    return [(row[0], bytes(row[1])) for row in await cursor.fetchall()]


async def has_ended(tx: Transaction, kid: str) -> bool:
    """Return whether a signing key of ours ended."""
    cursor = await tx.execute("SELECT FROM key_end WHERE kid = %s", [kid])
    return await cursor.fetchone() is not None
