"""Statements about what belongs on the bus now, whatever is there."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True)
class Belonging:
    """A message that belongs on the bus; `published` says whether the bus was ever given it."""

    generation: int
    sequence: int
    envelope_hash: bytes
    has_bytes: bool
    published: bool


# Messages that wait for an answer; in control, those that the peer has not acknowledged.
_BELONGING = """
SELECT s.generation, s.sequence, s.envelope_hash,
       EXISTS (SELECT FROM envelope AS e WHERE e.message_id = s.message_id),
       s.generation < o.generation OR s.sequence <= o.published
FROM stream_out AS o JOIN sent AS s ON s.stream = o.stream
WHERE o.stream = %(stream)s AND s.answer IS NULL
UNION ALL
SELECT s.generation, s.sequence, s.envelope_hash,
       EXISTS (SELECT FROM envelope AS e WHERE e.message_id = s.message_id), true
FROM publication AS p
CROSS JOIN LATERAL (
    SELECT * FROM sent
    WHERE stream = p.stream AND generation = p.generation AND answer = 'none'
      AND sequence BETWEEN p.first_sequence AND p.last_sequence OFFSET 0
) AS s
WHERE p.stream = %(stream)s
UNION ALL
SELECT s.generation, s.sequence, s.envelope_hash,
       EXISTS (SELECT FROM envelope AS e WHERE e.message_id = s.message_id), false
FROM stream_out AS o
JOIN sent AS s ON s.stream = o.stream AND s.generation = o.generation
              AND s.sequence > o.published
WHERE o.stream = %(stream)s AND s.answer = 'none'
UNION ALL
SELECT s.generation, s.sequence, s.envelope_hash,
       EXISTS (SELECT FROM envelope AS e WHERE e.message_id = s.message_id), true
FROM republish AS r JOIN sent AS s USING (stream, generation, sequence)
WHERE r.stream = %(stream)s AND s.answer = 'none'
"""


async def belonging(tx: Transaction, stream: str) -> list[Belonging]:
    """Return what of a stream belongs on the bus, ascending, each once."""
    cursor = await tx.execute(_BELONGING, {"stream": stream})
    found = {(row[0], row[1]): Belonging(*row) for row in await cursor.fetchall()}
    return [found[place] for place in sorted(found)]


# What relays have still to hand to the bus without numbering anything new.
_LEFT = """
SELECT (SELECT count(*) FROM republish WHERE stream = ANY(%(streams)s)),
       (SELECT coalesce(sum(next_sequence - 1 - published), 0)
        FROM stream_out WHERE stream = ANY(%(streams)s))
"""


async def left(tx: Transaction, streams: Sequence[str]) -> int:
    """Return how many messages of these streams are asked for, or numbered and not published."""
    row = await (await tx.execute(_LEFT, {"streams": list(streams)})).fetchone()
    assert row is not None
    return int(row[0]) + int(row[1])


async def forget_runs(tx: Transaction, runs: Sequence[int]) -> None:
    """Forget runs, by their ids: nothing of them is on the bus."""
    await tx.execute(
        "DELETE FROM publication WHERE publication_id = ANY(%b::bigint[])", [list(runs)]
    )
