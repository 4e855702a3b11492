"""Look at notices: lists with the child masked, one in full, and the trace of its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from schemas.errors import NotFoundError, RejectedError
from schemas.notice import PERSONAL_FIELDS, mask_a_number
from services.exchange.agency import Agency
from services.exchange.beginnings import Beginning, beginning
from services.exchange.trace import Trace, trace
from services.ice import revisions
from services.ice.revisions import record_of
from services.ice.store import notices as store
from services.ice.store import obligations, refusals
from services.ice.store.notices import NoticeView
from services.ice.store.obligations import Obligation
from services.ice.store.refusals import Refused
from services.ledger.store import Store, Transaction, append

STATES = (
    "to_confirm",
    "dismissed",
    "recorded",
    "sent",
    "receipted",
    "acknowledged",
    "closed",
    "withdrawn",
    "dead",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeItem:
    """A notice as a list shows it: the child masked, the hearing in the court's time."""

    notice_id: UUID
    revision: int
    kind: str
    outcome: str
    state: str
    confirm: str | None
    confirm_code: str | None
    child: str
    office: str
    court: str
    hearing_at: datetime
    hearing_zone: str
    lane: str
    origin: str
    eoir_case_key: int | None
    eoir_schedule_key: int | None
    detected_at: datetime
    recorded_at: datetime | None
    sent_at: datetime | None
    receipt_at: datetime | None
    acknowledged_at: datetime | None
    closed_at: datetime | None
    outcome_code: str | None
    answer_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeDetail:
    """All that ICE knows of a notice. `content` is without identity unless it was revealed."""

    item: NoticeItem
    content: Mapping[str, Any] | None
    aliases: Sequence[tuple[str, int]]
    reason_code: str | None
    release: str | None
    overdue_at: datetime | None


async def listed(
    database: Store,
    *,
    states: Sequence[str] | None = None,
    office: str | None = None,
    lane: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: UUID | None = None,
    limit: int = 1_000,
) -> list[NoticeItem]:
    """Return notices, oldest first; `after` goes on from a row, `since` is when we learned of it.

    Raises `RejectedError` NB-1083 for a state that does not exist.
    """
    for state in states or ():
        if state not in STATES:
            raise RejectedError("NB-1083", known=", ".join(STATES))
    async with database.transaction() as tx:
        rows = await store.page(
            tx,
            states=states,
            office=office,
            lane=lane,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
    return [item_of(row) for row in rows]


async def refused(
    database: Store,
    *,
    state: str | None = None,
    cause: str | None = None,
    office: str | None = None,
    lane: str | None = None,
    begins: Beginning | None = None,
    limit: int = 1_000,
) -> list[Refused]:
    """Return messages of ours that HHS refused, newest first: what only we can correct.

    `begins` is how the id of a message begins, or of its notice.
    """
    async with database.transaction() as tx:
        rows = await refusals.refused(
            tx, state=state, cause=cause, office=office, lane=lane, begins=begins, limit=limit
        )
    return list(rows)


async def shown(
    database: Store, notice_id: UUID, *, actor: str, reveal: bool = False
) -> NoticeDetail:
    """Return all that is known of a notice; with `reveal` the child's identity too, on record.

    Raises `NotFoundError` NB-1076.
    """
    async with database.transaction() as tx:
        detail = await detail_of(tx, notice_id)
        if reveal:
            await revealed(tx, detail, actor=actor)
    return detail if reveal else masked(detail)


async def detail_of(tx: Transaction, notice_id: UUID) -> NoticeDetail:
    """Return all that is known of a notice, with its content in clear: reveal it or mask it.

    Raises `NotFoundError` NB-1076.
    """
    row = await store.one(tx, notice_id)
    if row is None:
        raise NotFoundError("NB-1076", notice_id=notice_id)
    obligation = await obligations.read(tx, notice_id)
    return NoticeDetail(
        item=item_of(row),
        content=None if obligation is None else await content_now(tx, obligation),
        aliases=[(alias.kind, alias.key) for alias in await store.aliases(tx, notice_id)],
        reason_code=row.reason_code,
        release=row.release,
        overdue_at=row.overdue_at,
    )


async def revealed(tx: Transaction, detail: NoticeDetail, *, actor: str) -> None:
    """Put on record that somebody sees who the child is."""
    record = record_of(
        "notice.revealed",
        now=datetime.now(UTC),
        actor=actor,
        office=detail.item.office,
        notice_id=detail.item.notice_id,
    )
    await append(tx, [record])


def masked(detail: NoticeDetail) -> NoticeDetail:
    """Return a notice without what says who the child is."""
    content = detail.content
    if content is None:
        return detail
    kept = {name: value for name, value in content.items() if name not in PERSONAL_FIELDS}
    return replace(detail, content=kept)


async def traced(agency: Agency, notice_id: UUID) -> Trace:
    """Return every step of a notice on this side, each verified, and where the notice stands.

    Raises `NotFoundError` NB-1076 for one that this side never heard of.
    """
    async with agency.store.transaction() as tx:
        known = await store.one(tx, notice_id)
    found = await trace(agency, notice_id)
    if known is not None:
        code = known.confirm_code if known.state == "to_confirm" else known.outcome_code
        return replace(found, state=known.state, state_code=known.answer_code or code)
    if not found.steps and not found.set_aside:
        raise NotFoundError("NB-1076", notice_id=notice_id)
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
        raise NotFoundError("NB-7012", what="notice", value=text, listing="noticebus notice list")
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="notices")
    return found[0]


async def item_now(tx: Transaction, notice_id: UUID) -> NoticeItem:
    """Return a notice that is known to exist, as it stands in this transaction."""
    row = await store.one(tx, notice_id)
    assert row is not None, notice_id
    return item_of(row)


async def content_now(tx: Transaction, row: Obligation) -> dict[str, Any] | None:
    """Return what a notice says, or would say; None when its content was erased."""
    if row.message_id is None:
        body = row.content
    else:
        body = (await obligations.bodies(tx, [row.message_id])).get(row.message_id)
    return None if body is None else revisions.content_of(body)


def item_of(row: NoticeView) -> NoticeItem:
    """Return a row as people see it."""
    return NoticeItem(
        notice_id=row.notice_id,
        revision=row.revision,
        kind=row.notice_kind,
        outcome=row.outcome,
        state=row.state,
        confirm=row.confirm,
        confirm_code=row.confirm_code,
        child=mask_a_number(row.a_number),
        office=row.office,
        court=row.base_city,
        hearing_at=row.hearing_at.astimezone(ZoneInfo(row.hearing_zone)),
        hearing_zone=row.hearing_zone,
        lane=row.lane,
        origin=row.origin,
        eoir_case_key=row.eoir_case_key,
        eoir_schedule_key=row.eoir_schedule_key,
        detected_at=row.detected_at,
        recorded_at=row.recorded_at,
        sent_at=row.sent_at,
        receipt_at=row.receipt_at,
        acknowledged_at=row.acknowledged_at,
        closed_at=row.closed_at,
        outcome_code=row.outcome_code,
        answer_code=row.answer_code,
    )
