"""Statements about messages as they are encrypted: which key opens them is in their bytes alone."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from services.ledger.store import Transaction

_ROWS_A_READ = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The message with the highest sequence of a stream; None where its bytes are gone."""

    stream: str
    envelope: bytes | None


# What is held is opened as it came, and a letter that is open may be tried again.
_HELD = """
SELECT e.envelope FROM inbox AS i JOIN envelope AS e USING (message_id) WHERE i.state = 'held'
"""
_OPEN = "SELECT bytes FROM dead_letter WHERE state = 'open' AND bytes IS NOT NULL"
_UNANSWERED = """
SELECT e.envelope FROM sent AS s JOIN envelope AS e USING (message_id) WHERE s.answer IS NULL
"""


async def held(tx: Transaction) -> AsyncGenerator[bytes]:
    """Yield the messages that wait for an earlier revision."""
    async for envelope in _each(tx, _HELD):
        yield envelope


async def open_letters(tx: Transaction) -> AsyncGenerator[bytes]:
    """Yield the dead letters that are open."""
    async for envelope in _each(tx, _OPEN):
        yield envelope


async def unanswered(tx: Transaction) -> AsyncGenerator[bytes]:
    """Yield the messages of ours that nobody answered."""
    async for envelope in _each(tx, _UNANSWERED):
        yield envelope


async def _each(tx: Transaction, statement: str) -> AsyncGenerator[bytes]:
    async with tx.cursor(name=f"sealed_{uuid4().hex}") as cursor:
        cursor.itersize = _ROWS_A_READ
        await cursor.execute(statement)
        async for row in cursor:
            yield bytes(row[0])


async def missing(tx: Transaction, streams: Sequence[str]) -> int:
    """Return how many sequences of these streams are missing."""
    cursor = await tx.execute(
        "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM gap"
        " WHERE stream = ANY(%b)",
        [list(streams)],
    )
    (row,) = await cursor.fetchall()
    return int(row[0])


_NEWEST = """
SELECT t.stream, n.envelope
FROM unnest(%b::text[]) AS t (stream)
LEFT JOIN LATERAL (
    SELECT e.envelope FROM inbox AS i LEFT JOIN envelope AS e USING (message_id)
    WHERE i.stream = t.stream ORDER BY i.generation DESC, i.sequence DESC LIMIT 1
) AS n ON true
"""


async def newest(tx: Transaction, streams: Sequence[str]) -> list[Newest]:
    """Return the newest message of each of these streams."""
    cursor = await tx.execute(_NEWEST, [list(streams)])
    return [Newest(stream=row[0], envelope=row[1]) for row in await cursor.fetchall()]
