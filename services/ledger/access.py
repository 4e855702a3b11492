"""Tokens for people who read the records over HTTP: made, listed and revoked on record.

A token is 32 random bytes, shown once. What is kept is its SHA-256: whoever reads the database can
let nobody in by it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe

from schemas.errors import ConflictError, NotFoundError
from services.ledger.records import make_record
from services.ledger.store import Store, access, append

INSPECTOR = "inspector"
TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Made:
    """A token that was just made, with its secret, and when it ends."""

    name: str
    secret: str
    expires_at: datetime


async def create(store: Store, name: str, *, lifetime: timedelta, actor: str) -> Made:
    """Make a token for an inspector. Raises `ConflictError` NB-4052 while the name is in use."""
    now = datetime.now(UTC)
    made = Made(name, token_urlsafe(TOKEN_BYTES), now + lifetime)
    async with store.transaction() as tx:
        if not await access.add(
            tx,
            name=name,
            role=INSPECTOR,
            token_hash=_hash(made.secret),
            now=now,
            until=made.expires_at,
        ):
            raise ConflictError("NB-4052", name=name)
        days = {"days": round(lifetime / timedelta(days=1))}
        record = make_record("token.created", time=now, actor=actor, text=name, detail=days)
        await append(tx, [record])
    return made


async def revoke(store: Store, name: str, *, actor: str) -> None:
    """End a token at once. Raises `NotFoundError` NB-4051 for one that is not valid."""
    now = datetime.now(UTC)
    async with store.transaction() as tx:
        if not await access.revoke(tx, name, now):
            raise NotFoundError("NB-4051", value=name)
        await append(tx, [make_record("token.revoked", time=now, actor=actor, text=name)])


async def may_read(store: Store, secret: str) -> bool:
    """Return whether a token lets its bearer read records now."""
    async with store.glance() as look:
        return await access.role_of(look, _hash(secret), datetime.now(UTC)) == INSPECTOR


def _hash(secret: str) -> bytes:
    return sha256(secret.encode("utf-8")).digest()
