"""Statements about gaps: ranges of sequences that did not arrive, and when they were asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A range of sequences that were not taken; those in `here` did arrive and lie set aside."""

    stream: str
    generation: int
    first: int
    last: int
    asked: int
    here: Sequence[int]


async def of(tx: Transaction, stream: str, generation: int) -> list[tuple[int, int]]:
    """Return the open gaps of a stream as (first, last), ascending."""
    cursor = await tx.execute(
        "SELECT first_sequence, last_sequence FROM gap"
        " WHERE stream = %s AND generation = %s ORDER BY first_sequence",
        [stream, generation],
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def change(
    tx: Transaction,
    stream: str,
    generation: int,
    *,
    closed: Sequence[tuple[int, int]],
    opened: Sequence[tuple[int, int]],
    now: datetime,
) -> None:
    """Replace gaps: what a closed one leaves open keeps its age and its number of requests."""
    former = []
    if closed:
        cursor = await tx.execute(
            "DELETE FROM gap WHERE stream = %s AND generation = %s"
            " AND first_sequence = ANY(%b::bigint[])"
            " RETURNING first_sequence, last_sequence, detected_at, asked_at, asked",
            [stream, generation, [first for first, _ in closed]],
        )
        former = await cursor.fetchall()
    rows = []
    for first, last in opened:
        within = next((old for old in former if old[0] <= first and last <= old[1]), None)
        rows.append((first, last, *(within[2:] if within else (now, None, 0))))
    if rows:
        await tx.execute(
            "INSERT INTO gap (stream, generation, first_sequence, last_sequence, detected_at,"
            " asked_at, asked) SELECT %s, %s, * FROM unnest(%b::bigint[], %b::bigint[],"
            " %b::timestamptz[], %b::timestamptz[], %b::int[])",
            [stream, generation, *([row[part] for row in rows] for part in range(5))],
        )


# Gaps that are due to be asked for: never asked, or the last request has had its time (doubling, at
# most five minutes). What lies here as a dead letter, or is being tried, did arrive; asking would
# bring the same bytes, so a gap of nothing else is not due. Nor is what a person gave up, except
# as forged: what its supposed sender really sent under that sequence never arrived.
_DUE = """
SELECT g.stream, g.generation, g.first_sequence, g.last_sequence, g.asked, h.here
FROM gap AS g
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(sequence), '{}') AS here FROM (
        SELECT d.sequence FROM dead_letter AS d
        WHERE d.stream = g.stream AND d.generation = g.generation
          AND d.sequence BETWEEN g.first_sequence AND g.last_sequence
          AND (d.state = 'open' OR d.state = 'discarded' AND 'FORGED' IS DISTINCT FROM (
                  SELECT x.code FROM discard AS x WHERE x.dead_id = d.dead_id
                  ORDER BY x.discard_id DESC LIMIT 1))
        UNION
        SELECT a.sequence FROM attempt AS a
        WHERE a.stream = g.stream AND a.generation = g.generation
          AND a.sequence BETWEEN g.first_sequence AND g.last_sequence
          AND a.failed_at > %(now)s - interval '5 minutes'
    ) AS arrived
) AS h
WHERE (g.asked_at IS NULL AND g.detected_at <= %(now)s - %(grace)s * interval '1 second'
       OR g.asked_at <= %(now)s
            - least(%(again)s * power(2, least(g.asked, 12)), 300) * interval '1 second')
  AND cardinality(h.here) <= g.last_sequence - g.first_sequence
ORDER BY g.stream, g.generation, g.first_sequence LIMIT 100
FOR UPDATE OF g SKIP LOCKED
"""


async def due(tx: Transaction, *, now: datetime, grace: float, again: float) -> list[Gap]:
    """Return gaps to ask for now, held until the transaction ends."""
    cursor = await tx.execute(_DUE, {"now": now, "grace": grace, "again": again})
    return [
        Gap(stream=row[0], generation=row[1], first=row[2], last=row[3], asked=row[4], here=row[5])
        for row in await cursor.fetchall()
    ]


async def asked(tx: Transaction, gap: Gap, now: datetime) -> None:
    """Note that a gap was asked for."""
    await tx.execute(
        "UPDATE gap SET asked_at = %s, asked = asked + 1"
        " WHERE stream = %s AND generation = %s AND first_sequence = %s",
        [now, gap.stream, gap.generation, gap.first],
    )
