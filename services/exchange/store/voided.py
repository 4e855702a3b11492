"""Statements about sequences that will never carry a message, ours and the peer's."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schemas.reply import Void
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Voided:
    """A range that was declared void, and the control message that said so."""

    message_id: UUID
    stream: str
    generation: int
    first: int
    last: int
    code: str
    declared_at: datetime


_KEEP = """
INSERT INTO voided (message_id, stream, generation, first_sequence, last_sequence, code,
                    declared_at)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""


async def keep(tx: Transaction, void: Void, message_id: UUID, now: datetime) -> None:
    """Note that a range is void."""
    await tx.execute(
        _KEEP, [message_id, void.stream, void.generation, void.first, void.last, void.code, now]
    )


_WITHIN = """
SELECT message_id, stream, generation, first_sequence, last_sequence, code, declared_at
FROM voided
WHERE stream = %(stream)s AND generation = %(generation)s
  AND first_sequence <= %(last)s AND last_sequence >= %(first)s
ORDER BY first_sequence
"""


async def within(
    tx: Transaction, stream: str, generation: int, first: int, last: int
) -> list[Voided]:
    """Return the void ranges that touch `first` to `last`, ascending."""
    cursor = await tx.execute(
        _WITHIN, {"stream": stream, "generation": generation, "first": first, "last": last}
    )
    return [
        Voided(
            message_id=row[0],
            stream=row[1],
            generation=row[2],
            first=row[3],
            last=row[4],
            code=row[5],
            declared_at=row[6],
        )
        for row in await cursor.fetchall()
    ]


# A receipt that still comes counts for more: it says that the message did arrive.
_ANSWER = """
UPDATE sent SET answer = 'void', answer_code = %(code)s, answered_at = %(now)s,
                answer_message = %(message_id)s, answer_index = NULL
WHERE stream = %(stream)s AND generation = %(generation)s
  AND sequence BETWEEN %(first)s AND %(last)s AND answer IS NULL
RETURNING sequence
"""


async def answer(tx: Transaction, void: Void, message_id: UUID, now: datetime) -> int:
    """End the wait for answers to a void range, and its requests; returns how many waited."""
    place = {
        "stream": void.stream,
        "generation": void.generation,
        "first": void.first,
        "last": void.last,
    }
    await tx.execute(
        "DELETE FROM republish WHERE stream = %(stream)s AND generation = %(generation)s"
        " AND sequence BETWEEN %(first)s AND %(last)s",
        place,
    )
    cursor = await tx.execute(
        _ANSWER, {**place, "code": void.code, "now": now, "message_id": message_id}
    )
    return len(await cursor.fetchall())
