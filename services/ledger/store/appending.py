"""Statements that put records into a transaction."""

from collections.abc import Sequence

from psycopg import AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from services.ledger.records import Record
from services.ledger.store.connection import Transaction

UNSEALED_CHANNEL = "unsealed"

# Tables are named with their schema: where archives lie beside a store, `record` and `opening` are
# views for reading. Ids are drawn by number and joined by number, so that the first id is the first
# record's whatever order the server works in. Openings and debts go along; a debt of an answer
# wakes the sealer.
_APPEND = """
WITH ids AS MATERIALIZED (
    SELECT number, nextval('record_record_id_seq') AS record_id
    FROM generate_series(1, %(count)s) AS number
), written AS (
    INSERT INTO public.record (record_id, action, notice_id, message_id, recorded_at, record)
    OVERRIDING SYSTEM VALUE
    SELECT i.record_id, t.action, t.notice_id, t.message_id, t.recorded_at, t.record
    FROM unnest(%(action)b::text[], %(notice_id)b::uuid[], %(message_id)b::uuid[],
                %(recorded_at)b::timestamptz[], %(record)b::bytea[])
         WITH ORDINALITY AS t (action, notice_id, message_id, recorded_at, record, number)
    JOIN ids AS i USING (number)
), kept AS (
    INSERT INTO public.opening (record_id, opened)
    SELECT i.record_id, t.opened
    FROM unnest(%(opened_number)b::bigint[], %(opened)b::jsonb[]) AS t (number, opened)
    JOIN ids AS i USING (number)
), waiting AS (
    INSERT INTO unsealed (record_id, owes)
    SELECT record_id, %(owes)s::text FROM ids
)
SELECT record_id, CASE WHEN number = 1 AND %(owes)s::text IS NOT NULL
                       THEN pg_notify('unsealed', '') END
FROM ids ORDER BY number
"""


async def append(tx: Transaction, records: Sequence[Record], owes: str | None = None) -> None:
    """Append records, to be sealed after the commit.

    `owes` names the agency that waits for a receipt of each of them: the sealer then works at once,
    else within a second.
    """
    if records:
        await _append(tx, records, owes)


async def append_returning(
    tx: Transaction, records: Sequence[Record], owes: str | None = None
) -> list[int]:
    """Append records as `append` does; returns their record ids in input order.

    A record id is not the record's place in the audit log.
    """
    if not records:
        return []
    cursor = await _append(tx, records, owes)
    return [row[0] for row in await cursor.fetchall()]


async def _append(
    tx: Transaction, records: Sequence[Record], owes: str | None
) -> AsyncCursor[TupleRow]:
    opened = [(number, r.opened) for number, r in enumerate(records, 1) if r.opened]
    return await tx.execute(
        _APPEND,
        {
            "count": len(records),
            "action": [r.action for r in records],
            "notice_id": [r.notice_id for r in records],
            "message_id": [r.message_id for r in records],
            "recorded_at": [r.recorded_at for r in records],
            "record": [r.record for r in records],
            "opened_number": [number for number, _ in opened],
            "opened": [Jsonb(values) for _, values in opened],
            "owes": owes,
        },
    )


async def notify(tx: Transaction, channel: str) -> None:
    """Wake whoever listens on `channel`, once this transaction has committed."""
    await tx.execute("SELECT pg_notify(%s, '')", [channel])
