"""Statements about tokens: who may read the records, until when."""

from dataclasses import dataclass
from datetime import datetime

from services.ledger.store.connection import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token without its secret."""

    name: str
    role: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


# A name may be used again once its token has ended.
_ADD = """
INSERT INTO access_token (name, role, hash, created_at, expires_at)
VALUES (%(name)s, %(role)s, %(hash)s, %(now)s, %(expires_at)s)
ON CONFLICT (name) DO UPDATE
    SET role = EXCLUDED.role, hash = EXCLUDED.hash, created_at = EXCLUDED.created_at,
        expires_at = EXCLUDED.expires_at, revoked_at = NULL
    WHERE access_token.revoked_at IS NOT NULL OR access_token.expires_at <= EXCLUDED.created_at
RETURNING name
"""


async def add(
    tx: Transaction, *, name: str, role: str, token_hash: bytes, now: datetime, until: datetime
) -> bool:
    """Keep a token's hash; False while one of the same name is valid."""
    cursor = await tx.execute(
        _ADD, {"name": name, "role": role, "hash": token_hash, "now": now, "expires_at": until}
    )
    return await cursor.fetchone() is not None


async def listed(tx: Transaction) -> list[Token]:
    """Return all tokens, by name."""
    cursor = await tx.execute(
        "SELECT name, role, created_at, expires_at, revoked_at FROM access_token ORDER BY name"
    )
    return [
        Token(name=row[0], role=row[1], created_at=row[2], expires_at=row[3], revoked_at=row[4])
        for row in await cursor.fetchall()
    ]


async def revoke(tx: Transaction, name: str, now: datetime) -> bool:
    """End a token; False when there is none that was not revoked before."""
    cursor = await tx.execute(
        "UPDATE access_token SET revoked_at = %s WHERE name = %s AND revoked_at IS NULL"
        " RETURNING name",
        [now, name],
    )
    return await cursor.fetchone() is not None


async def role_of(tx: Transaction, token_hash: bytes, now: datetime) -> str | None:
    """Return the role of a token that is valid now, None for any other."""
    cursor = await tx.execute(
        "SELECT role FROM access_token WHERE hash = %s AND revoked_at IS NULL AND expires_at > %s",
        [token_hash, now],
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])
