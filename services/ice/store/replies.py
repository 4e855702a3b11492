"""Statements about what people at HHS did, as far as it came back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRow:
    """One reply: its kind, and for an outcome, action or disposition its code."""

    notice_id: UUID
    revision: int
    kind: str
    code: str | None
    message_id: UUID
    happened_at: datetime
    received_at: datetime


async def unknown(tx: Transaction, notices: Sequence[UUID]) -> set[UUID]:
    """Return those of `notices` that are none of ours."""
    cursor = await tx.execute(
        "SELECT notice_id FROM obligation WHERE notice_id = ANY(%b::uuid[])", [list(notices)]
    )
    return set(notices) - {row[0] for row in await cursor.fetchall()}


async def add(tx: Transaction, rows: Sequence[ReplyRow]) -> None:
    """Keep replies."""
    await tx.execute(
        "INSERT INTO reply (notice_id, revision, kind, code, message_id, happened_at, received_at)"
        " SELECT * FROM unnest(%b::uuid[], %b::int[], %b::text[], %b::text[], %b::uuid[],"
        " %b::timestamptz[], %b::timestamptz[])",
        [[getattr(row, name) for row in rows] for name in ReplyRow.__dataclass_fields__],
    )


async def of_notice(tx: Transaction, notice_id: UUID) -> list[ReplyRow]:
    """Return the replies to a notice, in order."""
    async with tx.cursor(row_factory=class_row(ReplyRow)) as cursor:
        await cursor.execute(
            "SELECT notice_id, revision, kind, code, message_id, happened_at, received_at"
            " FROM reply WHERE notice_id = %s ORDER BY revision",
            [notice_id],
        )
        return await cursor.fetchall()
