"""Decide what waits for a person: send it or not, withdraw what was sent or let it stand."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from schemas import codes
from schemas.envelope import Lane
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.notice import NoticeKind, ReasonCode
from services.ice import revisions
from services.ice.importing import lane_by_age
from services.ice.notices.views import NoticeItem, content_now, item_now
from services.ice.revisions import Revision, accept_revisions, record_of, sending_of
from services.ice.store import obligations as store
from services.ice.store import refusals
from services.ice.store.obligations import Obligation
from services.ledger.records import Record
from services.ledger.store import Store, Transaction, append

log = structlog.get_logger()

# Why a person's decision cannot be taken; it is recorded as refused. Other errors undo everything.
REFUSALS = (RejectedError, NotFoundError, ConflictError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided: `sent`, `dismissed`, `withdrawn` or `kept`; `already` if before.

    `kept` is what was told to HHS as it stands: the notice, or its withdrawal.
    """

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
    """Say yes to what a person is asked: send the notice, withdraw it, or send it again.

    `reason` is why it is withdrawn, if not what the docket said, or why the withdrawal is taken
    back, if not OTHER. Raises `NotFoundError` NB-1076; `ConflictError` NB-1077 when it was decided
    otherwise, NB-1079 when its content was erased; `RejectedError` NB-1078 for a reason that is
    none for a withdrawal, NB-1052 for one that is none for a correction.
    """
    at = now or datetime.now(UTC)

    async def deciding(tx: Transaction, row: Obligation | None) -> Decision:
        return await _confirm(tx, row, notice_id, actor=actor, reason=reason, now=at)

    return await _decide(database, notice_id, "notice.confirmed", deciding, actor=actor, now=at)


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
    `RejectedError` NB-1056 for a reason that is not in the list.
    """
    at = now or datetime.now(UTC)

    async def deciding(tx: Transaction, row: Obligation | None) -> Decision:
        return await _dismiss(tx, row, notice_id, actor=actor, reason=reason, now=at)

    return await _decide(database, notice_id, "notice.dismissed", deciding, actor=actor, now=at)


async def withdraw(
    database: Store,
    notice_id: UUID,
    *,
    reason: str,
    actor: str,
    now: datetime | None = None,
) -> Decision:
    """Take back a notice that was sent, whatever came of it so far.

    Raises `NotFoundError` NB-1076; `ConflictError` NB-1050 when it never was sent, NB-1079 when its
    content was erased; `RejectedError` NB-1078 for a reason that is none for a withdrawal.
    """
    at = now or datetime.now(UTC)

    async def deciding(tx: Transaction, row: Obligation | None) -> Decision:
        return await _withdraw(tx, row, notice_id, actor=actor, reason=reason, now=at)

    return await _decide(database, notice_id, "notice.withdrawn", deciding, actor=actor, now=at)


async def _decide(
    database: Store,
    notice_id: UUID,
    action: str,
    deciding: Callable[[Transaction, Obligation | None], Awaitable[Decision]],
    *,
    actor: str,
    now: datetime,
) -> Decision:
    """Let a decision be made on a notice that is held meanwhile; a refusal is on record, too."""
    refused: RejectedError | NotFoundError | ConflictError | None = None
    async with database.transaction() as tx:
        row = (await store.lock(tx, [notice_id])).get(notice_id)
        try:
            decision = await deciding(tx, row)
        except REFUSALS as error:
            refused = error
            await append(tx, [refusal_of(action, row, notice_id, actor, now, error)])
    if refused is not None:
        raise refused
    log.info("notice decided", notice_id=str(notice_id), action=action, already=decision.already)
    return decision


async def _withdraw(
    tx: Transaction,
    row: Obligation | None,
    notice_id: UUID,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> Decision:
    if row is None:
        raise NotFoundError("NB-1076", notice_id=notice_id)
    code = reason_for(NoticeKind.WITHDRAWAL, reason)
    if row.state == "withdrawn":
        return await _decided(tx, row, "withdrawn", already=True)
    if not row.revision or row.withdrawn:
        raise ConflictError("NB-1050", notice_id=notice_id, state=row.state)
    content = await content_now(tx, row)
    if content is None:
        raise ConflictError("NB-1079", notice_id=notice_id)
    revision = await _withdrawal(tx, row, content, code)
    [commitment] = await accept_revisions(tx, [revision], now)
    record = record_of(
        "notice.withdrawn",
        now=now,
        actor=actor,
        office=row.office,
        notice_id=notice_id,
        revision=revision,
        commitment=commitment,
        reason=code,
    )
    await append(tx, [record])
    return await _decided(tx, row, "withdrawn", message_id=revision.message_id)


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
    code: str | None
    if row.withdrawn:
        code = reason_for(NoticeKind.CORRECTION, reason or ReasonCode.OTHER)
        revision = await _sent_again(tx, row, content, code)
        decision, action = "sent", "notice.confirmed"
    elif row.confirm == "send":
        lane = lane_by_age(row.hearing_on, now)
        revision = revisions.first(content, notice_id=notice_id, lane=lane)
        await store.send_waiting(
            tx, [sending_of(revision, row.release, kept_code=row.confirm_code)]
        )
        decision, action, code = "sent", "notice.confirmed", row.confirm_code
    else:
        code = reason_for(NoticeKind.WITHDRAWAL, reason or row.confirm_code)
        revision = await _withdrawal(tx, row, content, code)
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
    if reason not in codes.reasons():
        raise RejectedError("NB-1056", known=", ".join(codes.reasons()))
    if row is None:
        raise NotFoundError("NB-1076", notice_id=notice_id)
    if row.state == "dismissed":
        return await _decided(tx, row, "dismissed", already=True)
    if row.confirm is None:
        raise ConflictError("NB-1077", notice_id=notice_id, state=row.state)
    decision = "kept" if row.revision else "dismissed"
    stands = "withdrawn" if row.withdrawn else "recorded"
    # The code stays beside the obligation, so that the same cause does not ask again.
    await store.set_state(
        tx,
        notice_id,
        state=stands if row.revision else "dismissed",
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


async def _withdrawal(
    tx: Transaction, row: Obligation, content: Mapping[str, Any], code: str
) -> Revision:
    """Return the revision that withdraws a notice which was sent; its obligation is withdrawn."""
    assert row.message_id is not None, "what is withdrawn was sent"
    revision = revisions.later(
        content,
        notice_id=row.notice_id,
        revision=row.revision + 1,
        kind=NoticeKind.WITHDRAWAL,
        reason=ReasonCode(code),
        supersedes=row.message_id,
        lane=Lane(row.lane),
        cause=await refusals.unanswered(tx, row.notice_id),
    )
    await store.set_state(tx, row.notice_id, state="withdrawn", revision=row.revision + 1)
    return revision


async def _sent_again(
    tx: Transaction, row: Obligation, content: Mapping[str, Any], code: str
) -> Revision:
    """Return the correction that takes a withdrawal back: the notice stands as it was told.

    With the court's keys that became known meanwhile; what else changed is a correction's matter.
    """
    assert row.message_id is not None, "what was withdrawn was sent"
    revision = revisions.later(
        {**content, **revisions.known_keys(row)},
        notice_id=row.notice_id,
        revision=row.revision + 1,
        kind=NoticeKind.CORRECTION,
        reason=ReasonCode(code),
        supersedes=row.message_id,
        lane=Lane(row.lane),
        cause=await refusals.unanswered(tx, row.notice_id),
    )
    await store.set_state(tx, row.notice_id, state="recorded", revision=row.revision + 1)
    return revision


def reason_for(kind: NoticeKind, code: str | None) -> str:
    """Return a reason that a revision of this kind can be made for.

    Raises `RejectedError` NB-1078 for a withdrawal, NB-1052 for a correction.
    """
    listed = codes.reasons()
    reason = None if code is None else listed.get(code)
    if code is None or reason is None or kind not in reason.kinds:
        known = [name for name in listed if kind in listed.codes[name].kinds]
        number = "NB-1078" if kind is NoticeKind.WITHDRAWAL else "NB-1052"
        raise RejectedError(number, known=", ".join(known))
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


def refusal_of(
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
