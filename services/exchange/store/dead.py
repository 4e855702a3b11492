"""Statements about what was set aside: dead letters, attempts, unauthenticated bytes, alarms."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from services.exchange.beginnings import Beginning
from services.exchange.store.redrives import LETTERS, WHERE, Chosen
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An entry set aside; ids and sequence are claims unless `authentic`."""

    dead_id: UUID
    stream: str
    entry_id: str
    bytes_hash: bytes
    envelope: bytes
    cause: str
    field: str | None
    schema_version: str | None
    authentic: bool
    message_id: UUID | None
    notice_id: UUID | None
    generation: int | None
    sequence: int | None
    first_at: datetime
    last_at: datetime
    arrivals: int
    state: str
    state_at: datetime
    office: str | None = None
    # The message that was applied in its place, once it is `corrected`.
    resolved_by: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that failed."""

    number: int
    cause: str
    failed_at: datetime


_COLUMNS = (
    "dead_id, stream, entry_id, bytes_hash, bytes, cause, field, schema_version, authentic,"
    " message_id, notice_id, generation, sequence, first_at, last_at, arrivals, state, state_at,"
    " office, resolved_by"
)


def _letter(row: tuple[object, ...]) -> DeadLetter:
    names = DeadLetter.__dataclass_fields__
    return DeadLetter(**dict(zip(names, row, strict=True)))  # type: ignore[arg-type]  # driver rows


# The same bytes again are the same dead letter, counted, with what is wrong with them now; one that
# was redriven opens again, one that a person discarded or that is refused for ever stays so.
_SET_ASIDE = """
INSERT INTO dead_letter (dead_id, stream, entry_id, bytes_hash, bytes, cause, field,
                         schema_version, authentic, message_id, notice_id, generation, sequence,
                         first_at, last_at, state, state_at, office)
VALUES (%(dead_id)s, %(stream)s, %(entry_id)s, %(bytes_hash)s, %(bytes)s, %(cause)s, %(field)s,
        %(schema_version)s, %(authentic)s, %(message_id)s, %(notice_id)s, %(generation)s,
        %(sequence)s, %(now)s, %(now)s, %(state)s, %(now)s, %(office)s)
ON CONFLICT (bytes_hash) DO UPDATE
    SET arrivals = dead_letter.arrivals + %(arrived)s::int,
        last_at = CASE WHEN %(arrived)s::int = 1 THEN EXCLUDED.last_at
                       ELSE dead_letter.last_at END,
        cause = EXCLUDED.cause, field = EXCLUDED.field, schema_version = EXCLUDED.schema_version,
        authentic = EXCLUDED.authentic, office = coalesce(EXCLUDED.office, dead_letter.office),
        state = CASE WHEN dead_letter.state IN ('open', 'redriven') THEN EXCLUDED.state
                     ELSE dead_letter.state END
RETURNING dead_id, arrivals
"""


async def set_aside(
    tx: Transaction, letter: DeadLetter, *, arrived: bool = True
) -> tuple[UUID, int]:
    """Keep an entry that cannot be taken; returns its dead letter's id and how often it arrived.

    One that was `arrived` no further time, but tried again from here, counts no arrival.
    """
    cursor = await tx.execute(
        _SET_ASIDE,
        {
            "dead_id": letter.dead_id,
            "stream": letter.stream,
            "entry_id": letter.entry_id,
            "bytes_hash": letter.bytes_hash,
            "bytes": letter.envelope,
            "cause": letter.cause,
            "field": letter.field,
            "schema_version": letter.schema_version,
            "authentic": letter.authentic,
            "message_id": letter.message_id,
            "notice_id": letter.notice_id,
            "generation": letter.generation,
            "sequence": letter.sequence,
            "now": letter.first_at,
            "state": letter.state,
            "office": letter.office,
            "arrived": int(arrived),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def letters(tx: Transaction, chosen: Chosen, *, limit: int) -> list[DeadLetter]:
    """Return dead letters, newest first."""
    cursor = await tx.execute(
        f"SELECT {_COLUMNS} FROM ({LETTERS}) AS letter {WHERE}"  # noqa: S608 - constants
        " ORDER BY last_at DESC, dead_id LIMIT %(limit)s",
        {**asdict(chosen), "limit": limit},
    )
    return [_letter(row) for row in await cursor.fetchall()]


async def by_ids(tx: Transaction, letters: Sequence[UUID]) -> list[DeadLetter]:
    """Return these dead letters, in the order given."""
    cursor = await tx.execute(
        f"SELECT {_COLUMNS} FROM dead_letter"  # noqa: S608 - a constant list of columns
        " JOIN unnest(%b::uuid[]) WITH ORDINALITY AS t (dead_id, position) USING (dead_id)"
        " ORDER BY t.position",
        [list(letters)],
    )
    return [_letter(row) for row in await cursor.fetchall()]


async def named(tx: Transaction, begins: Beginning) -> list[UUID]:
    """Return the ids that begin so, at most three."""
    cursor = await tx.execute(
        "SELECT dead_id FROM dead_letter WHERE dead_id BETWEEN %s AND %s LIMIT 3", begins
    )
    return [row[0] for row in await cursor.fetchall()]


async def resolve(tx: Transaction, hashes: Sequence[bytes], now: datetime) -> None:
    """Close open dead letters whose exact bytes were taken after all, and so were vouched for."""
    await tx.execute(
        "UPDATE dead_letter SET state = 'redriven', state_at = %s, authentic = true"
        " WHERE bytes_hash = ANY(%b::bytea[]) AND state = 'open'",
        [now, list(hashes)],
    )


async def cause_of(tx: Transaction, bytes_hash: bytes) -> str | None:
    """Return why these exact bytes were set aside, None if they were not."""
    cursor = await tx.execute("SELECT cause FROM dead_letter WHERE bytes_hash = %s", [bytes_hash])
    row = await cursor.fetchone()
    return row[0] if row else None


async def first_arrivals(tx: Transaction, hashes: Sequence[bytes]) -> dict[bytes, datetime]:
    """Return when these exact bytes first arrived, where they were set aside before."""
    cursor = await tx.execute(
        "SELECT bytes_hash, first_at FROM dead_letter WHERE bytes_hash = ANY(%b::bytea[])",
        [list(hashes)],
    )
    return {bytes(row[0]): row[1] for row in await cursor.fetchall()}


# Open dead letters of revisions that a message stands in for which was applied.
_CORRECT = """
UPDATE dead_letter AS d
SET state = 'corrected', state_at = %(now)s, resolved_by = t.message_id
FROM unnest(%(notices)b::uuid[], %(revisions)b::int[], %(messages)b::uuid[])
    AS t (notice_id, revision, message_id)
JOIN inbox AS s ON s.notice_id = t.notice_id AND s.revision < t.revision AND s.state = 'superseded'
WHERE d.message_id = s.message_id AND d.authentic AND d.state = 'open'
RETURNING d.dead_id, d.notice_id, d.message_id, t.message_id
"""


async def correct(
    tx: Transaction, applied: Sequence[tuple[UUID, int, UUID]], now: datetime
) -> list[tuple[UUID, UUID, UUID, UUID]]:
    """Close dead letters in whose place messages (notice, revision, id) were applied.

    Returns (dead letter, notice, refused message, message in its place) of each.
    """
    cursor = await tx.execute(
        _CORRECT,
        {
            "notices": [each[0] for each in applied],
            "revisions": [each[1] for each in applied],
            "messages": [each[2] for each in applied],
            "now": now,
        },
    )
    return [(row[0], row[1], row[2], row[3]) for row in await cursor.fetchall()]


async def any_open(tx: Transaction) -> bool:
    """Return whether any dead letter is open: spares the hot path a search."""
    cursor = await tx.execute("SELECT EXISTS (SELECT FROM dead_letter WHERE state = 'open')")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def add_attempt(
    tx: Transaction,
    *,
    bytes_hash: bytes,
    stream: str,
    generation: int | None,
    sequence: int | None,
    cause: str,
    now: datetime,
) -> int:
    """Note a failed attempt of these bytes; returns its 1-based number."""
    cursor = await tx.execute(
        "INSERT INTO attempt (bytes_hash, number, stream, generation, sequence, cause, failed_at)"
        " SELECT %(hash)s, count(*) + 1, %(stream)s, %(generation)s, %(sequence)s, %(cause)s,"
        " %(now)s FROM attempt WHERE bytes_hash = %(hash)s RETURNING number",
        {
            "hash": bytes_hash,
            "stream": stream,
            "generation": generation,
            "sequence": sequence,
            "cause": cause,
            "now": now,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def attempts(tx: Transaction, bytes_hash: bytes) -> list[Attempt]:
    """Return the failed attempts of these bytes, first to last."""
    cursor = await tx.execute(
        "SELECT number, cause, failed_at FROM attempt WHERE bytes_hash = %s ORDER BY number",
        [bytes_hash],
    )
    return [Attempt(number=r[0], cause=r[1], failed_at=r[2]) for r in await cursor.fetchall()]


async def count_unauthenticated(
    tx: Transaction, stream: str, cause: str, arrivals: int, now: datetime
) -> None:
    """Count bytes that nobody vouched for, per cause and minute."""
    await tx.execute(
        "INSERT INTO unauthenticated (stream, cause, minute, arrivals)"
        " VALUES (%s, %s, date_trunc('minute', %s::timestamptz), %s)"
        " ON CONFLICT (stream, cause, minute) DO UPDATE"
        " SET arrivals = unauthenticated.arrivals + EXCLUDED.arrivals",
        [stream, cause, now, arrivals],
    )


async def ended_minutes(tx: Transaction, now: datetime) -> list[tuple[str, str, datetime, int]]:
    """Return (stream, cause, minute, arrivals) of minutes that ended, marking them as recorded."""
    cursor = await tx.execute(
        "UPDATE unauthenticated SET recorded_at = %s"
        " WHERE recorded_at IS NULL AND minute < date_trunc('minute', %s::timestamptz)"
        " RETURNING stream, cause, minute, arrivals",
        [now, now],
    )
    return [(row[0], row[1], row[2], row[3]) for row in await cursor.fetchall()]


async def raise_alarm(tx: Transaction, code: str, subject: str, now: datetime) -> None:
    """Raise an alarm, or count it again while it is open."""
    await tx.execute(
        "INSERT INTO alarm (code, subject, raised_at, last_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (code, subject) WHERE cleared_at IS NULL DO UPDATE"
        " SET last_at = EXCLUDED.last_at, times = alarm.times + 1",
        [code, subject, now, now],
    )


async def is_open(tx: Transaction, code: str, subject: str) -> bool:
    """Return whether an alarm is raised and its cause not gone."""
    cursor = await tx.execute(
        "SELECT FROM alarm WHERE code = %s AND subject = %s AND cleared_at IS NULL",
        [code, subject],
    )
    return await cursor.fetchone() is not None


async def clear_alarm(tx: Transaction, code: str, subject: str, now: datetime) -> None:
    """Clear an alarm whose cause is gone."""
    await tx.execute(
        "UPDATE alarm SET cleared_at = %s WHERE code = %s AND subject = %s AND cleared_at IS NULL",
        [now, code, subject],
    )
