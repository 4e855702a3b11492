"""Statements about checkpoints of the peer that contradict each other."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Two notes of one log that cannot both be true, and when that was found.

    From `size` records on nothing of that log is believed while it is open.
    """

    conflict_id: UUID
    code: str
    origin: str
    size: int
    known_note: str
    told_note: str
    found_at: datetime
    last_at: datetime
    times: int
    resolved_at: datetime | None


# The first pair of notes stays; whatever else contradicts it is counted.
_KEEP = """
INSERT INTO conflict (conflict_id, code, origin, size, known_note, told_note, found_at, last_at)
VALUES (%(conflict_id)s, %(code)s, %(origin)s, %(size)s, %(known)s, %(told)s, %(now)s, %(now)s)
ON CONFLICT (origin, code) WHERE resolved_at IS NULL
DO UPDATE SET last_at = EXCLUDED.last_at, times = conflict.times + 1,
              size = least(conflict.size, EXCLUDED.size)
RETURNING times
"""


async def keep(
    tx: Transaction,
    *,
    conflict_id: UUID,
    code: str,
    origin: str,
    size: int,
    known: str,
    told: str,
    now: datetime,
) -> bool:
    """Keep a conflict, or count it again while it is open; returns whether it is new."""
    cursor = await tx.execute(
        _KEEP,
        {
            "conflict_id": conflict_id,
            "code": code,
            "origin": origin,
            "size": size,
            "known": known,
            "told": told,
            "now": now,
        },
    )
    row = await cursor.fetchone()
    return row is not None and row[0] == 1


_COLUMNS = (
    "SELECT conflict_id, code, origin, size, known_note, told_note, found_at, last_at, times,"
    " resolved_at FROM conflict"
)


async def listed(tx: Transaction, *, resolved: bool = False) -> list[Conflict]:
    """Return the open conflicts, oldest first; with `resolved` all that ever were."""
    where = "" if resolved else " WHERE resolved_at IS NULL"
    async with tx.cursor(row_factory=class_row(Conflict)) as cursor:
        await cursor.execute(_COLUMNS + where + " ORDER BY found_at, conflict_id")
        return await cursor.fetchall()


async def resolve(tx: Transaction, conflict_id: UUID, now: datetime) -> None:
    """Note that a person resolved a conflict; both notes stay."""
    await tx.execute(
        "UPDATE conflict SET resolved_at = %s WHERE conflict_id = %s", [now, conflict_id]
    )


async def doubt(tx: Transaction, origin: str) -> int | None:
    """Return the size from which a log is in doubt, None while nothing contradicts it.

    A log that a restore ended (NB-3161) is in no doubt up to its end, and void beyond.
    """
    cursor = await tx.execute(
        "SELECT min(size) FROM conflict"
        " WHERE origin = %s AND resolved_at IS NULL AND code <> 'NB-3161'",
        [origin],
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint of the peer that is known here."""

    size: int
    root: bytes
    note: str


_BETWEEN = """
SELECT size, root, note FROM peer_checkpoint
WHERE origin = %(origin)s AND size BETWEEN %(first)s AND %(last)s
UNION ALL
SELECT size, root, note FROM peer_head
WHERE origin = %(origin)s AND size BETWEEN %(first)s AND %(last)s
ORDER BY size
"""


async def known_between(tx: Transaction, origin: str, first: int, last: int) -> list[Note]:
    """Return what was believed of a log, by receipts or by cosigning, at these sizes."""
    values = {"origin": origin, "first": first, "last": last}
    return [Note(*row) for row in await (await tx.execute(_BETWEEN, values)).fetchall()]


# Batches do not overlap: if one of them shows the tree of a size, it is the first one above.
_ABOVE = """
SELECT e.envelope
FROM peer_checkpoint AS c
JOIN inbox AS i ON i.stream = %(stream)s AND i.generation = c.generation
                AND i.sequence = c.sequence
JOIN envelope AS e USING (message_id)
WHERE c.origin = %(origin)s AND c.size > %(size)s
ORDER BY c.size LIMIT 1
"""


async def believed_above(tx: Transaction, origin: str, size: int, *, stream: str) -> bytes | None:
    """Return the believed receipts, as they came in `stream`, with the next checkpoint above."""
    values = {"origin": origin, "size": size, "stream": stream}
    row = await (await tx.execute(_ABOVE, values)).fetchone()
    return None if row is None else bytes(row[0])


_LARGER = """
SELECT size, root, note FROM peer_checkpoint
WHERE origin = %(origin)s AND size > %(size)s
  AND generation = %(generation)s AND sequence < %(sequence)s
ORDER BY size DESC LIMIT 1
"""


async def larger_before(
    tx: Transaction, origin: str, size: int, *, generation: int, sequence: int
) -> Note | None:
    """Return the largest checkpoint of earlier receipts that is above `size`, None without any."""
    values = {"origin": origin, "size": size, "generation": generation, "sequence": sequence}
    row = await (await tx.execute(_LARGER, values)).fetchone()
    return None if row is None else Note(*row)


# The row of a log moves forward in size and in place; what a head was overtaken by, stays.
_TELL = """
INSERT INTO peer_told AS t (origin, size, note, generation, sequence)
VALUES (%(origin)s, %(size)s, %(note)s, %(generation)s, %(sequence)s)
ON CONFLICT (origin) DO UPDATE
    SET size = EXCLUDED.size, note = EXCLUDED.note,
        generation = EXCLUDED.generation, sequence = EXCLUDED.sequence
    WHERE EXCLUDED.size >= t.size AND (EXCLUDED.generation, EXCLUDED.sequence)
                                      > (t.generation, t.sequence)
"""


_TOLD_OTHERWISE = """
SELECT note FROM peer_told
WHERE origin = %(origin)s
  AND ((size > %(size)s AND (generation, sequence) < (%(generation)s, %(sequence)s))
       OR (size < %(size)s AND (generation, sequence) > (%(generation)s, %(sequence)s)))
"""


async def told_otherwise(
    tx: Transaction, origin: str, size: int, note: str, *, generation: int, sequence: int
) -> str | None:
    """Note what a head told; returns the note of another head if the log went back between the two.

    An earlier head told of more, or, where this one comes late, a later head told of less.
    """
    values = {
        "origin": origin,
        "size": size,
        "note": note,
        "generation": generation,
        "sequence": sequence,
    }
    row = await (await tx.execute(_TOLD_OTHERWISE, values)).fetchone()
    if row is not None:
        return str(row[0])
    await tx.execute(_TELL, values)
    return None
