"""Look at cases: the queue with the child masked, one case in full, and the trace of its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from schemas import canonical, codes
from schemas.errors import NotFoundError, RejectedError
from schemas.notice import PERSONAL_FIELDS, mask_a_number
from services.exchange.agency import Agency
from services.exchange.beginnings import beginning
from services.exchange.trace import Trace, trace
from services.hhs import store
from services.hhs.store import CaseEvent, CaseFile
from services.ledger.records import make_record
from services.ledger.store import Reading, Store, Transaction, append

OPEN_STATES = ("unowned", "taken")
STATES = ("unowned", "taken", "closed", "withdrawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """A case as a list shows it: the child masked, the hearing in the court's time."""

    notice_id: UUID
    state: str
    child: str | None
    office: str
    court: str
    hearing_at: datetime
    hearing_zone: str
    outcome: str
    priority: str
    lane: str
    revision: int
    kind: str
    opened_at: datetime
    due_at: datetime
    overdue: bool
    owner: str | None
    lease_until: datetime | None
    taken_at: datetime | None
    closed_at: datetime | None
    outcome_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseDetail:
    """All that HHS knows of a case; `notice` is the newest revision, None once erased.

    It is without what says who the child is, unless that was revealed.
    """

    item: QueueItem
    notice: Mapping[str, Any] | None
    events: Sequence[CaseEvent]


async def listed(
    database: Reading,
    *,
    states: Sequence[str] | None = OPEN_STATES,
    office: str | None = None,
    owner: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 1_000,
    now: datetime | None = None,
) -> list[QueueItem]:
    """Return cases, the first due first. `states` None means all; `after` goes on from a row.

    What is late is so at the moment `now`, if given. Raises `RejectedError` NB-8004 for a state
    that does not exist.
    """
    for state in states or ():
        if state not in STATES:
            raise RejectedError("NB-8004", value=state, known=", ".join(STATES))
    now = now or datetime.now(UTC)
    async with database.transaction() as tx:
        cases = await store.page(
            tx, states=states, office=office, owner=owner, after=after, limit=limit
        )
        return await items_of(tx, cases, now)


async def shown(
    database: Store, notice_id: UUID, *, actor: str, reveal: bool = False
) -> CaseDetail:
    """Return everything that is known of a case; with `reveal` the child's identity, on record.

    Raises `NotFoundError` NB-8010.
    """
    async with database.transaction() as tx:
        detail = await detail_of(tx, notice_id, now=datetime.now(UTC))
        if reveal:
            await revealed(tx, notice_id, actor=actor)
    return detail if reveal else masked(detail)


async def detail_of(tx: Transaction, notice_id: UUID, *, now: datetime) -> CaseDetail:
    """Return all that is known of a case, with its notice in clear: reveal it or mask it.

    What is late is so at the moment `now`. Raises `NotFoundError` NB-8010.
    """
    case = await store.read_case(tx, notice_id)
    if case is None:
        raise NotFoundError("NB-8010", notice_id=notice_id)
    body = (await store.bodies(tx, [case.message_id])).get(case.message_id)
    return CaseDetail(
        item=_item(case, body, now),
        notice=None if body is None else canonical.parse(body),
        events=await store.events_of(tx, notice_id),
    )


async def revealed(tx: Transaction, notice_id: UUID, *, actor: str) -> None:
    """Put on record that somebody sees who the child is."""
    record = make_record(
        "case.revealed",
        time=datetime.now(UTC),
        notice_id=notice_id,
        policy=codes.policy().version,
        actor=actor,
    )
    await append(tx, [record])


def masked(detail: CaseDetail) -> CaseDetail:
    """Return a case without what says who the child is."""
    if detail.notice is None:
        return detail
    kept = {name: said for name, said in detail.notice.items() if name not in PERSONAL_FIELDS}
    return replace(detail, notice=kept)


async def traced(agency: Agency, notice_id: UUID) -> Trace:
    """Return every step of a notice on this side, each verified, and where its case stands.

    Raises `NotFoundError` NB-8010 for one that this side never heard of.
    """
    async with agency.store.transaction() as tx:
        case = await store.read_case(tx, notice_id)
    found = await trace(agency, notice_id)
    if case is not None:
        return replace(found, state=case.state, state_code=case.outcome_code)
    # Refused or held, there is no case of it, and somebody will ask all the more.
    if not found.steps and not found.set_aside:
        raise NotFoundError("NB-8010", notice_id=notice_id)
    return found


async def resolve(database: Store, text: str) -> UUID:
    """Return the notice that an id or its beginning names.

    Raises `NotFoundError` NB-7012, NB-6120 for no beginning of an id; `RejectedError` NB-7009 when
    there are several.
    """
    begins = beginning(text)
    async with database.transaction() as tx:
        found = await store.named(tx, begins)
    if not found:
        raise NotFoundError("NB-7012", what="case", value=text, listing="noticebus queue list")
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="cases")
    return found[0]


async def items_of(tx: Transaction, cases: Sequence[CaseFile], now: datetime) -> list[QueueItem]:
    """Return cases as lists show them."""
    bodies = await store.bodies(tx, [case.message_id for case in cases])
    return [_item(case, bodies.get(case.message_id), now) for case in cases]


def _item(case: CaseFile, body: bytes | None, now: datetime) -> QueueItem:
    return QueueItem(
        notice_id=case.notice_id,
        state=case.state,
        child=None if body is None else mask_a_number(canonical.parse(body)["a_number"]),
        office=case.office,
        court=case.base_city,
        hearing_at=case.hearing_at.astimezone(ZoneInfo(case.hearing_zone)),
        hearing_zone=case.hearing_zone,
        outcome=case.outcome,
        priority=case.priority,
        lane=case.lane,
        revision=case.revision,
        kind=case.notice_kind,
        opened_at=case.opened_at,
        due_at=case.due_at,
        overdue=case.state in OPEN_STATES and case.due_at < now,
        owner=case.owner,
        lease_until=case.lease_until,
        taken_at=case.taken_at,
        closed_at=case.closed_at,
        outcome_code=case.outcome_code,
    )
