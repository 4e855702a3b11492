"""What HHS derives from notices: the facts of a case, and when its clock began.

Every revision of a notice says all of it, so the newest decides the facts; the first decides when
the case was opened, on which lane, and when it is due. Who works a case, its lease, its outcome and
how far its replies came are people's doing and stay as they are. A case file that is gone is made
again with the acts that `case_event` still tells of: it waits in the queue, or it stays closed.

A due time that any version of the policy gives is right, and after somebody took the case it is
that person's clock, so no replay moves it. What is derived starts from when the message was taken,
never from now.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from schemas import codes
from schemas.envelope import Kind
from schemas.notice import Notice, NoticeKind
from services.exchange.recorded import (
    Difference,
    Finding,
    Readable,
    Standing,
    differences,
)
from services.hhs import clocks
from services.hhs.projection import store
from services.hhs.projection.store import CaseRow, FactsRow, OpeningRow
from services.ledger.store import Transaction

FACTS = tuple(name for name in FactsRow.__dataclass_fields__ if name != "notice_id")
OPENING = ("lane", "opened_at", "due_at")


@dataclass(frozen=True, slots=True)
class CaseProjection:
    """The case files of HHS, as far as notices decide them."""

    kinds: frozenset[Kind] = frozenset({Kind.FTA})

    async def hold(self, tx: Transaction, notices: Sequence[UUID]) -> None:
        """Keep further revisions and people from these cases until the transaction ends."""
        await store.hold(tx, notices)

    async def compare(
        self, tx: Transaction, messages: Sequence[Readable], ahead: MutableMapping[UUID, int]
    ) -> list[Finding]:
        """Return how each revision stands to its case; see `Projection.compare`."""
        cases = await store.cases(tx, sorted({_notice(m).notice_id for m in messages}))
        return [_compare(m, cases.get(_notice(m).notice_id), ahead) for m in messages]

    async def apply(
        self, tx: Transaction, messages: Sequence[Readable], findings: Sequence[Finding]
    ) -> None:
        """Open cases that are gone, and put right the facts of the others."""
        opened: list[tuple[FactsRow, OpeningRow]] = []
        openings: list[OpeningRow] = []
        facts: dict[UUID, FactsRow] = {}
        withdrawn: dict[UUID, datetime] = {}
        for message, finding in zip(messages, findings, strict=True):
            notice, fields = _notice(message), {each.field for each in finding.differences}
            if finding.standing is Standing.NEW and notice.revision == 1:
                opened.append((_facts(message), _opening(message)))
            elif not fields.isdisjoint(FACTS):
                # Revisions come in order, and each says everything: the last one stays.
                facts[notice.notice_id] = _facts(message)
            if finding.standing is Standing.CHANGED and not fields.isdisjoint(OPENING):
                opening = _opening(message)
                openings.append(opening if "due_at" in fields else replace(opening, due_at=None))
            if "state" in fields:
                withdrawn.setdefault(notice.notice_id, message.message.at)
        await store.open_again(tx, opened)
        await store.set_opening(tx, openings)
        await store.set_facts(tx, list(facts.values()))
        await store.withdraw(tx, withdrawn)


def _compare(message: Readable, case: CaseRow | None, ahead: MutableMapping[UUID, int]) -> Finding:
    notice = _notice(message)
    stored = 0 if case is None else case.applied_revision
    reached = max(stored, ahead.get(notice.notice_id, 0))
    if notice.revision > reached + 1:
        return Finding(Standing.BLOCKED, cause="NB-6023")
    if notice.revision > reached:
        ahead[notice.notice_id] = notice.revision
        return Finding(Standing.NEW, _all_of_it(message, case))
    found: tuple[Difference, ...] = ()
    if case is not None and notice.revision == 1:
        found += _opening_differences(message, case)
    if case is not None and notice.revision == stored:
        found += differences(case, _facts(message), FACTS)
    if case is not None and notice.notice_kind is NoticeKind.WITHDRAWAL:
        found += _withdrawal(case)
    return Finding(Standing.CHANGED if found else Standing.SAME, found)


def _all_of_it(message: Readable, case: CaseRow | None) -> tuple[Difference, ...]:
    """Return what a revision that the case lacks would change."""
    notice = _notice(message)
    found = differences(case, _facts(message), FACTS)
    if notice.revision == 1:
        found += differences(case, _opening(message), OPENING)
    if notice.notice_kind is NoticeKind.WITHDRAWAL:
        found += _withdrawal(case)
    return found


def _opening_differences(message: Readable, case: CaseRow) -> tuple[Difference, ...]:
    opening = _opening(message)
    right = case.worked or case.due_at in _due_times(message)
    return tuple(
        each
        for each in differences(case, opening, OPENING)
        if not (right and each.field == "due_at")
    )


def _withdrawal(case: CaseRow | None) -> tuple[Difference, ...]:
    before = None if case is None else case.state
    return () if before == "withdrawn" else (Difference("state", before, "withdrawn"),)


def _notice(message: Readable) -> Notice:
    assert isinstance(message.body, Notice)
    return message.body


def _facts(message: Readable) -> FactsRow:
    notice = _notice(message)
    return FactsRow(
        notice_id=notice.notice_id,
        office=notice.aor_code,
        outcome=str(notice.outcome),
        base_city=notice.base_city_code,
        # In UTC, because times of two zones never compare equal in an hour that comes twice.
        hearing_at=notice.hearing_at.astimezone(UTC),
        hearing_zone=notice.hearing_zone,
        priority=str(notice.priority),
        revision=notice.revision,
        notice_kind=str(notice.notice_kind),
        message_id=message.message.message_id,
    )


def _opening(message: Readable) -> OpeningRow:
    return OpeningRow(
        notice_id=_notice(message).notice_id,
        lane=str(message.lane),
        opened_at=message.message.at,
        due_at=_due_times(message)[-1],
    )


def _due_times(message: Readable) -> list[datetime]:
    """Return when the case is due by each version of the policy, the newest last."""
    return [
        clocks.take_due(
            policy,
            priority=_notice(message).priority,
            lane=message.lane,
            opened_at=message.message.at,
        )
        for policy in codes.policies().codes.values()
    ]
