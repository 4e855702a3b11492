"""Correct a notice that was sent: a new revision that says everything, and what it changes.

Only the side that signed a message corrects it. A correction names its reason, supersedes the
message before it, and names as its cause the message that it answers to: the refused one, if there
is one, so that HHS can take it in the refused one's place. What is not corrected stays as it was;
saying what is said already sends nothing. Who the child is can be corrected, too: the obligation
then stands for another child, unless a notice tells of that child and hearing already.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import structlog

from schemas.envelope import Lane
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.notice import PERSONAL_FIELDS, NoticeKind, Priority, ReasonCode
from services.ice import revisions
from services.ice.notices import handwriting
from services.ice.notices.decisions import REFUSALS, reason_for, refusal_of
from services.ice.notices.views import NoticeItem, content_now, item_now
from services.ice.revisions import (
    KEY_FIELDS,
    Revision,
    accept_revisions,
    corrected_by,
    record_of,
)
from services.ice.store import obligations as store
from services.ice.store import refusals
from services.ice.store.obligations import Obligation
from services.ledger.store import Store, Transaction, append

log = structlog.get_logger()

# What only says who wrote it down and when: no correction is made for it.
_BOOKKEEPING = frozenset({"source_release", "source_row_hash", "detected_at", "prior_missed"})
# What is worked out from other fields, and has to be again when one of them is corrected.
_FOLLOWS = {
    "birth_date": ("turns_18_on", "priority"),
    "hearing_local": ("priority",),
    "address_last_known": ("address_quality",),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One field that a correction changes; None is "not said". `personal` ones say who it is."""

    field: str
    before: Any
    after: Any

    @property
    def personal(self) -> bool:
        """Whether the values say who the child is or where."""
        return self.field in PERSONAL_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What a correction changes, or changed; `already` when everything is said so already.

    `cause` is the message that it answers to; `message_id` is set once it is on its way.
    """

    item: NoticeItem
    changes: tuple[Change, ...]
    cause: UUID
    message_id: UUID | None = None

    @property
    def already(self) -> bool:
        """Whether there is nothing to correct."""
        return not self.changes


async def propose(
    database: Store,
    notice_id: UUID,
    written: Mapping[str, Any],
    *,
    reason: str,
    actor: str,
    reveal: bool = False,
    now: datetime | None = None,
) -> Correction:
    """Return what a correction would change; nothing is sent.

    `written` has the fields to correct as `handwriting.read` takes them; None takes a field back.
    With `reveal` the caller shows who the child is, and that is on record. Raises what `correct`
    raises.
    """
    now = now or datetime.now(UTC)
    async with database.transaction() as tx:
        row = await store.read(tx, notice_id)
        _, correction = await _composed(tx, row, notice_id, written, reason, now)
        if reveal and any(change.personal for change in correction.changes):
            record = record_of(
                "notice.revealed",
                now=now,
                actor=actor,
                office=correction.item.office,
                notice_id=notice_id,
            )
            await append(tx, [record])
    return correction


async def correct(
    database: Store,
    notice_id: UUID,
    written: Mapping[str, Any],
    *,
    reason: str,
    actor: str,
    now: datetime | None = None,
) -> Correction:
    """Correct a notice: the new revision is on its way to HHS when this returns.

    Raises `NotFoundError` NB-1076; `ConflictError` NB-1050 when it was never sent or is withdrawn,
    NB-1051 when another notice tells of the corrected child and hearing, NB-1079 when its content
    was erased; `RejectedError` NB-1052 for a reason that is none for a correction, NB-1055 for the
    court's keys, and what `handwriting.read` raises for fields.
    """
    now = now or datetime.now(UTC)
    refused: RejectedError | NotFoundError | ConflictError | None = None
    async with database.transaction() as tx:
        row = (await store.lock(tx, [notice_id])).get(notice_id)
        try:
            revision, correction = await _composed(tx, row, notice_id, written, reason, now)
        except REFUSALS as error:
            refused = error
            await append(tx, [refusal_of("notice.corrected", row, notice_id, actor, now, error)])
        else:
            if revision is not None:
                correction = await _write(tx, revision, correction, actor=actor, now=now)
    if refused is not None:
        raise refused
    log.info(
        "notice corrected",
        notice_id=str(notice_id),
        fields=len(correction.changes),
        already=correction.already,
    )
    return correction


async def _write(
    tx: Transaction, revision: Revision, correction: Correction, *, actor: str, now: datetime
) -> Correction:
    notice = revision.notice
    await store.correct(tx, corrected_by(revision))
    [commitment] = await accept_revisions(tx, [revision], now)
    record = record_of(
        "notice.corrected",
        now=now,
        actor=actor,
        office=notice.aor_code,
        notice_id=notice.notice_id,
        revision=revision,
        commitment=commitment,
        reason=notice.reason_code,
    )
    await append(tx, [record])
    return Correction(
        item=await item_now(tx, notice.notice_id),
        changes=correction.changes,
        cause=correction.cause,
        message_id=revision.message_id,
    )


async def _composed(
    tx: Transaction,
    row: Obligation | None,
    notice_id: UUID,
    written: Mapping[str, Any],
    reason: str,
    now: datetime,
) -> tuple[Revision | None, Correction]:
    """Return the revision that corrects a notice, None if it changes nothing, and its changes."""
    if row is None:
        raise NotFoundError("NB-1076", notice_id=notice_id)
    code = reason_for(NoticeKind.CORRECTION, reason)
    if not row.revision or row.withdrawn:
        raise ConflictError("NB-1050", notice_id=notice_id, state=row.state)
    before = await content_now(tx, row)
    if before is None:
        raise ConflictError("NB-1079", notice_id=notice_id)
    after = _corrected(before, written, now)
    changes = tuple(
        Change(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if name not in _BOOKKEEPING and before.get(name) != after.get(name)
    )
    assert row.message_id is not None, "what was sent has a message"
    cause = await refusals.unanswered(tx, notice_id) or row.message_id
    correction = Correction(item=await item_now(tx, notice_id), changes=changes, cause=cause)
    if not changes:
        return None, correction
    revision = revisions.later(
        after,
        notice_id=notice_id,
        revision=row.revision + 1,
        kind=NoticeKind.CORRECTION,
        reason=ReasonCode(code),
        supersedes=row.message_id,
        lane=Lane(row.lane),
        cause=cause,
    )
    await _refuse_taken(tx, row, revision)
    return revision, correction


async def _refuse_taken(tx: Transaction, row: Obligation, revision: Revision) -> None:
    """Raise `ConflictError` NB-1051 when another notice tells of that child and hearing."""
    key = (revision.notice.a_number, revision.notice.base_city_code, revision.notice.hearing_on)
    if key == (row.a_number, row.base_city, row.hearing_on):
        return
    other = (await store.known(tx, [key])).get(key)
    if other is not None:
        raise ConflictError("NB-1051", notice_id=row.notice_id, other=other.notice_id)


def _corrected(
    before: Mapping[str, Any], written: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """Return what a notice says once `written` is put over what it said."""
    given = {handwriting.field_named(name): value for name, value in written.items()}
    for name in KEY_FIELDS:
        if name in given:
            raise RejectedError("NB-1055", field=name)
    kept = {name: value for name, value in before.items() if name in handwriting.FIELDS}
    for name, followers in _FOLLOWS.items():
        if name in given:
            for follower in followers:
                kept.pop(follower, None)
    if "hearing_local" in given and before["outcome_at"] == _day(before["hearing_local"]):
        kept.pop("outcome_at", None)
    if "aor_code" in given and before["reporting_office"] == before["aor_code"]:
        kept.pop("reporting_office", None)
    said = handwriting.read({**kept, **given}, now=now)
    after: dict[str, Any] = {
        **said.content,
        **{name: before[name] for name in ("detected_at", "prior_missed") if name in before},
        **{name: before[name] for name in KEY_FIELDS if name in before},
    }
    if "a_number" not in given and "a_number_raw" in before:
        after["a_number_raw"] = before["a_number_raw"]
    if before.get("prior_missed"):
        # A child who missed a hearing before stays urgent, whatever else is corrected.
        after["priority"] = str(Priority.URGENT)
    return after


def _day(local: str) -> str:
    return datetime.fromisoformat(local).date().isoformat() if "T" in local else _as_date(local)


def _as_date(text: str) -> str:
    return date.fromisoformat(text).isoformat()
