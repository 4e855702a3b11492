"""Statements about what people do with dead letters: choosing, groups, redrives, discards."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.exchange.beginnings import Beginning
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which dead letters are meant; None leaves a property open."""

    state: str | None = "open"
    cause: str | None = None
    group: str | None = None
    office: str | None = None
    lane: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters of one cause and schema version.

    `because` is the error behind attempts that were used up, `tried_at` when somebody last tried to
    redrive one of them.
    """

    group_id: str
    cause: str
    because: str | None
    schema_version: str | None
    count: int
    first_at: datetime
    last_at: datetime
    fields: list[str]
    offices: list[str]
    lanes: list[str]
    tried_at: datetime | None


# What the letters of a group share. Attempts that were used up say nothing: the last one does.
LETTERS = """
    SELECT d.*, split_part(d.stream, '.', 3) AS lane,
           concat_ws('.', d.cause, a.because,
                     coalesce(replace(d.schema_version, '/', '-'), 'unread')) AS group_id,
           a.because
    FROM dead_letter AS d
    LEFT JOIN LATERAL (
        SELECT cause AS because FROM attempt
        WHERE attempt.bytes_hash = d.bytes_hash AND d.cause = 'NB-2110'
        ORDER BY number DESC LIMIT 1
    ) AS a ON true
"""
WHERE = """
    WHERE (%(state)s::text IS NULL OR state = %(state)s)
      AND (%(cause)s::text IS NULL OR cause = %(cause)s)
      AND (%(group)s::text IS NULL OR group_id = %(group)s)
      AND (%(office)s::text IS NULL OR office = %(office)s)
      AND (%(lane)s::text IS NULL OR lane = %(lane)s)
      AND (%(since)s::timestamptz IS NULL OR first_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR first_at < %(until)s)
"""

_GROUPS = f"""
SELECT l.group_id, l.cause, l.because, l.schema_version, count(*) AS count,
       min(l.first_at) AS first_at, max(l.last_at) AS last_at,
       array_remove(array_agg(DISTINCT l.field), NULL) AS fields,
       array_remove(array_agg(DISTINCT l.office), NULL) AS offices,
       array_agg(DISTINCT l.lane) AS lanes, max(i.tried_at) AS tried_at
FROM ({LETTERS}) AS l
LEFT JOIN LATERAL (
    SELECT max(tried_at) AS tried_at FROM redrive_item WHERE redrive_item.dead_id = l.dead_id
) AS i ON true
{WHERE}
GROUP BY l.group_id, l.cause, l.because, l.schema_version
ORDER BY count DESC, l.group_id
"""  # noqa: S608 - constants


async def groups(tx: Transaction, chosen: Chosen) -> list[Group]:
    """Return the groups of what is chosen, the largest first."""
    async with tx.cursor(row_factory=class_row(Group)) as cursor:
        await cursor.execute(_GROUPS, asdict(chosen))
        return await cursor.fetchall()


# Today's children before a backlog, and each stream in the order in which it was written.
_IN_ORDER = f"""
SELECT dead_id FROM ({LETTERS}) AS l
{WHERE}
ORDER BY array_position(ARRAY['control', 'live', 'backlog'], lane), stream, generation, sequence,
         first_at, dead_id
"""  # noqa: S608 - constants


async def chosen_ids(tx: Transaction, chosen: Chosen) -> list[UUID]:
    """Return the ids of what is chosen, in the order in which it is tried."""
    cursor = await tx.execute(_IN_ORDER, asdict(chosen))
    return [row[0] for row in await cursor.fetchall()]


async def in_order(tx: Transaction, letters: Sequence[UUID]) -> list[UUID]:
    """Return these dead letters in the order in which they are tried."""
    cursor = await tx.execute(
        "SELECT dead_id FROM dead_letter WHERE dead_id = ANY(%b)"
        " ORDER BY array_position(ARRAY['control', 'live', 'backlog'], split_part(stream, '.', 3)),"
        " stream, generation, sequence, first_at, dead_id",
        [list(letters)],
    )
    return [row[0] for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a dead letter stands; `inbox` is the state of its message there, None if unknown."""

    dead_id: UUID
    state: str
    cause: str
    notice_id: UUID | None
    message_id: UUID | None
    authentic: bool
    inbox: str | None


_STANDING = """
SELECT d.dead_id, d.state, d.cause, d.notice_id, d.message_id, d.authentic, i.state AS inbox
FROM dead_letter AS d LEFT JOIN inbox AS i USING (message_id)
WHERE d.dead_id = ANY(%b) ORDER BY d.dead_id
"""


async def standing(tx: Transaction, letters: Sequence[UUID]) -> dict[UUID, Standing]:
    """Return where dead letters stand."""
    async with tx.cursor(row_factory=class_row(Standing)) as cursor:
        await cursor.execute(_STANDING, [list(letters)])
        return {row.dead_id: row for row in await cursor.fetchall()}


async def hold(tx: Transaction, letters: Sequence[UUID]) -> dict[UUID, Standing]:
    """Return where dead letters stand, and keep them so until the transaction ends."""
    await tx.execute(
        "SELECT FROM dead_letter WHERE dead_id = ANY(%b) ORDER BY dead_id FOR UPDATE",
        [list(letters)],
    )
    return await standing(tx, letters)


async def open_again(tx: Transaction, letters: Sequence[UUID], now: datetime) -> None:
    """Open discarded letters that a person asked by name to redrive."""
    await tx.execute(
        "UPDATE dead_letter SET state = 'open', state_at = %s"
        " WHERE dead_id = ANY(%b) AND state = 'discarded'",
        [now, list(letters)],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveRow:
    """One order to redrive, with what came of its letters so far."""

    redrive_id: UUID
    state: str
    actor: str
    reason: str
    rate: int | None
    asked: int
    taken: int
    held: int
    failed: int
    passed: int
    begun_at: datetime
    ended_at: datetime | None


async def begin(
    tx: Transaction,
    redrive_id: UUID,
    letters: Sequence[UUID],
    *,
    actor: str,
    reason: str,
    rate: int | None,
    now: datetime,
) -> None:
    """Write an order to redrive, its letters in the order in which they are tried."""
    await tx.execute(
        "INSERT INTO redrive (redrive_id, state, actor, reason, rate, asked, begun_at)"
        " VALUES (%s, 'running', %s, %s, %s, %s, %s)",
        [redrive_id, actor, reason, rate, len(letters), now],
    )
    await tx.execute(
        "INSERT INTO redrive_item (redrive_id, position, dead_id)"
        " SELECT %s, position, dead_id FROM unnest(%b::uuid[]) WITH ORDINALITY"
        " AS t (dead_id, position)",
        [redrive_id, list(letters)],
    )


_REDRIVES = """
SELECT r.redrive_id, r.state, r.actor, r.reason, r.rate, r.asked, r.begun_at, r.ended_at,
       count(*) FILTER (WHERE i.outcome = 'taken') AS taken,
       count(*) FILTER (WHERE i.outcome = 'held') AS held,
       count(*) FILTER (WHERE i.outcome = 'failed') AS failed,
       count(*) FILTER (WHERE i.outcome = 'passed') AS passed
FROM redrive AS r JOIN redrive_item AS i USING (redrive_id)
WHERE %(low)s::uuid IS NULL OR r.redrive_id BETWEEN %(low)s AND %(high)s
GROUP BY r.redrive_id ORDER BY r.begun_at DESC LIMIT %(limit)s
"""


async def redrives(
    tx: Transaction, *, begins: Beginning | None = None, limit: int = 1_000
) -> list[RedriveRow]:
    """Return redrives, newest first; those whose id `begins` so, if that is given."""
    async with tx.cursor(row_factory=class_row(RedriveRow)) as cursor:
        low, high = begins or (None, None)
        await cursor.execute(_REDRIVES, {"low": low, "high": high, "limit": limit})
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A dead letter that is to be tried, with its exact bytes."""

    position: int
    dead_id: UUID
    stream: str
    entry_id: str
    envelope: bytes
    state: str


async def next_items(tx: Transaction, redrive_id: UUID, limit: int) -> list[Item]:
    """Return the next letters of a redrive that were not tried, in order."""
    async with tx.cursor(row_factory=class_row(Item)) as cursor:
        await cursor.execute(
            "SELECT i.position, i.dead_id, d.stream, d.entry_id, d.bytes AS envelope, d.state"
            " FROM redrive_item AS i JOIN dead_letter AS d USING (dead_id)"
            " WHERE i.redrive_id = %s AND i.outcome IS NULL ORDER BY i.position LIMIT %s",
            [redrive_id, limit],
        )
        return await cursor.fetchall()


async def blame_attempts(tx: Transaction, dead_id: UUID) -> None:
    """Say that what keeps a letter dead is now the error of its last attempt."""
    await tx.execute(
        "UPDATE dead_letter SET cause = 'NB-2110', field = NULL WHERE dead_id = %s", [dead_id]
    )


async def note_outcomes(
    tx: Transaction,
    redrive_id: UUID,
    outcomes: Sequence[tuple[UUID, str, str | None]],
    now: datetime,
) -> None:
    """Note what came of letters (id, outcome, cause)."""
    await tx.execute(
        "UPDATE redrive_item AS i SET outcome = t.outcome, cause = t.cause, tried_at = %s"
        " FROM unnest(%b::uuid[], %b::text[], %b::text[]) AS t (dead_id, outcome, cause)"
        " WHERE i.redrive_id = %s AND i.dead_id = t.dead_id",
        [now, *([each[part] for each in outcomes] for part in range(3)), redrive_id],
    )


async def end(tx: Transaction, redrive_id: UUID, now: datetime) -> bool:
    """Note that a redrive is done; False if it was already."""
    cursor = await tx.execute(
        "UPDATE redrive SET state = 'done', ended_at = %s"
        " WHERE redrive_id = %s AND state = 'running'",
        [now, redrive_id],
    )
    return cursor.rowcount == 1


async def failures(tx: Transaction, redrive_id: UUID) -> list[tuple[str, str | None, int]]:
    """Return (group, cause, count) of what failed again in a redrive, the most first."""
    cursor = await tx.execute(
        f"SELECT l.group_id, i.cause, count(*) FROM redrive_item AS i"  # noqa: S608 - constants
        f" JOIN ({LETTERS}) AS l USING (dead_id)"
        " WHERE i.redrive_id = %s AND i.outcome = 'failed' GROUP BY 1, 2 ORDER BY 3 DESC, 1",
        [redrive_id],
    )
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]


async def failed_letters(
    tx: Transaction, redrive_id: UUID, limit: int
) -> list[tuple[UUID, str | None, str]]:
    """Return (id, cause, group) of letters that failed again, in the order of trying."""
    cursor = await tx.execute(
        f"SELECT i.dead_id, i.cause, l.group_id FROM redrive_item AS i"  # noqa: S608 - see above
        f" JOIN ({LETTERS}) AS l USING (dead_id)"
        " WHERE i.redrive_id = %s AND i.outcome = 'failed' ORDER BY i.position LIMIT %s",
        [redrive_id, limit],
    )
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a person did with a dead letter: `redrive` or `discard`, why, and what came of it."""

    act: str
    redrive_id: UUID | None
    happened_at: datetime
    actor: str
    reason: str
    outcome: str | None
    cause: str | None


_HISTORY = """
SELECT 'redrive' AS act, r.redrive_id, coalesce(i.tried_at, r.begun_at) AS happened_at, r.actor,
       r.reason, i.outcome, i.cause
FROM redrive_item AS i JOIN redrive AS r USING (redrive_id) WHERE i.dead_id = %(dead_id)s
UNION ALL
SELECT 'discard', NULL, discarded_at, actor, reason, code, NULL
FROM discard WHERE dead_id = %(dead_id)s
ORDER BY happened_at
"""


async def history(tx: Transaction, dead_id: UUID) -> list[Act]:
    """Return what people did with a dead letter, first to last."""
    async with tx.cursor(row_factory=class_row(Act)) as cursor:
        await cursor.execute(_HISTORY, {"dead_id": dead_id})
        return await cursor.fetchall()


async def discard(
    tx: Transaction,
    letters: Sequence[UUID],
    *,
    code: str,
    reason: str,
    actor: str,
    now: datetime,
) -> None:
    """Mark dead letters as never to be taken, and note who decided that; nothing is deleted."""
    await tx.execute(
        "UPDATE dead_letter SET state = 'discarded', state_at = %s WHERE dead_id = ANY(%b)",
        [now, list(letters)],
    )
    await tx.execute(
        "INSERT INTO discard (dead_id, code, reason, actor, discarded_at)"
        " SELECT dead_id, %s, %s, %s, %s FROM unnest(%b::uuid[]) AS t (dead_id)",
        [code, reason, actor, now, list(letters)],
    )
