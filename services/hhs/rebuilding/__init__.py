"""Make case files, what was done in them, the queue and its clocks again.

Derived: `case_file` and `case_event`, with `sent` (see `services.exchange.rebuilding`). Facts
of a case come from the newest revision that took effect, its beginning from the first; what people
did, from the records of their acts, with names and chosen codes from what those records commit to.
The queue is the open cases in order of their due time. `case_event.event_id` only gives acts a
number: what it numbers is ordered by the records.

When a case is due is worked out by the very clocks that set it: of the policy version that the
record names, of the last act, or of the message that opened it. Records of openings named none at
first: those are taken to be of the newest.
"""

from datetime import datetime, timedelta

from schemas import codes
from schemas.codes import Policy
from schemas.envelope import Lane
from schemas.notice import Priority
from services.exchange.rebuilding import Rebuilding, rebuild_sent, take_names
from services.hhs import clocks
from services.hhs.rebuilding import store
from services.hhs.rebuilding.store import ClockRow

# Takes without a length were for this long, before their records said so.
UNSAID_LEASE = timedelta(hours=8)


async def rebuild(work: Rebuilding) -> None:
    """Make HHS's projections again, in the schema of `work`."""
    await take_names(work, store.ACTS)
    await store.rebuild_events(work.tx)
    await store.take_steps(work.tx)
    async for batch in store.starts(work.tx):
        await store.keep_clocks(work.tx, [_clock(*start) for start in batch])
        work.tell("clocks", len(batch))
    await store.rebuild_cases(work.tx, lease=UNSAID_LEASE)
    await rebuild_sent(work, revisions=store.REPLIES)


def _clock(version: str, lane: str, priority: str, opened_at: datetime) -> ClockRow:
    policy = _policy(version)
    return ClockRow(
        policy=version,
        lane=lane,
        priority=priority,
        opened_at=opened_at,
        take_due=clocks.take_due(
            policy, priority=Priority(priority), lane=Lane(lane), opened_at=opened_at
        ),
        outcome_due=clocks.outcome_due(policy, opened_at=opened_at),
    )


def _policy(version: str) -> Policy:
    return codes.policies().codes[version] if version else codes.policy()
