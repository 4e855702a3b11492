"""Statements about replies as far as messages decide them."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import class_row

from services.ice.store import replies
from services.ice.store.replies import ReplyRow
from services.ledger.store import Transaction


async def hold(tx: Transaction, notices: Sequence[UUID]) -> None:
    """Keep further replies to these notices from being applied until the transaction ends."""
    await tx.execute(
        "SELECT FROM applied WHERE notice_id = ANY(%b::uuid[]) ORDER BY notice_id FOR UPDATE",
        [list(notices)],
    )


# Replies that stand under one of these messages, or in the place of one.
_STANDING = """
SELECT r.notice_id, r.revision, r.kind, r.code, r.message_id, r.happened_at, r.received_at
FROM reply AS r
WHERE r.message_id = ANY(%b::uuid[])
   OR (r.notice_id, r.revision) IN (SELECT * FROM unnest(%b::uuid[], %b::int[]))
"""


async def standing(tx: Transaction, rows: Sequence[ReplyRow]) -> list[ReplyRow]:
    """Return the stored replies that stand where `rows` belong."""
    async with tx.cursor(row_factory=class_row(ReplyRow)) as cursor:
        await cursor.execute(_STANDING, _places(rows))
        return await cursor.fetchall()


_CLEAR = """
DELETE FROM reply AS r
WHERE r.message_id = ANY(%b::uuid[])
   OR (r.notice_id, r.revision) IN (SELECT * FROM unnest(%b::uuid[], %b::int[]))
"""


async def put(tx: Transaction, rows: Sequence[ReplyRow]) -> None:
    """Write replies, in the place of whatever stands there."""
    if rows:
        await tx.execute(_CLEAR, _places(rows))
        await replies.add(tx, rows)


def _places(rows: Sequence[ReplyRow]) -> list[list[object]]:
    return [
        [row.message_id for row in rows],
        [row.notice_id for row in rows],
        [row.revision for row in rows],
    ]
