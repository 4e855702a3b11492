"""Statements that bring back what was sent before a restore, and name what stays lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRow:
    """A message of ours that is numbered again as it was."""

    stream: str
    generation: int
    sequence: int
    message_id: UUID
    kind: str
    notice_id: UUID | None
    revision: int | None
    envelope_hash: bytes
    sequenced_at: datetime
    answer: str | None


async def known(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the hash of each of these messages that was numbered here."""
    cursor = await tx.execute(
        "SELECT message_id, envelope_hash FROM sent WHERE message_id = ANY(%b::uuid[])",
        [list(messages)],
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


# A sequence that another message has stays its own: then two of them were signed.
_NUMBER = """
INSERT INTO sent (stream, generation, sequence, message_id, kind, notice_id, revision,
                  envelope_hash, sequenced_at, answer)
SELECT * FROM unnest(%b::text[], %b::int[], %b::bigint[], %b::uuid[], %b::text[], %b::uuid[],
                     %b::int[], %b::bytea[], %b::timestamptz[], %b::text[])
ON CONFLICT (stream, generation, sequence) DO NOTHING
RETURNING message_id
"""


async def number(tx: Transaction, rows: Sequence[SentRow]) -> set[UUID]:
    """Write rows of `sent` as they were; returns those whose sequence was free."""
    names = SentRow.__dataclass_fields__
    cursor = await tx.execute(_NUMBER, [[getattr(row, name) for row in rows] for name in names])
    return {row[0] for row in await cursor.fetchall()}


async def leave_outbox(tx: Transaction, messages: Sequence[UUID]) -> set[UUID]:
    """Take messages out of the outbox that were sent after the backup; returns those found."""
    cursor = await tx.execute(
        "DELETE FROM outbox WHERE message_id = ANY(%b::uuid[]) RETURNING message_id",
        [list(messages)],
    )
    return {row[0] for row in await cursor.fetchall()}


# Sequences up to one that the other agency has read and no message of ours stands for: as ranges.
_NOWHERE = """
SELECT min(sequence), max(sequence)
FROM (
    SELECT sequence, sequence - row_number() OVER (ORDER BY sequence) AS run
    FROM generate_series(1, %(last)s::bigint) AS t (sequence)
    WHERE NOT EXISTS (
        SELECT FROM sent AS s
        WHERE s.stream = %(stream)s AND s.generation = %(generation)s AND s.sequence = t.sequence)
) AS missing
GROUP BY run ORDER BY 1
"""


async def nowhere(
    tx: Transaction, *, stream: str, generation: int, last: int
) -> list[tuple[int, int]]:
    """Return the parts of a stream, up to `last`, that will never carry a message."""
    cursor = await tx.execute(_NOWHERE, {"stream": stream, "generation": generation, "last": last})
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def next_sequence(tx: Transaction, *, stream: str, generation: int) -> int:
    """Return the sequence after the last that is known here."""
    cursor = await tx.execute(
        "SELECT coalesce(max(sequence), 0) + 1 FROM sent WHERE stream = %s AND generation = %s",
        [stream, generation],
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Something that did not come back: its cause, and what is known of it."""

    lost_id: UUID
    cause: str
    stream: str | None = None
    generation: int | None = None
    first_sequence: int | None = None
    last_sequence: int | None = None
    message_id: UUID | None = None
    kind: str | None = None
    notice_id: UUID | None = None
    revision: int | None = None
    said_at: datetime | None = None
    found_at: datetime
    resolved_at: datetime | None = None


_COLUMNS = ", ".join(Lost.__dataclass_fields__)


async def lose(tx: Transaction, rows: Sequence[Lost]) -> None:
    """Note what is lost; what was noted before is not noted twice."""
    for row in rows:
        names = list(Lost.__dataclass_fields__)
        values = ", ".join(f"%({name})s" for name in names)
        await tx.execute(
            f"INSERT INTO lost ({_COLUMNS}) SELECT {values} WHERE NOT EXISTS ("  # noqa: S608 - constants
            " SELECT FROM lost WHERE stream IS NOT DISTINCT FROM %(stream)s"
            " AND generation IS NOT DISTINCT FROM %(generation)s"
            " AND first_sequence IS NOT DISTINCT FROM %(first_sequence)s)",
            {name: getattr(row, name) for name in names},
        )


async def lost(tx: Transaction, *, everything: bool = False) -> list[Lost]:
    """Return what is lost and unresolved, or all that ever was, oldest first."""
    async with tx.cursor(row_factory=class_row(Lost)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM lost WHERE %s OR resolved_at IS NULL"  # noqa: S608 - constants
            " ORDER BY found_at, stream, first_sequence, lost_id",
            [everything],
        )
        return await cursor.fetchall()


async def resolve(tx: Transaction, losses: Sequence[UUID], now: datetime) -> list[Lost]:
    """Note that a person dealt with these; returns those that were open."""
    async with tx.cursor(row_factory=class_row(Lost)) as cursor:
        await cursor.execute(
            "UPDATE lost SET resolved_at = %s"  # noqa: S608 - constants
            f" WHERE lost_id = ANY(%s::uuid[]) AND resolved_at IS NULL RETURNING {_COLUMNS}",
            [now, list(losses)],
        )
        return await cursor.fetchall()


async def recovered(tx: Transaction) -> int:
    """Return how many messages of ours came back after restores."""
    cursor = await tx.execute("SELECT count(*) FROM record WHERE action = 'message.recovered'")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
