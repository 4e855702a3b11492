"""Statements that compare tables with themselves as they were made again."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One row that differs, live and made again, by column; None where there is no row."""

    live: Mapping[str, Any] | None
    rebuilt: Mapping[str, Any] | None


_DIFFERING = """
SELECT CASE WHEN l IS NULL THEN NULL ELSE to_jsonb(l) END,
       CASE WHEN s IS NULL THEN NULL ELSE to_jsonb(s) END
FROM (SELECT {columns} FROM public.{table} {only}) AS l
FULL JOIN (SELECT {columns} FROM {table} {only}) AS s USING ({key})
WHERE (l.*) IS DISTINCT FROM (s.*)
"""


async def differing(
    tx: Transaction, *, table: str, key: Sequence[str], columns: Sequence[str], only: str
) -> AsyncIterator[Pair]:
    """Yield the rows of a table that differ in `columns`; `only` is a condition, or nothing."""
    statement = _compose(_DIFFERING, table, only, columns=columns, key=key)
    async with tx.cursor(name="differing") as cursor:
        await cursor.execute(statement)
        async for row in cursor:
            yield Pair(live=row[0], rebuilt=row[1])


async def count(tx: Transaction, *, table: str, only: str) -> int:
    """Return how many live rows of a table are compared."""
    cursor = await tx.execute(_compose("SELECT count(*) FROM public.{table} {only}", table, only))
    (row,) = await cursor.fetchall()
    return int(row[0])


def _compose(text: str, table: str, only: str, **lists: Sequence[str]) -> sql.Composed:
    return sql.SQL(text).format(
        table=sql.Identifier(table),
        only=sql.SQL(f"WHERE {only}" if only else ""),
        **{
            name: sql.SQL(", ").join(map(sql.Identifier, columns))
            for name, columns in lists.items()
        },
    )
