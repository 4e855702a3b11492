"""Statements about case files as far as notices decide them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from services.hhs.rebuilding.store import ACTS
from services.hhs.store import RESUMED
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
    `resumed` is its state if it is not, or no longer, withdrawn.
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
    resumed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """What a notice went through on its way to its case.

    `arrivals` has, by revision, when what was set aside first came; `passed` are the revisions that
    a later one stands in for.
    """

    arrivals: Mapping[int, datetime]
    passed: frozenset[int]


# Revisions that were set aside first: a later one stands in for them, or their own bytes were taken
# in the end.
_WAITED = """
SELECT i.notice_id, i.revision, i.received_at, i.state = 'superseded'
FROM inbox AS i
WHERE i.notice_id = ANY(%b::uuid[])
  AND (i.state = 'superseded'
       OR EXISTS (SELECT FROM dead_letter AS d WHERE d.message_id = i.message_id))
"""


async def waited(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, Waited]:
    """Return the notices of which something was set aside before it, or another, was taken."""
    cursor = await tx.execute(_WAITED, [list(notices)])
    arrivals: dict[UUID, dict[int, datetime]] = {}
    passed: dict[UUID, set[int]] = {}
    for notice_id, revision, received_at, superseded in await cursor.fetchall():
        arrivals.setdefault(notice_id, {})[revision] = received_at
        if superseded:
            passed.setdefault(notice_id, set()).add(revision)
    return {
        notice_id: Waited(arrivals=came, passed=frozenset(passed.get(notice_id, ())))
        for notice_id, came in arrivals.items()
    }


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
_CASES = f"""
SELECT c.notice_id, c.office, c.outcome, c.base_city, c.hearing_at, c.hearing_zone, c.priority,
       c.revision, c.notice_kind, c.message_id, c.lane, c.opened_at, c.due_at, c.state,
       greatest(1, least(c.revision, a.revision)) AS applied_revision,
       c.taken_at IS NOT NULL OR c.state <> 'unowned' AS worked, {RESUMED} AS resumed
FROM case_file AS c
LEFT JOIN applied AS a USING (notice_id)
WHERE c.notice_id = ANY(%b::uuid[])
"""  # noqa: S608 - a constant


async def cases(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, CaseRow]:
    """Return the cases of these notices."""
    async with tx.cursor(row_factory=class_row(CaseRow)) as cursor:
        await cursor.execute(_CASES, [list(notices)])
        return {row.notice_id: row for row in await cursor.fetchall()}


# The withdrawal or correction that was applied last, as far as it is known.
_TURNED = """
SELECT DISTINCT ON (e.notice_id) e.notice_id, r.message_id
FROM case_event AS e JOIN record AS r USING (record_id)
WHERE e.notice_id = ANY(%b::uuid[]) AND e.event IN ('withdrawn', 'corrected')
ORDER BY e.notice_id, e.record_id DESC
"""


async def turned(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return the message that said last whether these notices are withdrawn."""
    if not notices:
        return {}
    cursor = await tx.execute(_TURNED, [list(notices)])
    return {row[0]: row[1] for row in await cursor.fetchall()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActRow:
    """A record of an act on a case, or of the arrival of a message: then `event` is None.

    `record` is None while its bytes are in an archive. `kept` says that `case_event` has the act,
    with `code` and `actor`; `body` is the content of a revision that was applied.
    """

    record_id: int
    notice_id: UUID
    action: str
    event: str | None
    message_id: UUID | None
    at: datetime
    record: bytes | None
    opened: dict[str, Any] | None
    kept: bool
    code: str | None
    actor: str | None
    body: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRow:
    """What people did with a case: how it stands, who has it, when it is due."""

    state: str
    owner: str | None
    lease_until: datetime | None
    taken_at: datetime | None
    closed_at: datetime | None
    outcome_code: str | None
    reply_revision: int
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One act as `case_event` tells it."""

    notice_id: UUID
    event: str
    code: str | None
    actor: str | None
    happened_at: datetime
    record_id: int


_WORKED = """
SELECT r.record_id, r.notice_id, r.action,
       CASE WHEN r.action LIKE 'case.%%' THEN split_part(r.action, '.', 2) END AS event,
       r.message_id, r.recorded_at AS at, r.record, o.opened, e.record_id IS NOT NULL AS kept,
       e.code, e.actor,
       CASE WHEN r.action IN ('case.corrected', 'case.updated', 'case.withdrawn') THEN
           (SELECT p.body FROM payload AS p WHERE p.message_id = r.message_id)
       END AS body
FROM record AS r
LEFT JOIN opening AS o USING (record_id)
LEFT JOIN case_event AS e ON e.notice_id = r.notice_id AND e.record_id = r.record_id
WHERE r.notice_id = ANY(%(notices)s::uuid[])
  AND (r.action = ANY(%(acts)s) OR r.action IN ('message.received', 'message.applied'))
ORDER BY r.record_id
"""


async def acts(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, list[ActRow]]:
    """Return by notice what records say of arrivals and of acts, in the order of the acts."""
    found: dict[UUID, list[ActRow]] = {}
    if notices:
        async with tx.cursor(row_factory=class_row(ActRow)) as cursor:
            await cursor.execute(_WORKED, {"notices": list(notices), "acts": list(ACTS)})
            for row in await cursor.fetchall():
                found.setdefault(row.notice_id, []).append(row)
    return found


_OPEN = """
INSERT INTO case_file (notice_id, office, outcome, base_city, hearing_at, hearing_zone, priority,
                       revision, notice_kind, message_id, lane, opened_at, state, owner,
                       lease_until, taken_at, closed_at, outcome_code, reply_revision, due_at)
SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::text[],
                     %b::text[], %b::int[], %b::text[], %b::uuid[], %b::text[], %b::timestamptz[],
                     %b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[],
                     %b::timestamptz[], %b::text[], %b::int[], %b::timestamptz[])
"""
_TELL = """
INSERT INTO case_event (notice_id, event, code, actor, happened_at, record_id)
SELECT t.* FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::timestamptz[],
                       %b::bigint[]) AS t (notice_id, event, code, actor, happened_at, record_id)
WHERE NOT EXISTS (SELECT FROM case_event AS e
                  WHERE e.notice_id = t.notice_id AND e.record_id = t.record_id)
ORDER BY t.record_id
"""


async def open_again(
    tx: Transaction,
    rows: Sequence[tuple[FactsRow, OpeningRow, WorkRow]],
    events: Sequence[EventRow],
) -> None:
    """Open cases that are gone, as their notices and acts have them, and tell of these acts."""
    if rows:
        columns: list[list[object]] = [
            [getattr(facts, name) for facts, _, _ in rows] for name in FactsRow.__dataclass_fields__
        ]
        columns += [[getattr(row, name) for _, row, _ in rows] for name in ("lane", "opened_at")]
        columns += [
            [getattr(work, name) for _, _, work in rows] for name in WorkRow.__dataclass_fields__
        ]
        await tx.execute(_OPEN, columns)
    if events:
        names = EventRow.__dataclass_fields__
        await tx.execute(_TELL, [[getattr(row, name) for row in events] for name in names])


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


_RESUME = f"""
UPDATE case_file AS c
SET state = {RESUMED}, closed_at = CASE WHEN c.outcome_code IS NOT NULL THEN c.closed_at END
WHERE c.notice_id = ANY(%b::uuid[]) AND c.state = 'withdrawn'
"""  # noqa: S608 - a constant


async def resume(tx: Transaction, notices: Sequence[UUID]) -> None:
    """Put cases back whose withdrawal was taken back."""
    if notices:
        await tx.execute(_RESUME, [list(notices)])
