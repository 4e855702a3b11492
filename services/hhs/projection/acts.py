"""What people did in a case that is gone, by the records of their acts: who has it, and until when.

The same as `services.hhs.rebuilding` makes of all cases at once, here of a few and one by one.
Names and chosen codes count only under what their record commits to; where they were erased, and
where a record's bytes are in an archive, what `case_event` still tells stands for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas import codes
from schemas.canonical import parse, parse_time
from schemas.catalog import parse_body
from schemas.codes import Policy
from schemas.envelope import Kind, Lane
from schemas.errors import RejectedError
from schemas.notice import Notice, Priority
from services.exchange.rebuilding import State, told
from services.hhs import clocks
from services.hhs.projection.store import ActRow, EventRow, WorkRow
from services.hhs.rebuilding import UNSAID_LEASE

_TAKES = ("taken", "taken_over", "renewed")
_REVISIONS = ("corrected", "updated", "withdrawn")


@dataclass(frozen=True, slots=True)
class Worked:
    """A case as its acts leave it, and the acts themselves, those first that came first."""

    work: WorkRow
    events: tuple[EventRow, ...]


@dataclass(frozen=True, slots=True)
class _Act:
    """One act that took place, with what its record says; nothing where that is in an archive."""

    event: EventRow
    said: Mapping[str, Any]
    message_id: UUID | None
    body: bytes | None


def worked(
    rows: Sequence[ActRow],
    *,
    message_id: UUID,
    lane: Lane,
    priority: Priority,
    opened_at: datetime,
) -> Worked | None:
    """Return how a case stands that this message opened; None where its acts are in an archive."""
    acts = _acts([row for row in rows if row.event is not None])
    if acts is None:
        return None
    handed = [each for each in acts if each.event.event in (*_TAKES, "released")]
    last = handed[-1] if handed else None
    holder = last if last is not None and last.event.event != "released" else None
    owner = None if holder is None else holder.event.actor
    closed = [each for each in acts if each.event.event == "closed"]
    # A correction takes the withdrawals before it back.
    corrected = [at for at, each in enumerate(acts) if each.event.event == "corrected"]
    since = acts[corrected[-1] :] if corrected else acts
    withdrawn = [each for each in since if each.event.event == "withdrawn"]
    ended = closed or withdrawn
    # Who it was may be told nowhere any more: then nobody has it, and its clock runs on.
    state = "unowned" if owner is None else "taken"
    leased = holder if withdrawn or owner is not None else None
    taken = [each.event.happened_at for each in handed if each.event.event in _TAKES]
    work = WorkRow(
        state="withdrawn" if withdrawn else "closed" if closed else state,
        owner=owner,
        lease_until=None if leased is None or closed else _lease_until(leased),
        taken_at=min(taken, default=None),
        closed_at=ended[0].event.happened_at if ended else None,
        outcome_code=closed[0].event.code if closed else None,
        reply_revision=sum(
            each.message_id is not None and each.event.event in (*_TAKES, "closed") for each in acts
        ),
        due_at=_due_at(rows, acts, last, message_id, lane, priority, opened_at),
    )
    return Worked(work, tuple(each.event for each in acts))


def _due_at(
    rows: Sequence[ActRow],
    acts: Sequence[_Act],
    last: _Act | None,
    message_id: UUID,
    lane: Lane,
    priority: Priority,
    opened_at: datetime,
) -> datetime:
    """Return when a case is due, by the clock that ran last: of a take, a release, its opening."""
    policy = _policy(_version(rows, message_id) if last is None else last.said.get("policy", ""))
    if last is not None and last.event.event != "released":
        return clocks.outcome_due(policy, opened_at=opened_at)
    if last is not None:
        priority = _priority_at(acts, last) or priority
    return clocks.take_due(policy, priority=priority, lane=lane, opened_at=opened_at)


def _acts(rows: Sequence[ActRow]) -> list[_Act] | None:
    """Return the acts that took place, in order; None where nothing here tells which did."""
    away = [row for row in rows if row.record is None]
    if away and not any(row.kept for row in away):
        return None
    acts = []
    for row in rows:
        assert row.event is not None
        if row.record is None:
            # One that `case_event` does not know was refused: all others are there.
            if row.kept:
                acts.append(_Act(_event(row, row.code, row.actor), {}, row.message_id, row.body))
            continue
        said = parse(row.record)
        if said.get("result") != "ok":
            continue
        names = told(row.record_id, row.record, row.opened)
        actor, code = names.actor, names.text if row.event == "closed" else None
        if names.state == State.ERASED:
            actor, code = actor or row.actor, code or row.code
        if row.event in _REVISIONS:
            code = said.get("reason")
        acts.append(_Act(_event(row, code, actor), said, row.message_id, row.body))
    return acts


def _event(row: ActRow, code: str | None, actor: str | None) -> EventRow:
    assert row.event is not None
    return EventRow(
        notice_id=row.notice_id,
        event=row.event,
        code=code,
        actor=actor,
        happened_at=row.at,
        record_id=row.record_id,
    )


def _version(rows: Sequence[ActRow], message_id: UUID) -> str:
    """Return the policy version under which a message took effect; "" where nothing names it."""
    arrivals = [
        (row.action, parse(row.record))
        for row in rows
        if row.event is None and row.message_id == message_id and row.record is not None
    ]
    applied = [said.get("policy", "") for action, said in arrivals if action == "message.applied"]
    taken = [said.get("policy", "") for _, said in arrivals if said.get("result") == "taken"]
    return max(applied, default="") or (taken[-1] if taken else "")


def _policy(version: str) -> Policy:
    return codes.policies().codes[version] if version else codes.policy()


def _lease_until(act: _Act) -> datetime:
    said = act.said.get("detail", {}).get("lease_until")
    return act.event.happened_at + UNSAID_LEASE if said is None else parse_time(said)


def _priority_at(acts: Sequence[_Act], released: _Act) -> Priority | None:
    """Return the priority that the last revision before a release gave; None without one."""
    for act in reversed(acts[: acts.index(released)]):
        if act.event.event in _REVISIONS and act.body is not None:
            try:
                notice = parse_body(Kind.FTA, 1, act.body)
            except RejectedError:
                return None
            assert isinstance(notice, Notice)
            return notice.priority
    return None
