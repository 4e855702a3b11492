"""Statements that lay an archive's messages out for one transaction."""

from collections.abc import Sequence
from uuid import UUID

from services.ledger.store import Transaction

Laid = tuple[UUID, bytes, bytes, bytes]


# Where contents stand: in the store, and for the time of a transaction beside it.
_STORE = "payload"
_BOTH = (
    "(SELECT message_id, body FROM payload UNION ALL SELECT message_id, body FROM replay_archived)"
)


async def contents(tx: Transaction) -> str:
    """Return the relation of (message_id, body) that this transaction reads contents from."""
    cursor = await tx.execute("SELECT to_regclass('pg_temp.replay_archived') IS NOT NULL")
    (row,) = await cursor.fetchall()
    return _BOTH if row[0] else _STORE


async def begin(tx: Transaction) -> None:
    """Make the table that messages wait in; it ends with the transaction."""
    await tx.execute(
        "CREATE TEMPORARY TABLE replay_archived (message_id uuid PRIMARY KEY, envelope bytea,"
        " salt bytea, body bytea) ON COMMIT DROP"
    )


async def lay_out(tx: Transaction, rows: Sequence[Laid]) -> None:
    """Keep (id, envelope, salt, content) of messages."""
    await tx.execute(
        "INSERT INTO replay_archived"
        " SELECT * FROM unnest(%b::uuid[], %b::bytea[], %b::bytea[], %b::bytea[])"
        " ON CONFLICT DO NOTHING",
        [[row[at] for row in rows] for at in range(4)],
    )


async def laid_out(
    tx: Transaction, messages: Sequence[UUID]
) -> dict[object, tuple[bytes, bytes, bytes]]:
    """Return envelope, salt and content of those of these messages that were kept."""
    cursor = await tx.execute(
        "SELECT message_id, envelope, salt, body FROM replay_archived"
        " WHERE message_id = ANY(%b::uuid[])",
        [list(messages)],
    )
    return {row[0]: (row[1], row[2], row[3]) for row in await cursor.fetchall()}
