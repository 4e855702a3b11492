"""Make plans: what a replay would do, written down with an end to how long it holds.

Nothing has happened after a plan but the plan itself and its record in the ledger.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from schemas.canonical import b64, format_time
from schemas.errors import NotFoundError, RejectedError
from services.ledger.records import Record, make_record
from services.ledger.store import Store, append
from services.replay import store
from services.replay.selection import Counts, Plan, Selection, Target
from services.replay.survey import Examined, Progress, projection_of, survey

log = structlog.get_logger()

LIFETIME = timedelta(minutes=60)
FIRST_MAX = 100


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that was made, with the first events that are not the same."""

    plan: Plan
    first: tuple[Examined, ...]


async def plan(
    database: Store,
    agency: str,
    *,
    selection: Selection,
    target: Target,
    actor: str,
    first_max: int = FIRST_MAX,
    progress: Progress | None = None,
) -> Planned:
    """Look at what a replay would do, and keep that as a plan.

    Raises `RejectedError` NB-6011 for a range that ends before it begins.
    """
    made_at = datetime.now(UTC)
    selection = selection.before(made_at)
    found = await survey(
        database, projection_of(agency), selection, first_max=first_max, progress=progress
    )
    made = Plan(
        plan_id=uuid7(),
        state="planned",
        target=target,
        selection=selection,
        source_digest=found.source_digest,
        target_digest=found.target_digest,
        counts=found.counts,
        made_at=made_at,
        expires_at=made_at + LIFETIME,
        made_by=actor,
    )
    async with database.transaction() as tx:
        await store.keep_plan(tx, made)
        await append(
            tx, [record_of("replay.planned", made, made.counts, time=made_at, actor=actor)]
        )
    log.info("replay planned", plan_id=str(made.plan_id), changes=made.changes)
    return Planned(made, found.first)


async def find(database: Store, text: str) -> Plan:
    """Return the plan that an id or its beginning names.

    Raises `NotFoundError` NB-6010, or `RejectedError` NB-7009 when there are several.
    """
    async with database.transaction() as tx:
        found = await store.plans(tx, _prefix(text))
    if not found:
        raise NotFoundError("NB-6010", plan_id=text)
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="replay plans")
    return found[0]


async def notice_named(database: Store, text: str) -> UUID:
    """Return the notice that an id or its beginning names, among those that messages are about.

    Raises `NotFoundError` NB-6024, or `RejectedError` NB-7009 when there are several.
    """
    async with database.transaction() as tx:
        found = await store.notices(tx, _prefix(text))
    if not found:
        raise NotFoundError("NB-6024", value=text)
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="notices")
    return found[0]


def record_of(
    action: str,
    plan: Plan,
    counts: Counts,
    *,
    time: datetime,
    actor: str,
    reason: str | None = None,
    result: str = "ok",
    code: str | None = None,
) -> Record:
    """Return the ledger record of an act on a plan: who, why, what, how many; no content."""
    detail: dict[str, int | str] = {
        "plan_id": str(plan.plan_id),
        "to": str(plan.target.place),
        "source": b64(plan.source_digest),
        "new": counts.new,
        "same": counts.same,
        "changed": counts.changed,
        "blocked": counts.blocked,
    }
    if plan.selection.since is not None:
        detail["since"] = format_time(plan.selection.since)
    if plan.selection.until is not None:
        detail["until"] = format_time(plan.selection.until)
    return make_record(
        action,
        time=time,
        result=result,
        notice_id=plan.selection.notice_id,
        reason=code,
        actor=actor,
        text=reason,
        detail=detail,
    )


def _prefix(text: str) -> str:
    # What stands for anything in a pattern stands for itself in an id, and no id has it.
    return text.strip().lower().replace("\\", "").replace("%", "?").replace("_", "?")
