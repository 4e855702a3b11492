"""Run a plan: the projection comes to say what the messages say, and nothing else moves.

A run begins only while messages and projection are as the plan showed them. It goes in order, one
transaction a batch, with its own cursor: one that was interrupted goes on where it stood, by the
same command. Each event is looked at again when its turn comes, so that what live traffic has moved
on in the meantime is left alone. Beginning and end are records in the ledger, also a refusal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

import orjson
import structlog

from schemas.canonical import format_time
from schemas.errors import ConflictError, NoticeBusError, RejectedError
from services.exchange.recorded import Projection, Standing
from services.ledger.store import Store, append
from services.replay import store
from services.replay.planning import find, record_of
from services.replay.selection import Counts, Place, Plan
from services.replay.store import PASS_SECONDS, Cursor
from services.replay.survey import BATCH_MAX, Examined, Progress, examine, projection_of, survey

log = structlog.get_logger()

# One replay at a time in each database.
_LOCK = 0x6E62_7265_706C

Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run did: how events stood when their turn came, and how many lines were written."""

    plan: Plan
    counts: Counts
    written: int
    resumed: bool


async def run(
    database: Store,
    agency: str,
    plan_id: str,
    *,
    actor: str,
    reason: str,
    confirm: int | None = None,
    write: Callable[[Plan], Write] | None = None,
    progress: Progress | None = None,
    projection: Projection | None = None,
    batch_max: int = BATCH_MAX,
) -> Ran:
    """Do what a plan showed.

    `write` opens the place that gets the lines of a plan to stdout or a file. Raises
    `NotFoundError` NB-6010; `RejectedError` NB-6015, NB-6016 for changes that were not confirmed;
    `ConflictError` NB-6012 (expired), NB-6013 (stale), NB-6014 (another runs), NB-6019 (done).
    After an outage or an interruption the same call goes on.
    """
    plan = await find(database, plan_id)
    projection = projection or projection_of(agency)
    async with database.session() as session:
        try:
            if not await session.try_lock(_LOCK):
                raise ConflictError("NB-6014")
            # Read again under the lock: another run may have ended a moment ago.
            plan = await find(database, str(plan.plan_id))
            await _admit(database, plan, projection, confirm)
        except (ConflictError, RejectedError) as error:
            await _record_refusal(database, plan, error, actor=actor, reason=reason)
            raise
        counts, written = await _run(
            database, plan, projection, actor, reason, write, progress, batch_max
        )
    log.info("replay ran", plan_id=str(plan.plan_id), events=counts.events)
    return Ran(plan=plan, counts=counts, written=written, resumed=plan.state == "running")
