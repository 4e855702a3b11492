"""Statements about what was received from the other agency, for telling it."""

from collections.abc import AsyncIterator
from datetime import datetime

from services.ledger.store import Transaction

Reached = list[tuple[str, int, int]]

_READ_A_TIME = 500


async def reached(tx: Transaction) -> tuple[Reached, Reached]:
    """Return how far each stream was read and written: (stream, generation, highest sequence)."""
    read = await tx.execute(
        "SELECT stream, generation, highest FROM stream_in WHERE highest > 0 ORDER BY 1, 2"
    )
    wrote = await tx.execute(
        "SELECT stream, generation, max(sequence) FROM sent GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return (
        [(row[0], row[1], row[2]) for row in await read.fetchall()],
        [(row[0], row[1], row[2]) for row in await wrote.fetchall()],
    )


# The bytes of what was refused stand with its dead letter alone.
_RECEIVED = """
SELECT coalesce(e.envelope, d.bytes), p.salt, p.body
FROM inbox AS i
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN payload AS p USING (message_id)
LEFT JOIN LATERAL (
    SELECT bytes FROM dead_letter
    WHERE i.state = 'refused' AND authentic AND dead_letter.message_id = i.message_id
    ORDER BY first_at LIMIT 1
) AS d ON true
WHERE (%(since)s::timestamptz IS NULL OR i.received_at >= %(since)s)
  AND coalesce(e.envelope, d.bytes) IS NOT NULL
ORDER BY i.stream, i.generation, i.sequence
"""


async def received(
    tx: Transaction, *, since: datetime | None
) -> AsyncIterator[tuple[bytes, bytes | None, bytes | None]]:
    """Yield envelope, salt and content of what was received since a time, by stream."""
    async with tx.cursor(name="seen", binary=True) as cursor:
        await cursor.execute(_RECEIVED, {"since": since})
        while rows := await cursor.fetchmany(_READ_A_TIME):
            for row in rows:
                yield row[0], row[1], row[2]
