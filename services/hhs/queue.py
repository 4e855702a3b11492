"""The queue of cases: people take one by name, work it, and say what came of it.

A lease keeps two people from working one child: it names who has the case and until when, and
another person may take the case over once it has run out. The first take sends ICE an
acknowledgement (that somebody took it, not who); the outcome goes back as its coarse code alone.
Every act is one transaction with its ledger record, also one that is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from schemas import codes
from schemas.canonical import format_time
from schemas.catalog import body_of
from schemas.envelope import Kind, Lane
from schemas.errors import ConflictError, NotFoundError, NoticeBusError, RejectedError
from schemas.fields import Body
from schemas.notice import Priority
from schemas.reply import Acknowledgement, Outcome, OutcomeCode
from services.exchange.outbox import Draft, accept
from services.hhs import clocks, store
from services.hhs.cases import (
    OPEN_STATES,
    STATES,
    CaseDetail,
    QueueItem,
    items_of,
    listed,
    resolve,
    shown,
    traced,
)
from services.hhs.store import CaseEvent, CaseFile
from services.ledger.records import Record, make_record
from services.ledger.store import Store, Transaction, append, append_returning

__all__ = [
    "LEASE",
    "OPEN_STATES",
    "STATES",
    "CaseDetail",
    "Closing",
    "QueueItem",
    "Taking",
    "coarse",
    "listed",
    "outcome",
    "release",
    "resolve",
    "shown",
    "take",
    "traced",
]

log = structlog.get_logger()

LEASE = timedelta(hours=8)


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
    revision = await store.next_reply(tx, case) if first else case.reply_revision
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
    # How long a lease runs is said in the record, so that it can be told from records alone.
    detail = {"lease_until": format_time(lease_until)}
    await _note(tx, case, event, actor=actor, now=now, message_id=message_id, detail=detail)
    held = await store.read_case(tx, case.notice_id)
    assert held is not None
    [item] = await items_of(tx, [held], now)
    return Taking(item=item, lease_until=lease_until, first=first, renewed=renewed)


async def _close(
    tx: Transaction, case: CaseFile, *, code: str, told: OutcomeCode, actor: str, now: datetime
) -> None:
    revision = await store.next_reply(tx, case)
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
    detail: Mapping[str, str] | None = None,
) -> None:
    """Write an act on a case and its ledger record."""
    records = await append_returning(
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
                detail=detail,
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
    detail: Mapping[str, str] | None = None,
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
        detail=detail,
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
