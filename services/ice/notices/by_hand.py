"""Send a notice that a person wrote by hand, unless the same child and hearing was sent before."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from schemas.envelope import Lane
from schemas.errors import RejectedError
from schemas.notice import NoticeKind, ReasonCode
from services.ice import revisions
from services.ice.importing import lane_by_age
from services.ice.notices import handwriting
from services.ice.notices.handwriting import Written
from services.ice.notices.views import NoticeItem, content_now, item_now
from services.ice.revisions import Revision, accept_revisions, record_of, sending_of
from services.ice.store import obligations as store
from services.ice.store import refusals
from services.ice.store.obligations import NewObligation, Obligation
from services.ledger.store import Store, Transaction, append

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of a hand-written notice.

    `already` when the same child and hearing was sent before: nothing was sent now. `differs` names
    the fields that were given now and say something else there; never their values.
    """

    item: NoticeItem
    message_id: UUID | None
    already: bool
    differs: tuple[str, ...] = ()


async def send(
    database: Store,
    written: Mapping[str, Any],
    *,
    actor: str,
    lane: Lane | None = None,
    now: datetime | None = None,
) -> Sent:
    """Send a notice that a person wrote; `written` is what `handwriting.read` takes.

    A hearing that waits for a person, or was dismissed, and never went out is sent now: whoever
    writes it by hand has decided. One that was withdrawn stands again as it is written now: a
    correction, which supersedes the withdrawal. Raises `RejectedError` with the codes of
    `handwriting.read`, and NB-1000 for what the schema refuses; nothing was sent then, and the
    attempt is on record.
    """
    now = now or datetime.now(UTC)
    try:
        said = handwriting.read(written, now=now)
        notice_id = uuid7()
        # Checked before anything is looked up, so that a bad field is told even of a known hearing.
        revisions.check(revisions.detected(said.content, at=now, prior_missed=0), notice_id)
    except RejectedError as error:
        record = record_of(
            "notice.recorded", now=now, actor=actor, result="refused", reason=error.code
        )
        async with database.transaction() as tx:
            await append(tx, [record])
        raise
    async with database.transaction() as tx:
        sent = await _send(tx, said, notice_id, actor=actor, lane=lane, now=now)
    log.info("notice sent by hand", notice_id=str(sent.item.notice_id), already=sent.already)
    return sent


async def _send(
    tx: Transaction,
    said: Written,
    notice_id: UUID,
    *,
    actor: str,
    lane: Lane | None,
    now: datetime,
) -> Sent:
    key = (said.a_number, said.base_city, said.hearing_on)
    prior = (await store.missed_before(tx, [key])).get(key, 0)
    content = revisions.detected(said.content, at=now, prior_missed=prior)
    lane = lane or lane_by_age(said.hearing_on, now)
    known = await store.known(tx, [key])
    if key not in known:
        revision = revisions.first(content, notice_id=notice_id, lane=lane)
        if await store.add(tx, [_opened(said, revision, now)]):
            return await _sent(tx, revision, actor=actor, now=now)
        # An import, or somebody else's hand, was faster by a moment.
        known = await store.known(tx, [key])
    row = (await store.lock(tx, [known[key].notice_id]))[known[key].notice_id]
    if row.withdrawn:
        return await _stands_again(tx, row, content, actor=actor, now=now)
    if row.revision:
        return await _already(tx, row, said, actor=actor, now=now)
    # It waits for a person, or one dismissed it: the keys that the docket knew go along.
    keys = revisions.known_keys(row)
    revision = revisions.first({**content, **keys}, notice_id=row.notice_id, lane=lane)
    await store.send_waiting(tx, [sending_of(revision, row.release, kept_code=row.confirm_code)])
    return await _sent(tx, revision, actor=actor, now=now, reason="BY_HAND")


async def _stands_again(
    tx: Transaction, row: Obligation, content: Mapping[str, Any], *, actor: str, now: datetime
) -> Sent:
    """Send what was withdrawn as a person tells it now: HHS puts its case back where it was."""
    assert row.message_id is not None, "what was withdrawn was sent"
    revision = revisions.later(
        {**content, **revisions.known_keys(row)},
        notice_id=row.notice_id,
        revision=row.revision + 1,
        kind=NoticeKind.CORRECTION,
        reason=ReasonCode.OTHER,
        supersedes=row.message_id,
        lane=Lane(row.lane),
        cause=await refusals.unanswered(tx, row.notice_id),
    )
    await store.set_state(tx, row.notice_id, state="recorded", revision=row.revision + 1)
    await store.correct(tx, revisions.corrected_by(revision))
    return await _sent(tx, revision, actor=actor, now=now, reason="BY_HAND")


async def _sent(
    tx: Transaction, revision: Revision, *, actor: str, now: datetime, reason: str | None = None
) -> Sent:
    [commitment] = await accept_revisions(tx, [revision], now)
    record = record_of(
        "notice.recorded",
        now=now,
        actor=actor,
        office=revision.notice.aor_code,
        notice_id=revision.notice.notice_id,
        revision=revision,
        commitment=commitment,
        reason=reason,
    )
    await append(tx, [record])
    item = await item_now(tx, revision.notice.notice_id)
    return Sent(item=item, message_id=revision.message_id, already=False)


async def _already(
    tx: Transaction, row: Obligation, said: Written, *, actor: str, now: datetime
) -> Sent:
    """Say that this child and hearing was sent before, and what was said otherwise then."""
    item = await item_now(tx, row.notice_id)
    before = await content_now(tx, row)
    differs = tuple(
        sorted(
            name
            for name in said.given
            if before is not None and said.content.get(name) != before.get(name)
        )
    )
    record = record_of(
        "notice.recorded",
        now=now,
        actor=actor,
        office=row.office,
        notice_id=row.notice_id,
        result="already",
    )
    await append(tx, [record])
    return Sent(item=item, message_id=None, already=True, differs=differs)


def _opened(said: Written, revision: Revision, now: datetime) -> NewObligation:
    notice = revision.notice
    return NewObligation(
        notice_id=notice.notice_id,
        a_number=said.a_number,
        base_city=said.base_city,
        hearing_on=said.hearing_on,
        hearing_at=notice.hearing_at,
        hearing_zone=notice.hearing_zone,
        outcome=notice.outcome,
        office=notice.aor_code,
        lane=revision.lane,
        state="recorded",
        confirm=None,
        confirm_code=None,
        revision=1,
        detected_at=now,
        origin=handwriting.HAND,
        release=None,
        eoir_case_key=notice.eoir_case_key,
        eoir_proceeding_key=notice.eoir_proceeding_key,
        eoir_schedule_key=notice.eoir_schedule_key,
        content_id=None,
    )
