"""What is late, on either side, by the clocks of the policy.

A clock runs whatever the reason for a wait: a dead letter, an outage, nobody there. The stages
of a notice at ICE are confirmation, receipt, acknowledgement and outcome; at HHS a case is late
when nobody took it in time, or somebody did and said nothing of its outcome.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from schemas import codes
from schemas.codes import Policy
from schemas.envelope import Lane
from services.hhs import clocks, queue
from services.ledger.store import Reading
from services.reports import store
from services.reports.store import OpenNotice

_PAGE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """One notice that is late: in which stage, since when, and who is waited for."""

    notice_id: UUID
    stage: str
    waits_for: str
    office: str
    owner: str | None
    due_at: datetime
    late_seconds: int
    policy: str


async def at_ice(
    database: Reading, *, office: str | None = None, now: datetime | None = None
) -> list[Late]:
    """Return what is late as ICE sees it, the latest first; at the moment `now`, if given."""
    now = now or datetime.now(UTC)
    policy = codes.policy()
    shortest = policy.clocks["receipt"].seconds or 0
    late: list[Late] = []
    after: UUID | None = None
    while True:
        async with database.transaction() as tx:
            page = await store.open_notices(
                tx,
                before=now - timedelta(seconds=shortest),
                office=office,
                after=after,
                limit=_PAGE,
            )
        late += _late_ones(page, policy, now)
        if len(page) < _PAGE:
            return sorted(late, key=lambda each: (each.due_at, each.notice_id))
        after = page[-1].notice_id


async def at_hhs(
    database: Reading, *, office: str | None = None, now: datetime | None = None
) -> list[Late]:
    """Return cases that are late at HHS, the latest first; at the moment `now`, if given."""
    now = now or datetime.now(UTC)
    late: list[Late] = []
    after: tuple[datetime, UUID] | None = None
    while True:
        page = await queue.listed(database, office=office, after=after, limit=_PAGE)
        late += [
            Late(
                notice_id=item.notice_id,
                stage="acknowledgement" if item.taken_at is None else "outcome",
                waits_for="HHS",
                office=item.office,
                owner=item.owner,
                due_at=item.due_at,
                late_seconds=int((now - item.due_at).total_seconds()),
                policy=codes.policy().version,
            )
            for item in page
            if item.due_at < now
        ]
        # What is due first comes first, so nothing after one that has time left is late.
        if len(page) < _PAGE or page[-1].due_at >= now:
            return late
        after = page[-1].due_at, page[-1].notice_id


def _late_ones(page: Sequence[OpenNotice], policy: Policy, now: datetime) -> Iterator[Late]:
    for notice in page:
        stage, waits_for, due_at = _stage(notice, policy)
        if due_at < now:
            yield Late(
                notice_id=notice.notice_id,
                stage=stage,
                waits_for=waits_for,
                office=notice.office,
                owner=None,
                due_at=due_at,
                late_seconds=int((now - due_at).total_seconds()),
                policy=policy.version,
            )


def _stage(notice: OpenNotice, policy: Policy) -> tuple[str, str, datetime]:
    """Return what a notice waits for, from whom, and by when."""
    if notice.state == "to_confirm":
        due = clocks.due_after(policy.clocks["disposition"], notice.detected_at)
        return "confirmation", "ICE", due
    if notice.receipt_at is None:
        begun = notice.recorded_at or notice.detected_at
        return "receipt", "HHS", clocks.due_after(policy.clocks["receipt"], begun)
    if notice.acknowledged_at is None:
        # As HHS counts it: a backlog has the time of an outcome.
        clock = "outcome" if notice.lane == Lane.BACKLOG else "disposition"
        due = clocks.due_after(policy.clocks[clock], notice.receipt_at)
        return "acknowledgement", "HHS", due
    return "outcome", "HHS", clocks.due_after(policy.clocks["outcome"], notice.receipt_at)
