"""The queue of cases: people take one by name, work it, and say what came of it.

A lease keeps two people from working one child: it names who has the case and until when, and
another person may take the case over once it has run out. The first take sends ICE an
acknowledgement (that somebody took it, not who); the outcome goes back as its coarse code alone.
Every act is one transaction with its ledger record, also one that is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from uuid_utils.compat import uuid7

from schemas import canonical, codes
from schemas.catalog import body_of
from schemas.envelope import Kind, Lane
from schemas.errors import ConflictError, NotFoundError, NoticeBusError, RejectedError
from schemas.fields import Body
from schemas.notice import Priority, mask_a_number
from schemas.reply import Acknowledgement, Outcome, OutcomeCode
from services.exchange.agency import Agency
from services.exchange.outbox import Draft, accept
from services.exchange.trace import Trace, trace
from services.hhs import clocks, store
from services.hhs.store import CaseEvent, CaseFile
from services.ledger.records import Record, make_record
from services.ledger.store import Store, Transaction, append

log = structlog.get_logger()

LEASE = timedelta(hours=8)
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
    """All that HHS knows of a case; `notice` is the newest revision in clear, None once erased."""

    item: QueueItem
    notice: Mapping[str, Any] | None
    events: Sequence[CaseEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """A case that a person has now; `first` when ICE was told, `renewed` when it was theirs."""

    item: QueueItem
    lease_until: datetime
    first: bool
    renewed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What came of a case: the code chosen, and the coarse one that ICE hears."""

    notice_id: UUID
    code: str
    told: OutcomeCode
    already: bool


async def listed(
    database: Store,
    *,
    states: Sequence[str] | None = OPEN_STATES,
    office: str | None = None,
    owner: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 1_000,
) -> list[QueueItem]:
    """Return cases, the first due first. `states` None means all; `after` goes on from a row.

    Raises `RejectedError` NB-8004 for a state that does not exist.
    """
    for state in states or ():
        if state not in STATES:
            raise RejectedError("NB-8004", value=state, known=", ".join(STATES))
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        cases = await store.page(
            tx, states=states, office=office, owner=owner, after=after, limit=limit
        )
        return await _items(tx, cases, now)


async def shown(database: Store, notice_id: UUID, *, actor: str) -> CaseDetail:
    """Return everything that is known of a case: item, acts, and the notice in clear.

    Reading a child's identity is an act itself and is recorded. Raises `NotFoundError` NB-8010.
    """
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        case = await store.read_case(tx, notice_id)
        if case is None:
            raise NotFoundError("NB-8010", notice_id=notice_id)
        body = (await store.bodies(tx, [case.message_id])).get(case.message_id)
        await append(tx, [_record("case.revealed", case.notice_id, actor, now)])
        return CaseDetail(
            item=_item(case, body, now),
            notice=None if body is None else canonical.parse(body),
            events=await store.events_of(tx, notice_id),
        )


async def take(
    database: Store,
    notice_id: UUID | None,
    *,
    actor: str,
    office: str | None = None,
    lease: timedelta = LEASE,
    now: datetime | None = None,
) -> Taking | None:
    """Take a case by name, or without an id the one that is due first; None: nothing waits.

    Taking one's own case renews the lease. Raises `NotFoundError` NB-8010; `ConflictError` NB-8011
    while somebody else has it, NB-8012 once it is closed or withdrawn.
    """
    now = now or datetime.now(UTC)
    refused: NoticeBusError | None
    async with database.transaction() as tx:
        if notice_id is None:
            case = await store.lock_next(tx, office=office, now=now)
            if case is None:
                return None
        else:
            case = await store.lock_case(tx, notice_id)
        refused = _may_take(case, notice_id, actor, now)
        if case is None or refused is not None:
            await append(tx, [_refused("case.taken", notice_id, actor, now, refused)])
        else:
            taking = await _take(tx, case, actor=actor, lease=lease, now=now)
    if refused is not None:
        raise refused
    log.info("case taken", notice_id=str(taking.item.notice_id), renewed=taking.renewed)
    return taking


async def release(database: Store, notice_id: UUID, *, actor: str) -> CaseFile:
    """Put one's own case back into the queue; its clock runs on from when the notice arrived.

    Raises `NotFoundError` NB-8010; `ConflictError` NB-8011 when somebody else has the case, NB-8013
    when nobody has, NB-8012 once it is closed or withdrawn.
    """
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        case = await store.lock_case(tx, notice_id)
        refused = _may_work(case, notice_id, actor)
        if case is None or refused is not None:
            await append(tx, [_refused("case.released", notice_id, actor, now, refused)])
        else:
            due_at = _take_due(case)
            await store.set_released(tx, notice_id, due_at=due_at)
            await _note(tx, case, "released", actor=actor, now=now)
    if refused is not None:
        raise refused
    assert case is not None
    log.info("case released", notice_id=str(notice_id))
    return case


async def outcome(database: Store, notice_id: UUID, *, code: str, actor: str) -> Closing:
    """Close one's own case with a code of the closed list, and tell ICE the coarse one.

    A code of `detailed_outcomes` stays at HHS; one of `outcomes` can be given as it is. The same
    outcome again changes nothing. Raises `RejectedError` NB-8014 for a code that is on neither
    list; `NotFoundError` NB-8010; `ConflictError` NB-8011 (another person's), NB-8013 (nobody's),
    NB-8015 (closed with another outcome), NB-8012 (withdrawn).
    """
    now = datetime.now(UTC)
    told = coarse(code)
    already = False
    async with database.transaction() as tx:
        case = await store.lock_case(tx, notice_id)
        if case is not None and case.state == "closed":
            already = case.outcome_code == code
            refused: NoticeBusError | None = None
            if not already:
                refused = ConflictError("NB-8015", notice_id=notice_id, chosen=case.outcome_code)
        else:
            refused = _may_work(case, notice_id, actor)
        if case is None or refused is not None:
            await append(tx, [_refused("case.closed", notice_id, actor, now, refused)])
        elif not already:
            await _close(tx, case, code=code, told=told, actor=actor, now=now)
    if refused is not None:
        raise refused
    if not already:
        log.info("case closed", notice_id=str(notice_id), outcome=str(told))
    return Closing(notice_id=notice_id, code=code, told=told, already=already)


def coarse(code: str) -> OutcomeCode:
    """Return what ICE hears of an outcome. Raises `RejectedError` NB-8014."""
    detailed = codes.detailed_outcomes().get(code)
    if detailed is not None:
        return detailed.outcome
    if code in codes.outcomes():
        return OutcomeCode(code)
    known = ", ".join([*codes.detailed_outcomes(), *codes.outcomes()])
    raise RejectedError("NB-8014", known=known)


async def traced(agency: Agency, notice_id: UUID) -> Trace:
    """Return every step of a notice on this side, each verified.

    Raises `NotFoundError` NB-8010.
    """
    async with agency.store.transaction() as tx:
        case = await store.read_case(tx, notice_id)
    if case is None:
        raise NotFoundError("NB-8010", notice_id=notice_id)
    return await trace(agency, notice_id)


async def resolve(database: Store, text: str) -> UUID:
    """Return the notice that an id or its beginning names.

    Raises `NotFoundError` NB-7012, or `RejectedError` NB-7009 when there are several.
    """
    prefix = text.strip().lower()
    async with database.transaction() as tx:
        found = await store.by_prefix(tx, prefix)
    if not found:
        raise NotFoundError("NB-7012", what="case", value=text, listing="noticebus queue list")
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="cases")
    return found[0]


def _may_take(
    case: CaseFile | None, notice_id: UUID | None, actor: str, now: datetime
) -> NoticeBusError | None:
    """Return why this person may not take the case, or None."""
    if case is None:
        return NotFoundError("NB-8010", notice_id=notice_id)
    if case.state in ("closed", "withdrawn"):
        return ConflictError("NB-8012", notice_id=case.notice_id, state=case.state)
    others = case.owner is not None and case.owner != actor
    if others and case.lease_until is not None and case.lease_until > now:
        return _held_by(case)
    return None


def _may_work(case: CaseFile | None, notice_id: UUID, actor: str) -> NoticeBusError | None:
    """Return why this person may not work on the case, or None.

    A lease that ran out is still its holder's until somebody takes the case over.
    """
    if case is None:
        return NotFoundError("NB-8010", notice_id=notice_id)
    if case.state in ("closed", "withdrawn"):
        return ConflictError("NB-8012", notice_id=notice_id, state=case.state)
    if case.owner is None:
        return ConflictError("NB-8013", notice_id=notice_id)
    if case.owner != actor:
        return _held_by(case)
    return None


def _held_by(case: CaseFile) -> ConflictError:
    assert case.lease_until is not None
    until = case.lease_until.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return ConflictError("NB-8011", notice_id=case.notice_id, owner=case.owner, until=until)


async def _take(
    tx: Transaction, case: CaseFile, *, actor: str, lease: timedelta, now: datetime
) -> Taking:
    first = case.taken_at is None
    renewed = case.owner == actor
    lease_until = now + lease
    revision = case.reply_revision + 1 if first else case.reply_revision
    await store.set_taken(
        tx,
        case.notice_id,
        owner=actor,
        lease_until=lease_until,
        due_at=clocks.outcome_due(codes.policy(), opened_at=case.opened_at),
        reply_revision=revision,
        now=now,
    )
    message_id = None
    if first:
        body = Acknowledgement(notice_id=case.notice_id, at=now)
        message_id = await _reply(tx, case, Kind.ACKNOWLEDGEMENT, body, revision, now)
    event = "renewed" if renewed else "taken" if case.owner is None else "taken_over"
    await _note(tx, case, event, actor=actor, now=now, message_id=message_id)
    held = await store.read_case(tx, case.notice_id)
    assert held is not None
    [item] = await _items(tx, [held], now)
    return Taking(item=item, lease_until=lease_until, first=first, renewed=renewed)


async def _close(
    tx: Transaction, case: CaseFile, *, code: str, told: OutcomeCode, actor: str, now: datetime
) -> None:
    revision = case.reply_revision + 1
    body = Outcome(notice_id=case.notice_id, code=told, at=now)
    message_id = await _reply(tx, case, Kind.OUTCOME, body, revision, now)
    await store.set_closed(tx, case.notice_id, code=code, reply_revision=revision, now=now)
    await _note(tx, case, "closed", actor=actor, now=now, message_id=message_id, code=code)


async def _reply(
    tx: Transaction, case: CaseFile, kind: Kind, body: Body, revision: int, now: datetime
) -> UUID:
    message_id = uuid7()
    draft = Draft(
        message_id=message_id,
        kind=kind,
        lane=Lane(case.lane),
        notice_id=case.notice_id,
        revision=revision,
        body=body_of(body),
        salt=token_bytes(32),
        correlation_id=case.notice_id,
        causation_id=case.message_id,
        made_at=now,
    )
    await accept(tx, [draft])
    return message_id


async def _note(
    tx: Transaction,
    case: CaseFile,
    event: str,
    *,
    actor: str,
    now: datetime,
    message_id: UUID | None = None,
    code: str | None = None,
) -> None:
    """Write an act on a case and its ledger record."""
    records = await append(
        tx,
        [
            _record(
                f"case.{event}",
                case.notice_id,
                actor,
                now,
                message_id=message_id,
                reason=None if code is None else str(coarse(code)),
                # The code that was chosen is detail of HHS: the ledger binds it without telling it.
                text=code,
            )
        ],
    )
    act = CaseEvent(event=event, code=code, actor=actor, happened_at=now)
    await store.add_events(tx, [(case.notice_id, act)], records)


def _record(
    action: str,
    notice_id: UUID | None,
    actor: str,
    now: datetime,
    *,
    message_id: UUID | None = None,
    reason: str | None = None,
    text: str | None = None,
) -> Record:
    return make_record(
        action,
        time=now,
        notice_id=notice_id,
        message_id=message_id,
        policy=codes.policy().version,
        reason=reason,
        actor=actor,
        text=text,
    )


def _refused(
    action: str, notice_id: UUID | None, actor: str, now: datetime, why: NoticeBusError | None
) -> Record:
    """Return the record of an act that was not allowed."""
    return make_record(
        action,
        time=now,
        result="refused",
        notice_id=notice_id,
        policy=codes.policy().version,
        reason=None if why is None else why.code,
        actor=actor,
    )


def _take_due(case: CaseFile) -> datetime:
    return clocks.take_due(
        codes.policy(),
        priority=Priority(case.priority),
        lane=Lane(case.lane),
        opened_at=case.opened_at,
    )


async def _items(tx: Transaction, cases: Sequence[CaseFile], now: datetime) -> list[QueueItem]:
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
