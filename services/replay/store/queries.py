"""Statements about selections that people keep under a name."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRow:
    """A selection as it is stored."""

    name: str
    source: str
    selection: dict[str, Any]
    saved_at: datetime
    saved_by: str


_KEEP = """
INSERT INTO replay_query (name, source, selection, saved_at, saved_by)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE
    SET source = EXCLUDED.source, selection = EXCLUDED.selection, saved_at = EXCLUDED.saved_at,
        saved_by = EXCLUDED.saved_by
"""


async def keep(tx: Transaction, row: QueryRow) -> None:
    """Keep a selection under a name, in the place of another of that name."""
    await tx.execute(
        _KEEP, [row.name, row.source, Jsonb(row.selection), row.saved_at, row.saved_by]
    )


async def kept(tx: Transaction, name: str | None = None) -> list[QueryRow]:
    """Return what is kept, by name, or what one name has."""
    async with tx.cursor(row_factory=class_row(QueryRow)) as cursor:
        await cursor.execute(
            "SELECT name, source, selection, saved_at, saved_by FROM replay_query"
            " WHERE %(name)s::text IS NULL OR name = %(name)s ORDER BY name",
            {"name": name},
        )
        return await cursor.fetchall()
