"""Statements about cases: opened when a notice arrives, worked by one person at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.exchange.beginnings import Beginning
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """A case as it stands; without a child's identity."""

    notice_id: UUID
    state: str
    office: str
    outcome: str
    base_city: str
    hearing_at: datetime
    hearing_zone: str
    priority: str
    lane: str
    revision: int
    notice_kind: str
    message_id: UUID
    opened_at: datetime
    due_at: datetime
    owner: str | None
    lease_until: datetime | None
    taken_at: datetime | None
    closed_at: datetime | None
    outcome_code: str | None
    reply_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivedRow:
    """What a case takes over from a revision of its notice."""

    notice_id: UUID
    office: str
    outcome: str
    base_city: str
    hearing_at: datetime
    hearing_zone: str
    priority: str
    lane: str
    revision: int
    notice_kind: str
    message_id: UUID
    opened_at: datetime
    due_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEvent:
    """One act on a case."""

    event: str
    code: str | None
    actor: str | None
    happened_at: datetime


_CASE_COLUMNS = ", ".join(CaseFile.__dataclass_fields__)

# A reply that was sent before a restore has its number, though the case does not know of it.
_NEXT_REPLY = """
SELECT greatest(%(stands)s, coalesce(max(revision), 0)) + 1 FROM sent WHERE notice_id = %(notice)s
"""


async def next_reply(tx: Transaction, case: CaseFile) -> int:
    """Return the revision of the next reply about a case."""
    cursor = await tx.execute(
        _NEXT_REPLY, {"stands": case.reply_revision, "notice": case.notice_id}
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


# What the arrays of a batch of arrived revisions become; `_arrays` has the same order.
_ARRIVED = """
unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::text[],
       %b::text[], %b::int[], %b::text[], %b::uuid[], %b::timestamptz[], %b::timestamptz[],
       %b::timestamptz[])
    AS t (notice_id, office, outcome, base_city, hearing_at, hearing_zone, priority, lane,
          revision, notice_kind, message_id, opened_at, due_at, received_at)
"""


def _arrays(rows: Sequence[ArrivedRow]) -> list[object]:
    return [[getattr(row, name) for row in rows] for name in ArrivedRow.__dataclass_fields__]


# One case for each notice; exactly once is the inbox's doing, so a second row would be a bug.
_OPEN = f"""
INSERT INTO case_file (notice_id, state, office, outcome, base_city, hearing_at, hearing_zone,
                       priority, lane, revision, notice_kind, message_id, due_at, opened_at)
SELECT t.notice_id, 'unowned', t.office, t.outcome, t.base_city, t.hearing_at, t.hearing_zone,
       t.priority, t.lane, t.revision, t.notice_kind, t.message_id, t.due_at, t.opened_at
FROM {_ARRIVED}
"""  # noqa: S608 - a constant


async def open_cases(tx: Transaction, rows: Sequence[ArrivedRow]) -> None:
    """Open a case for each new notice, each from when its notice arrived."""
    await tx.execute(_OPEN, _arrays(rows))


# Where a withdrawn case goes back to when ICE takes the withdrawal back: it is as if it never was.
RESUMED = """
CASE WHEN c.outcome_code IS NOT NULL THEN 'closed'
     WHEN c.owner IS NOT NULL AND c.lease_until IS NOT NULL THEN 'taken'
     ELSE 'unowned' END
"""

# A withdrawal closes a case that is still open and leaves alone what was done in it; a correction
# after it takes it back. Every other revision changes what is known and nothing about who works it.
_REVISE = f"""
UPDATE case_file AS c
SET office = t.office, outcome = t.outcome, base_city = t.base_city, hearing_at = t.hearing_at,
    hearing_zone = t.hearing_zone, priority = t.priority, revision = t.revision,
    notice_kind = t.notice_kind, message_id = t.message_id,
    state = CASE WHEN t.notice_kind = 'WITHDRAWAL' THEN 'withdrawn'
                 WHEN t.notice_kind = 'CORRECTION' AND c.state = 'withdrawn' THEN {RESUMED}
                 ELSE c.state END,
    closed_at = CASE WHEN t.notice_kind = 'WITHDRAWAL' THEN coalesce(c.closed_at, t.received_at)
                     WHEN t.notice_kind = 'CORRECTION' AND c.state = 'withdrawn'
                         AND c.outcome_code IS NULL THEN NULL
                     ELSE c.closed_at END
FROM {_ARRIVED}
WHERE c.notice_id = t.notice_id
RETURNING c.notice_id
"""  # noqa: S608 - a constant


async def revise_cases(tx: Transaction, rows: Sequence[ArrivedRow]) -> set[UUID]:
    """Apply corrections, status updates and withdrawals, at most one a case; returns the found."""
    cursor = await tx.execute(_REVISE, _arrays(rows))
    return {row[0] for row in await cursor.fetchall()}


async def lock_case(tx: Transaction, notice_id: UUID) -> CaseFile | None:
    """Return a case, its row held until the transaction ends."""
    async with tx.cursor(row_factory=class_row(CaseFile)) as cursor:
        await cursor.execute(
            f"SELECT {_CASE_COLUMNS} FROM case_file"  # noqa: S608 - a constant list of columns
            " WHERE notice_id = %s FOR UPDATE",
            [notice_id],
        )
        return await cursor.fetchone()


async def read_case(tx: Transaction, notice_id: UUID) -> CaseFile | None:
    """Return a case."""
    async with tx.cursor(row_factory=class_row(CaseFile)) as cursor:
        await cursor.execute(
            f"SELECT {_CASE_COLUMNS} FROM case_file"  # noqa: S608 - a constant list of columns
            " WHERE notice_id = %s",
            [notice_id],
        )
        return await cursor.fetchone()


# The case that is due first and that nobody works now. Two people who ask at once get two cases.
_NEXT = f"""
SELECT {_CASE_COLUMNS} FROM case_file
WHERE (state = 'unowned' OR state = 'taken' AND lease_until <= %(now)s)
  AND (%(office)s::text IS NULL OR office = %(office)s)
ORDER BY due_at, notice_id LIMIT 1
FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - a constant list of columns


async def lock_next(tx: Transaction, *, office: str | None, now: datetime) -> CaseFile | None:
    """Return the next case that can be taken, its row held, or None when there is none."""
    async with tx.cursor(row_factory=class_row(CaseFile)) as cursor:
        await cursor.execute(_NEXT, {"office": office, "now": now})
        return await cursor.fetchone()


# Taking starts the outcome's clock only the first time; a handover or a renewal keeps it.
_TAKE = """
UPDATE case_file
SET state = 'taken', owner = %(owner)s, lease_until = %(lease_until)s,
    taken_at = coalesce(taken_at, %(now)s), due_at = %(due_at)s,
    reply_revision = %(reply_revision)s
WHERE notice_id = %(notice_id)s
"""


async def set_taken(
    tx: Transaction,
    notice_id: UUID,
    *,
    owner: str,
    lease_until: datetime,
    due_at: datetime,
    reply_revision: int,
    now: datetime,
) -> None:
    """Give a case to a person until the lease ends."""
    await tx.execute(
        _TAKE,
        {
            "notice_id": notice_id,
            "owner": owner,
            "lease_until": lease_until,
            "due_at": due_at,
            "reply_revision": reply_revision,
            "now": now,
        },
    )


async def set_released(tx: Transaction, notice_id: UUID, *, due_at: datetime) -> None:
    """Put a case back into the queue."""
    await tx.execute(
        "UPDATE case_file SET state = 'unowned', owner = NULL, lease_until = NULL, due_at = %s"
        " WHERE notice_id = %s",
        [due_at, notice_id],
    )


async def set_closed(
    tx: Transaction, notice_id: UUID, *, code: str, reply_revision: int, now: datetime
) -> None:
    """Close a case with its outcome."""
    await tx.execute(
        "UPDATE case_file SET state = 'closed', outcome_code = %s, reply_revision = %s,"
        " closed_at = %s, lease_until = NULL WHERE notice_id = %s",
        [code, reply_revision, now, notice_id],
    )


async def add_events(
    tx: Transaction,
    events: Sequence[tuple[UUID, CaseEvent]],
    records: Sequence[int],
) -> None:
    """Note acts on cases, each beside its ledger record."""
    await tx.execute(
        "INSERT INTO case_event (notice_id, event, code, actor, happened_at, record_id)"
        " SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::timestamptz[],"
        " %s::bigint[])",
        [
            [notice_id for notice_id, _ in events],
            [event.event for _, event in events],
            [event.code for _, event in events],
            [event.actor for _, event in events],
            [event.happened_at for _, event in events],
            list(records),
        ],
    )


async def events_of(tx: Transaction, notice_id: UUID) -> list[CaseEvent]:
    """Return what people did with a case, first to last."""
    async with tx.cursor(row_factory=class_row(CaseEvent)) as cursor:
        await cursor.execute(
            "SELECT event, code, actor, happened_at FROM case_event"
            " WHERE notice_id = %s ORDER BY record_id, event_id",
            [notice_id],
        )
        return await cursor.fetchall()


# A page of the queue: what is due first comes first. Closed cases only when asked for.
_PAGE = f"""
SELECT {_CASE_COLUMNS} FROM case_file
WHERE (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
  AND (%(office)s::text IS NULL OR office = %(office)s)
  AND (%(owner)s::text IS NULL OR owner = %(owner)s)
  AND (%(after_due)s::timestamptz IS NULL
       OR (due_at, notice_id) > (%(after_due)s, %(after_id)s::uuid))
ORDER BY due_at, notice_id LIMIT %(limit)s
"""  # noqa: S608 - a constant list of columns


async def page(
    tx: Transaction,
    *,
    states: Sequence[str] | None,
    office: str | None,
    owner: str | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[CaseFile]:
    """Return up to `limit` cases after (due time, notice id), in that order."""
    async with tx.cursor(row_factory=class_row(CaseFile)) as cursor:
        await cursor.execute(
            _PAGE,
            {
                "states": None if states is None else list(states),
                "office": office,
                "owner": owner,
                "after_due": after[0] if after else None,
                "after_id": after[1] if after else None,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def bodies(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the plain content of messages, where it was not erased."""
    cursor = await tx.execute(
        "SELECT message_id, body FROM payload WHERE message_id = ANY(%s) AND body IS NOT NULL",
        [list(messages)],
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def named(tx: Transaction, begins: Beginning) -> list[UUID]:
    """Return the notices whose id begins so, at most three."""
    cursor = await tx.execute(
        "SELECT notice_id FROM case_file WHERE notice_id BETWEEN %s AND %s"
        " ORDER BY notice_id LIMIT 3",
        begins,
    )
    return [row[0] for row in await cursor.fetchall()]
