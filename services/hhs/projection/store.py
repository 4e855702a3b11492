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
    """What the first revision decides."""

    notice_id: UUID
    lane: str
    opened_at: datetime
    due_at: datetime


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
       least(c.revision, coalesce(a.revision, c.revision)) AS applied_revision,
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


# A case that is gone comes back as its messages and its acts have it: closed if somebody closed it,
# else in the queue, and never counting its replies from one again. One that is there keeps all that
# and has its beginning put right.
_OPEN = """
INSERT INTO case_file AS c
    (notice_id, state, office, outcome, base_city, hearing_at, hearing_zone, priority, lane,
     revision, notice_kind, message_id, opened_at, due_at, taken_at, closed_at, outcome_code,
     reply_revision)
SELECT t.notice_id, CASE WHEN closed.happened_at IS NULL THEN 'unowned' ELSE 'closed' END,
       t.office, t.outcome, t.base_city, t.hearing_at, t.hearing_zone, t.priority, t.lane,
       t.revision, t.notice_kind, t.message_id, t.opened_at, t.due_at,
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
    SELECT max(revision) AS revision
    FROM (SELECT revision FROM sent WHERE sent.notice_id = t.notice_id
          UNION ALL SELECT revision FROM outbox WHERE outbox.notice_id = t.notice_id) AS ours
) AS replies ON true
"""

# The first due time holds until somebody takes the case; from then on it is another clock.
_SET_OPENING = """
UPDATE case_file AS c
SET lane = t.lane, opened_at = t.opened_at,
    due_at = CASE WHEN c.taken_at IS NULL AND c.state = 'unowned' AND t.fix_due THEN t.due_at
                  ELSE c.due_at END
FROM unnest(%b::uuid[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::bool[])
    AS t (notice_id, lane, opened_at, due_at, fix_due)
WHERE c.notice_id = t.notice_id
"""
