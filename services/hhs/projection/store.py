"""Statements about case files as far as notices decide them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsRow:
    """What the newest revision decides."""

    notice_id: UUID
    office: str
    outcome: str
    base_city: str
    hearing_at: datetime
    hearing_zone: str
    priority: str
    revision: int
    notice_kind: str
    message_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningRow:
    """What the first revision decides; a due time of None leaves the one that stands."""

    notice_id: UUID
    lane: str
    opened_at: datetime
    due_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow:
    """A case as it is stored.

    `applied_revision` is how far it came: never further than its messages did. `worked` says that
    somebody took it once, or that it is no longer open: then its due time is no longer the first.
    """

    notice_id: UUID
    office: str
    outcome: str
    base_city: str
    hearing_at: datetime
    hearing_zone: str
    priority: str
    revision: int
    notice_kind: str
    message_id: UUID
    lane: str
    opened_at: datetime
    due_at: datetime
    state: str
    applied_revision: int
    worked: bool


# The order in which intake takes locks: first how far the notice came, then its case.
_HOLD = (
    "SELECT FROM applied WHERE notice_id = ANY(%b::uuid[]) ORDER BY notice_id FOR UPDATE",
    "SELECT FROM case_file WHERE notice_id = ANY(%b::uuid[]) ORDER BY notice_id FOR UPDATE",
)


async def hold(tx: Transaction, notices: Sequence[UUID]) -> None:
    """Keep these notices and cases from changing until the transaction ends."""
    for statement in _HOLD:
        await tx.execute(statement, [list(notices)])


# A revision that no message brought is damage: it counts for no more than the last one applied.
_CASES = """
SELECT c.notice_id, c.office, c.outcome, c.base_city, c.hearing_at, c.hearing_zone, c.priority,
       c.revision, c.notice_kind, c.message_id, c.lane, c.opened_at, c.due_at, c.state,
       greatest(1, least(c.revision, a.revision)) AS applied_revision,
       c.taken_at IS NOT NULL OR c.state <> 'unowned' AS worked
FROM case_file AS c
LEFT JOIN applied AS a USING (notice_id)
WHERE c.notice_id = ANY(%b::uuid[])
"""


async def cases(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, CaseRow]:
    """Return the cases of these notices."""
    async with tx.cursor(row_factory=class_row(CaseRow)) as cursor:
        await cursor.execute(_CASES, [list(notices)])
        return {row.notice_id: row for row in await cursor.fetchall()}


# A case that is gone comes back as its notice and its acts have it: closed if somebody closed it,
# else in the queue; and it never counts its replies to ICE from one again.
_OPEN = """
INSERT INTO case_file (notice_id, state, office, outcome, base_city, hearing_at, hearing_zone,
                       priority, revision, notice_kind, message_id, lane, opened_at, due_at,
                       taken_at, closed_at, outcome_code, reply_revision)
SELECT t.notice_id, CASE WHEN closed.happened_at IS NULL THEN 'unowned' ELSE 'closed' END,
       t.office, t.outcome, t.base_city, t.hearing_at, t.hearing_zone, t.priority, t.revision,
       t.notice_kind, t.message_id, t.lane, t.opened_at, t.due_at,
       taken.happened_at, closed.happened_at, closed.code, coalesce(replies.revision, 0)
FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::text[],
            %b::text[], %b::int[], %b::text[], %b::uuid[],
            %b::text[], %b::timestamptz[], %b::timestamptz[])
    AS t (notice_id, office, outcome, base_city, hearing_at, hearing_zone, priority, revision,
          notice_kind, message_id, lane, opened_at, due_at)
LEFT JOIN LATERAL (
    SELECT min(happened_at) AS happened_at FROM case_event
    WHERE case_event.notice_id = t.notice_id AND event IN ('taken', 'taken_over')
) AS taken ON true
LEFT JOIN LATERAL (
    SELECT happened_at, code FROM case_event
    WHERE case_event.notice_id = t.notice_id AND event = 'closed'
    ORDER BY event_id DESC LIMIT 1
) AS closed ON true
LEFT JOIN LATERAL (
    SELECT max(revision) AS revision FROM (
        SELECT revision FROM sent WHERE sent.notice_id = t.notice_id
        UNION ALL
        SELECT revision FROM outbox WHERE outbox.notice_id = t.notice_id
    ) AS ours
) AS replies ON true
"""


async def open_again(tx: Transaction, rows: Sequence[tuple[FactsRow, OpeningRow]]) -> None:
    """Open cases that are gone."""
    if not rows:
        return
    facts = [[getattr(row, name) for row, _ in rows] for name in FactsRow.__dataclass_fields__]
    opening = [[getattr(row, name) for _, row in rows] for name in _OPENING_FIELDS]
    await tx.execute(_OPEN, [*facts, *opening])


_OPENING_FIELDS = ("lane", "opened_at", "due_at")

# How a case began; its due time stays where none is given.
_SET_OPENING = """
UPDATE case_file AS c
SET lane = t.lane, opened_at = t.opened_at, due_at = coalesce(t.due_at, c.due_at)
FROM unnest(%b::uuid[], %b::text[], %b::timestamptz[], %b::timestamptz[])
    AS t (notice_id, lane, opened_at, due_at)
WHERE c.notice_id = t.notice_id
"""


async def set_opening(tx: Transaction, rows: Sequence[OpeningRow]) -> None:
    """Put right how cases began."""
    if rows:
        names = ("notice_id", *_OPENING_FIELDS)
        await tx.execute(_SET_OPENING, [[getattr(row, name) for row in rows] for name in names])


_SET_FACTS = """
UPDATE case_file AS c
SET office = t.office, outcome = t.outcome, base_city = t.base_city, hearing_at = t.hearing_at,
    hearing_zone = t.hearing_zone, priority = t.priority, revision = t.revision,
    notice_kind = t.notice_kind, message_id = t.message_id
FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::text[],
            %b::text[], %b::int[], %b::text[], %b::uuid[])
    AS t (notice_id, office, outcome, base_city, hearing_at, hearing_zone, priority, revision,
          notice_kind, message_id)
WHERE c.notice_id = t.notice_id
"""


async def set_facts(tx: Transaction, rows: Sequence[FactsRow]) -> None:
    """Put right what is known of cases, at most one row a case; nothing about who works them."""
    if rows:
        names = FactsRow.__dataclass_fields__
        await tx.execute(_SET_FACTS, [[getattr(row, name) for row in rows] for name in names])


# As on arrival: a withdrawal takes a case off the queue and keeps what was done in it.
_WITHDRAW = """
UPDATE case_file AS c
SET state = 'withdrawn', closed_at = coalesce(c.closed_at, t.withdrawn_at)
FROM unnest(%b::uuid[], %b::timestamptz[]) AS t (notice_id, withdrawn_at)
WHERE c.notice_id = t.notice_id
"""


async def withdraw(tx: Transaction, withdrawn: Mapping[UUID, datetime]) -> None:
    """Take cases off the queue, each from when its withdrawal was taken."""
    if withdrawn:
        await tx.execute(_WITHDRAW, [list(withdrawn), list(withdrawn.values())])
