"""Obligations of notices that were sent after the backup of a restored store was made.

The notices came back from HHS, with the content that ICE had signed. Each gets its obligation under
its own natural key again, so that the next docket import knows the hearing and sends no second
notice of it.
"""

from collections.abc import Sequence
from itertools import groupby
from uuid import UUID

from schemas.envelope import Attributes
from schemas.notice import Notice, NoticeKind, ReportingRole
from services.ice.notices.handwriting import HAND
from services.ice.store import obligations as store
from services.ice.store.obligations import NewObligation, Obligation, RevisionRow, Sending
from services.ledger.store import Transaction

Sent = tuple[Attributes, Notice]


async def rebuild(tx: Transaction, sent: Sequence[Sent]) -> set[UUID]:
    """Write what these notices say of their obligations; returns messages that found no place.

    That is a notice whose hearing has another notice by now: two of one hearing went out.
    """
    ordered = sorted(sent, key=lambda each: (each[1].notice_id, each[1].revision))
    known = await store.lock(tx, sorted({notice.notice_id for _, notice in ordered}))
    homeless: set[UUID] = set()
    for notice_id, group in groupby(ordered, key=lambda each: each[1].notice_id):
        revisions = list(group)
        if not await _place(tx, known.get(notice_id), revisions):
            homeless |= {attributes.id for attributes, _ in revisions}
            continue
        await store.add_revisions(tx, [_revision(*each) for each in revisions])
    return homeless


async def _place(tx: Transaction, row: Obligation | None, revisions: Sequence[Sent]) -> bool:
    attributes, newest = revisions[-1]
    withdrawn = newest.notice_kind is NoticeKind.WITHDRAWAL
    if row is None:
        return bool(await store.add(tx, [_obligation(attributes, newest)]))
    if not row.revision:
        await store.send_waiting(tx, [_sending(attributes, newest, row.release)])
    if newest.revision < row.revision:
        return True
    if withdrawn:
        await store.set_state(tx, newest.notice_id, state="withdrawn", revision=newest.revision)
    elif row.withdrawn:
        # A person had taken its withdrawal back since.
        await store.set_state(tx, newest.notice_id, state="recorded", revision=newest.revision)
    else:
        await store.advance(tx, [(newest.notice_id, newest.revision)])
    return True


def _obligation(attributes: Attributes, notice: Notice) -> NewObligation:
    by_hand = notice.reporting_role is not ReportingRole.BATCH
    return NewObligation(
        notice_id=notice.notice_id,
        a_number=notice.a_number,
        base_city=notice.base_city_code,
        hearing_on=notice.hearing_on,
        hearing_at=notice.hearing_at,
        hearing_zone=notice.hearing_zone,
        outcome=notice.outcome,
        office=notice.aor_code,
        lane=attributes.lane,
        state="withdrawn" if notice.notice_kind is NoticeKind.WITHDRAWAL else "recorded",
        confirm=None,
        confirm_code=None,
        revision=notice.revision,
        detected_at=notice.detected_at,
        origin=HAND if by_hand else "docket",
        release=None if by_hand else notice.source_release,
        eoir_case_key=notice.eoir_case_key,
        eoir_proceeding_key=notice.eoir_proceeding_key,
        eoir_schedule_key=notice.eoir_schedule_key,
        content_id=None,
    )


def _sending(attributes: Attributes, notice: Notice, release: str | None) -> Sending:
    return Sending(
        notice_id=notice.notice_id,
        hearing_at=notice.hearing_at,
        hearing_zone=notice.hearing_zone,
        outcome=notice.outcome,
        office=notice.aor_code,
        lane=attributes.lane,
        release=release,
        kept_code=None,
    )


def _revision(attributes: Attributes, notice: Notice) -> RevisionRow:
    return RevisionRow(
        notice_id=notice.notice_id,
        revision=notice.revision,
        message_id=attributes.id,
        notice_kind=notice.notice_kind,
        reason_code=notice.reason_code,
        made_at=attributes.time,
    )
