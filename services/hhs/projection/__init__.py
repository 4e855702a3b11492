"""What HHS derives from notices: the facts of a case, and when its clock began.

Every revision of a notice says all of it, so the newest decides the facts; the first decides when
the case was opened, on which lane, and when it is due. Who works a case, its lease, its outcome and
how far its replies came are people's doing and stay as they are. A case file that is gone is made
again with what people did in it, as the records of their acts say: whoever had it has it, until
when they had it, and its clock is the one that ran.

A due time that any version of the policy gives is right, and after somebody took the case it is
that person's clock, so no replay moves it. What is derived starts from when the message came, also
where it was set aside for a while, and never from now.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from schemas import codes
from schemas.envelope import Kind
from schemas.notice import Notice, NoticeKind
from services.exchange.recorded import (
    Ahead,
    Difference,
    Finding,
    Readable,
    Standing,
    differences,
)
from services.hhs import clocks
from services.hhs.projection import store
from services.hhs.projection.acts import Worked, worked
from services.hhs.projection.store import (
    ActRow,
    CaseRow,
    EventRow,
    FactsRow,
    OpeningRow,
    Waited,
    WorkRow,
)
from services.ledger.store import Transaction

FACTS = tuple(name for name in FactsRow.__dataclass_fields__ if name != "notice_id")
OPENING = ("lane", "opened_at", "due_at")
WORK = ("state", "owner", "lease_until", "taken_at", "closed_at", "outcome_code")
NAMED = "(by name on record)"
# What says whether a notice is withdrawn: the last of these.
_TURNING = frozenset({NoticeKind.WITHDRAWAL, NoticeKind.CORRECTION})


@dataclass(frozen=True, slots=True)
class CaseProjection:
    """The case files of HHS, as far as notices decide them."""

    kinds: frozenset[Kind] = frozenset({Kind.FTA})

    async def hold(self, tx: Transaction, notices: Sequence[UUID]) -> None:
        """Keep further revisions and people from these cases until the transaction ends."""
        await store.hold(tx, notices)

    async def compare(
        self, tx: Transaction, messages: Sequence[Readable], ahead: Ahead
    ) -> list[Finding]:
        """Return how each revision stands to its case; see `Projection.compare`."""
        notices = sorted({_notice(m).notice_id for m in messages})
        cases = await store.cases(tx, notices)
        waited = await store.waited(tx, notices)
        acts = await store.acts(tx, [each for each in notices if each not in cases])
        turned = await store.turned(
            tx, sorted({n.notice_id for n in map(_notice, messages) if n.notice_kind in _TURNING})
        )
        return [
            _compare(
                m,
                cases.get(_notice(m).notice_id),
                waited.get(_notice(m).notice_id),
                acts.get(_notice(m).notice_id, ()),
                turned.get(_notice(m).notice_id),
                ahead,
            )
            for m in messages
        ]

    async def apply(
        self, tx: Transaction, messages: Sequence[Readable], findings: Sequence[Finding]
    ) -> None:
        """Open cases that are gone, and put right the facts of the others."""
        opened: list[tuple[FactsRow, OpeningRow, WorkRow]] = []
        events: list[EventRow] = []
        openings: list[OpeningRow] = []
        facts: dict[UUID, FactsRow] = {}
        withdrawn: dict[UUID, datetime] = {}
        resumed: set[UUID] = set()
        waits = await store.waited(tx, sorted({_notice(m).notice_id for m in messages}))
        new = {
            _notice(m).notice_id
            for m, finding in zip(messages, findings, strict=True)
            if finding.standing is Standing.NEW
        }
        acts = await store.acts(tx, sorted(new))
        for message, finding in zip(messages, findings, strict=True):
            notice, fields = _notice(message), {each.field for each in finding.differences}
            waited = waits.get(notice.notice_id)
            if finding.standing is Standing.NEW and _opens(notice, waited):
                opening = _opening(message, waited)
                found = _worked(message, opening, acts.get(notice.notice_id, ()))
                assert found is not None, "what nobody can tell was blocked"
                opened.append((_facts(message), opening, found.work))
                events += found.events
            elif not fields.isdisjoint(FACTS):
                # Revisions come in order, and each says everything: the last one stays.
                facts[notice.notice_id] = _facts(message)
            if finding.standing is Standing.CHANGED and not fields.isdisjoint(OPENING):
                opening = _opening(message, waited)
                openings.append(opening if "due_at" in fields else replace(opening, due_at=None))
            turns = finding.standing is Standing.NEW or "state" in fields
            if turns and notice.notice_kind is NoticeKind.WITHDRAWAL:
                resumed.discard(notice.notice_id)
                withdrawn.setdefault(notice.notice_id, message.message.at)
            elif turns and notice.notice_kind is NoticeKind.CORRECTION:
                withdrawn.pop(notice.notice_id, None)
                resumed.add(notice.notice_id)
        await store.open_again(tx, opened, events)
        await store.set_opening(tx, openings)
        await store.set_facts(tx, list(facts.values()))
        await store.withdraw(tx, withdrawn)
        await store.resume(tx, sorted(resumed))


def _compare(
    message: Readable,
    case: CaseRow | None,
    waited: Waited | None,
    acts: Sequence[ActRow],
    turned: UUID | None,
    ahead: Ahead,
) -> Finding:
    notice = _notice(message)
    stored = 0 if case is None else case.applied_revision
    reached = max(stored, ahead.get(notice.notice_id, 0))
    while waited is not None and reached + 1 in waited.passed:
        reached += 1
    if notice.revision > reached + 1:
        return Finding(Standing.BLOCKED, cause="NB-6023")
    if notice.revision > reached:
        all_of_it = _all_of_it(message, case, waited, acts)
        if all_of_it is None:
            return Finding(Standing.BLOCKED, cause="NB-6123")
        ahead[notice.notice_id] = notice.revision
        return Finding(Standing.NEW, all_of_it)
    found: tuple[Difference, ...] = ()
    if case is not None and _opens(notice, waited):
        found += _opening_differences(message, case, waited)
    if case is not None and notice.revision == stored:
        found += differences(case, _facts(message), FACTS)
    if case is not None and _turns(message, turned):
        found += _turn(notice, case)
    return Finding(Standing.CHANGED if found else Standing.SAME, found)


def _opens(notice: Notice, waited: Waited | None) -> bool:
    """Tell whether a revision opens the case: the first, or the one that stands in for it."""
    passed = frozenset() if waited is None else waited.passed
    return all(before in passed for before in range(1, notice.revision))


def _all_of_it(
    message: Readable, case: CaseRow | None, waited: Waited | None, acts: Sequence[ActRow]
) -> tuple[Difference, ...] | None:
    """Return what a revision that the case lacks would change; None where nobody can tell."""
    notice = _notice(message)
    found = differences(case, _facts(message), FACTS)
    if _opens(notice, waited):
        opening = _opening(message, waited)
        again = _worked(message, opening, acts)
        if again is None:
            return None
        found += differences(case, replace(opening, due_at=again.work.due_at), OPENING)
        # Who has it is said, and not by name: a plan goes to more people than the case.
        owner = None if again.work.owner is None else NAMED
        return found + differences(None, replace(again.work, owner=owner), WORK)
    return found + _turn(notice, case)


def _worked(message: Readable, opening: OpeningRow, acts: Sequence[ActRow]) -> Worked | None:
    return worked(
        acts,
        message_id=message.message.message_id,
        lane=message.lane,
        priority=_notice(message).priority,
        opened_at=opening.opened_at,
    )


def _opening_differences(
    message: Readable, case: CaseRow, waited: Waited | None
) -> tuple[Difference, ...]:
    opening = _opening(message, waited)
    right = case.worked or case.due_at in _due_times(message, opening.opened_at)
    return tuple(
        each
        for each in differences(case, opening, OPENING)
        if not (right and each.field == "due_at")
    )


def _turns(message: Readable, turned: UUID | None) -> bool:
    """Tell whether a revision says last whether the notice is withdrawn.

    `turned` is the message that did so by the acts; where none tells, no withdrawal was taken back.
    """
    if turned is None:
        return _notice(message).notice_kind is NoticeKind.WITHDRAWAL
    return turned == message.message.message_id


def _turn(notice: Notice, case: CaseRow | None) -> tuple[Difference, ...]:
    """Return what a withdrawal, or the correction that takes it back, changes of the state."""
    before = None if case is None else case.state
    if notice.notice_kind is NoticeKind.WITHDRAWAL:
        return () if before == "withdrawn" else (Difference("state", before, "withdrawn"),)
    if notice.notice_kind is NoticeKind.CORRECTION and case is not None and before == "withdrawn":
        return (Difference("state", before, case.resumed),)
    return ()


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


def _opening(message: Readable, waited: Waited | None) -> OpeningRow:
    notice = _notice(message)
    arrivals = {} if waited is None else waited.arrivals
    came = [at for revision, at in arrivals.items() if revision <= notice.revision]
    opened_at = min([message.message.at, *came])
    return OpeningRow(
        notice_id=notice.notice_id,
        lane=str(message.lane),
        opened_at=opened_at,
        due_at=_due_times(message, opened_at)[-1],
    )


def _due_times(message: Readable, opened_at: datetime) -> list[datetime]:
    """Return when the case is due by each version of the policy, the newest last."""
    return [
        clocks.take_due(
            policy,
            priority=_notice(message).priority,
            lane=message.lane,
            opened_at=opened_at,
        )
        for policy in codes.policies().codes.values()
    ]
