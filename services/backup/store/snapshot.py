"""Statements of backups and restores: whole tables out and in, and what a restored store is."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from services.ledger.store import Transaction

# The connection of a rebuild, as those see it who fill it.
Rows: TypeAlias = Connection[TupleRow]

PASS_SECONDS = 6 * 3_600.0
# What a restored store refuses to change: every act of the exchange or of a person writes to one.
FROZEN = ("record", "log_entry", "log_head", "outbox", "sent", "inbox")
REVISIONS = "alembic_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table and its columns, in the order in which they are copied."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a store is at one moment."""

    revision: str
    generation: int
    origin: str | None
    size: int
    root: bytes | None
    checkpoint: str | None


async def begin_snapshot(tx: Transaction) -> None:
    """Let a transaction see the store as it is now until it ends; must be its first statement."""
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    await tx.execute("SET LOCAL statement_timeout = '2h'")
    await tx.execute("SET LOCAL idle_in_transaction_session_timeout = '1h'")


_FACTS = """
SELECT v.version_num, coalesce((SELECT max(generation) FROM stream_out), 1),
       h.origin, coalesce(h.size, 0), h.root,
       (SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1)
FROM alembic_version AS v
LEFT JOIN log_head AS h ON true
"""


async def facts(tx: Transaction) -> Facts:
    """Return revision, generation and head of the store."""
    row = await (await tx.execute(_FACTS)).fetchone()
    assert row is not None
    return Facts(
        revision=row[0],
        generation=row[1],
        origin=row[2],
        size=row[3],
        root=row[4],
        checkpoint=row[5],
    )


# Every table of the schema but the migrations' own; what is computed is computed again.
_TABLES = """
SELECT c.relname, array_agg(a.attname ORDER BY a.attnum)
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname <> %s
  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
GROUP BY c.relname ORDER BY c.relname
"""


async def tables(tx: Transaction) -> list[Table]:
    """Return every table to copy, by name."""
    cursor = await tx.execute(_TABLES, [REVISIONS])
    return [Table(name=row[0], columns=tuple(row[1])) for row in await cursor.fetchall()]


async def numbers(tx: Transaction) -> dict[str, int]:
    """Return how far each sequence of the schema has counted; one that never did is absent."""
    cursor = await tx.execute(
        "SELECT sequencename, last_value FROM pg_sequences"
        " WHERE schemaname = 'public' AND last_value IS NOT NULL ORDER BY 1"
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


class CopyOut:
    """The rows of one table as PostgreSQL's binary COPY; `rows` counts them at the end."""

    def __init__(self, tx: Transaction, table: Table) -> None:
        self._tx, self._table = tx, table
        self.rows = 0

    async def __aiter__(self) -> AsyncIterator[bytes | bytearray | memoryview]:
        statement = sql.SQL("COPY {} ({}) TO STDOUT (FORMAT BINARY)").format(*_named(self._table))
        async with self._tx.cursor() as cursor:
            async with cursor.copy(statement) as copy:
                async for data in copy:
                    yield data
            self.rows = cursor.rowcount


def copy_in(connection: Rows, table: Table, blocks: Iterable[bytes]) -> int:
    """Write the rows of a binary COPY into a table; returns how many there were."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(*_named(table))
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)
        return cursor.rowcount


def _named(table: Table) -> tuple[sql.Identifier, sql.Composed]:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    return sql.Identifier(table.name), columns


def count_on(connection: Rows, numbers: dict[str, int]) -> None:
    """Let sequences go on above where they stood when the backup was made."""
    for name, last in sorted(numbers.items()):
        connection.execute("SELECT setval(%s::regclass, %s)", [f"public.{name}", last])


def mark_restored(connection: Rows, *, made_at: datetime, digest: bytes, now: datetime) -> None:
    """Note that this store was made from a backup, and refuse changes from now on."""
    connection.execute(
        "INSERT INTO restoration (restored_at, backup_made_at, backup_digest) VALUES (%s, %s, %s)",
        [now, made_at, digest],
    )
    for name in FROZEN:
        connection.execute(
            sql.SQL(
                "CREATE OR REPLACE TRIGGER restored BEFORE INSERT OR UPDATE OR DELETE ON {}"
                " FOR EACH STATEMENT EXECUTE FUNCTION refuse_until_adopted()"
            ).format(sql.Identifier(name))
        )


# Tables of any schema of ours that hold a row.
_ALL_TABLES = """
SELECT n.nspname, c.relname
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relname <> %s
  AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""


def first_filled(connection: Rows) -> str | None:
    """Return the name of a table that holds rows, None in an empty database."""
    for schema, name in connection.execute(_ALL_TABLES, [REVISIONS]).fetchall():
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, name))
        row = connection.execute(query).fetchone()
        if row is not None and row[0]:
            return str(name)
    return None
