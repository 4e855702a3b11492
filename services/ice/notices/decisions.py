"""Decide what waits for a person: send it or not, withdraw what was sent or let it stand."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog

from schemas import codes
from schemas.envelope import Lane
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.notice import NoticeKind, ReasonCode
from services.ice import revisions
from services.ice.importing import lane_by_age
from services.ice.notices.views import NoticeItem, content_now, item_now
from services.ice.revisions import accept_revisions, record_of, sending_of
from services.ice.store import obligations as store
from services.ice.store.obligations import Obligation
from services.ledger.records import Record
from services.ledger.store import Store, Transaction, append

log = structlog.get_logger()

# Why a person's decision cannot be taken; it is recorded as refused. Other errors undo everything.
_REFUSALS = (RejectedError, NotFoundError, ConflictError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided: `sent`, `dismissed`, `withdrawn` or `kept`; `already` if before."""

    item: NoticeItem
    decision: str
    message_id: UUID | None
    already: bool


async def confirm(
    database: Store,
    notice_id: UUID,
    *,
    actor: str,
    reason: str | None = None,
    now: datetime | None = None,
) -> Decision:
    """Say yes to what a person is asked: send the notice, or withdraw what was sent.

    `reason` is why it is withdrawn, if not what the docket said. Raises `NotFoundError` NB-1076;
    `ConflictError` NB-1077 when it was decided otherwise, NB-1079 when its content was erased;
    `RejectedError` NB-1078 for a reason that is none for a withdrawal.
    """
    now = now or datetime.now(UTC)
    refused: RejectedError | NotFoundError | ConflictError | None = None
    async with database.transaction() as tx:
        row = (await store.lock(tx, [notice_id])).get(notice_id)
        try:
            decision = await _confirm(tx, row, notice_id, actor=actor, reason=reason, now=now)
        except _REFUSALS as error:
            refused = error
            await append(tx, [_refusal("notice.confirmed", row, notice_id, actor, now, error)])
    if refused is not None:
        raise refused
    log.info("notice confirmed", notice_id=str(notice_id), decision=decision.decision)
    return decision


async def dismiss(
    database: Store,
    notice_id: UUID,
    *,
    reason: str,
    actor: str,
    now: datetime | None = None,
) -> Decision:
    """Say no to what a person is asked: do not send it, or let what was sent stand.

    Raises `NotFoundError` NB-1076; `ConflictError` NB-1077 when it was decided otherwise;
    `RejectedError` NB-1003 for a reason that is not in the list.
    """
    now = now or datetime.now(UTC)
    refused: RejectedError | NotFoundError | ConflictError | None = None
    async with database.transaction() as tx:
        row = (await store.lock(tx, [notice_id])).get(notice_id)
        try:
            decision = await _dismiss(tx, row, notice_id, reason=reason, actor=actor, now=now)
        except _REFUSALS as error:
            refused = error
            await append(tx, [_refusal("notice.dismissed", row, notice_id, actor, now, error)])
    if refused is not None:
        raise refused
    log.info("notice dismissed", notice_id=str(notice_id), decision=decision.decision)
    return decision


async def _confirm(
    tx: Transaction,
    row: Obligation | None,
    notice_id: UUID,
    *,
    actor: str,
    reason: str | None,
    now: datetime,
) -> Decision:
    if row is None:
        raise NotFoundError("NB-1076", notice_id=notice_id)
    if row.state in ("recorded", "withdrawn"):
        # What was asked is done already; asking again for the same changes nothing.
        decision = "sent" if row.state == "recorded" else "withdrawn"
        return await _decided(tx, row, decision, already=True)
    if row.confirm is None:
        raise ConflictError("NB-1077", notice_id=notice_id, state=row.state)
    content = await content_now(tx, row)
    if content is None:
        raise ConflictError("NB-1079", notice_id=notice_id)
    if row.confirm == "send":
        lane = lane_by_age(row.hearing_on, now)
        revision = revisions.first(content, notice_id=notice_id, lane=lane)
        await store.send_waiting(
            tx, [sending_of(revision, row.release, kept_code=row.confirm_code)]
        )
        decision, action, code = "sent", "notice.confirmed", row.confirm_code
    else:
        code = _withdrawal_reason(reason or row.confirm_code)
        assert row.message_id is not None, "what is withdrawn was sent"
        revision = revisions.later(
            content,
            notice_id=notice_id,
            revision=row.revision + 1,
            kind=NoticeKind.WITHDRAWAL,
            reason=ReasonCode(code),
            supersedes=row.message_id,
            lane=Lane(row.lane),
        )
        await store.set_state(tx, notice_id, state="withdrawn", revision=row.revision + 1)
        decision, action = "withdrawn", "notice.withdrawn"
    [commitment] = await accept_revisions(tx, [revision], now)
    record = record_of(
        action,
        now=now,
        actor=actor,
        office=row.office,
        notice_id=notice_id,
        revision=revision,
        commitment=commitment,
        reason=code,
    )
    await append(tx, [record])
    return await _decided(tx, row, decision, message_id=revision.message_id)


async def _dismiss(
    tx: Transaction,
    row: Obligation | None,
    notice_id: UUID,
    *,
    reason: str,
    actor: str,
    now: datetime,
) -> Decision:
    codes.reasons().of(reason, field="reason")
    if row is None:
        raise NotFoundError("NB-1076", notice_id=notice_id)
    if row.state == "dismissed":
        return await _decided(tx, row, "dismissed", already=True)
    if row.confirm is None:
        raise ConflictError("NB-1077", notice_id=notice_id, state=row.state)
    never_sent = row.confirm == "send"
    decision = "dismissed" if never_sent else "kept"
    # The code stays beside the obligation, so that the same cause does not ask again.
    await store.set_state(
        tx,
        notice_id,
        state="dismissed" if never_sent else "recorded",
        revision=row.revision,
        kept_code=row.confirm_code,
    )
    record = record_of(
        f"notice.{decision}",
        now=now,
        actor=actor,
        office=row.office,
        notice_id=notice_id,
        reason=reason,
    )
    await append(tx, [record])
    return await _decided(tx, row, decision)


def _withdrawal_reason(code: str | None) -> str:
    """Return a reason that a notice can be withdrawn for. Raises `RejectedError` NB-1078."""
    listed = codes.reasons()
    reason = None if code is None else listed.get(code)
    if code is None or reason is None or NoticeKind.WITHDRAWAL not in reason.kinds:
        known = [name for name in listed if NoticeKind.WITHDRAWAL in listed.codes[name].kinds]
        raise RejectedError("NB-1078", known=", ".join(known))
    return code


async def _decided(
    tx: Transaction,
    row: Obligation,
    decision: str,
    *,
    message_id: UUID | None = None,
    already: bool = False,
) -> Decision:
    item = await item_now(tx, row.notice_id)
    return Decision(item=item, decision=decision, message_id=message_id, already=already)


def _refusal(
    action: str,
    row: Obligation | None,
    notice_id: UUID,
    actor: str,
    now: datetime,
    error: RejectedError | NotFoundError | ConflictError,
) -> Record:
    return record_of(
        action,
        now=now,
        actor=actor,
        office=None if row is None else row.office,
        notice_id=notice_id,
        reason=error.code,
        result="refused",
    )
