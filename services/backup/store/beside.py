"""Statements that lay archives beside a store, for one connection and as long as it lives.

Views of that connection alone stand before the tables of the same names, and show what moved to the
archives as if it had stayed. They are for reading: records are appended to the tables themselves.
"""

from collections.abc import Sequence
from uuid import UUID

from services.backup.store.archive import PLACED, RecordRow, placed
from services.ledger.store import Transaction

_TABLES = (
    "CREATE TEMPORARY TABLE beside_record (record_id bigint PRIMARY KEY, record bytea NOT NULL,"
    " opened jsonb)",
    "CREATE TEMPORARY TABLE beside_message (message_id uuid PRIMARY KEY, envelope bytea NOT NULL,"
    " salt bytea NOT NULL, body bytea NOT NULL)",
)
_VIEWS = (
    "ANALYZE beside_record",
    "ANALYZE beside_message",
    """
CREATE TEMPORARY VIEW record AS
SELECT r.record_id, r.action, r.notice_id, r.message_id, r.recorded_at,
       coalesce(r.record, b.record) AS record, r.leaf, r.archive_id
FROM public.record AS r LEFT JOIN beside_record AS b USING (record_id)
""",
    """
CREATE TEMPORARY VIEW opening AS
SELECT record_id, opened FROM public.opening
UNION ALL
SELECT record_id, opened FROM beside_record AS b
WHERE opened IS NOT NULL
  AND NOT EXISTS (SELECT FROM public.opening AS o WHERE o.record_id = b.record_id)
""",
    """
CREATE TEMPORARY VIEW archived AS
SELECT message_id, archive_id FROM public.archived AS a
WHERE NOT EXISTS (SELECT FROM beside_message AS b WHERE b.message_id = a.message_id)
""",
    """
CREATE TEMPORARY VIEW envelope AS
SELECT message_id, envelope FROM public.envelope
UNION ALL
SELECT message_id, envelope FROM beside_message AS b
WHERE NOT EXISTS (SELECT FROM public.envelope AS e WHERE e.message_id = b.message_id)
""",
    """
CREATE TEMPORARY VIEW payload AS
SELECT p.message_id, coalesce(p.salt, b.salt) AS salt, coalesce(p.body, b.body) AS body,
       CASE WHEN b.message_id IS NULL THEN p.erased_at END AS erased_at, p.erasure_id
FROM public.payload AS p LEFT JOIN beside_message AS b USING (message_id)
""",
)


async def known(tx: Transaction, digest: bytes) -> bool:
    """Say whether something of this store moved to the archive with this digest."""
    cursor = await tx.execute("SELECT FROM archive WHERE digest = %b", [digest])
    return await cursor.fetchone() is not None


async def begin(tx: Transaction) -> None:
    """Make the tables that archives are laid into."""
    for statement in _TABLES:
        await tx.execute(statement)


async def lay_records(tx: Transaction, digest: bytes, records: Sequence[RecordRow]) -> None:
    """Lay records of an archive down that are away."""
    await tx.execute(
        f"INSERT INTO beside_record {PLACED} ON CONFLICT DO NOTHING",
        placed(digest, records),
    )


# What was erased in the store since stays erased.
_LAY_MESSAGES = """
INSERT INTO beside_message
SELECT t.* FROM unnest(%b::uuid[], %b::bytea[], %b::bytea[], %b::bytea[])
    AS t (message_id, envelope, salt, body)
JOIN public.archived USING (message_id)
ON CONFLICT DO NOTHING
"""


async def lay_messages(
    tx: Transaction, messages: Sequence[tuple[UUID, bytes, bytes, bytes]]
) -> None:
    """Lay (id, envelope, salt, content) of messages down that are away."""
    await tx.execute(_LAY_MESSAGES, [[row[at] for row in messages] for at in range(4)])


async def finish(tx: Transaction) -> None:
    """Let what was laid down be seen in its place."""
    for statement in _VIEWS:
        await tx.execute(statement)
