"""What people do with plans: find, list, approve, pause, cancel. Each act is in the ledger."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import structlog

from schemas.canonical import b64, canonical, format_time
from schemas.errors import ConflictError, NotAllowedError, NotFoundError, RejectedError
from services.exchange.beginnings import beginning
from services.ledger.records import Record, make_record
from services.ledger.store import Store, append
from services.replay.plans import Counts, Plan, State
from services.replay.sink import forget
from services.replay.store import messages, plans

log = structlog.get_logger()

# One replay at a time in each database; whoever runs one holds it.
RUN_LOCK = 0x6E62_7265_706C
_STOPPED_FROM = {
    State.PAUSED: (State.RUNNING,),
    State.CANCELLED: (State.PLANNED, State.RUNNING, State.PAUSED),
}


async def find(database: Store, text: str) -> Plan:
    """Return the plan that an id or its beginning names.

    Raises `NotFoundError` NB-6010, NB-6120 for no beginning of an id, `RejectedError` NB-7009 when
    there are several, or `ConflictError` NB-6039 for one that came along with a copy of another
    database.
    """
    begins = beginning(text)
    async with database.transaction() as tx:
        found = await plans.named(tx, begins)
        here = await messages.identity(tx)
    if not found:
        raise NotFoundError("NB-6010", plan_id=text)
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="replay plans")
    if found[0].store_id != here:
        raise ConflictError("NB-6039", plan_id=found[0].plan_id)
    return found[0]


async def listed(
    database: Store, *, states: Sequence[State] = (), limit: int = 1_000
) -> list[Plan]:
    """Return plans, newest first, of some states or of all."""
    async with database.transaction() as tx:
        return await plans.listed(tx, states, limit, datetime.now(UTC))


async def approve(database: Store, plan: Plan, *, actor: str, reason: str) -> Plan:
    """Approve a plan as a second person; returns it approved.

    Raises `NotAllowedError` NB-6037 for the one who made it, `ConflictError` NB-6012 for a plan
    that expired and NB-6038 for one that was approved, ended or was cancelled before.
    """
    now = datetime.now(UTC)
    if plan.made_by == actor:
        await _refused(database, plan, "replay.approved", actor, reason, "NB-6037")
        raise NotAllowedError("NB-6037", plan_id=plan.plan_id)
    async with database.transaction() as tx:
        # What the caller saw may be over: it is judged as it stands now, and stays so meanwhile.
        plan = await plans.hold(tx, plan.plan_id)
        if plan.state in (State.DONE, State.CANCELLED):
            raise ConflictError("NB-6038", plan_id=plan.plan_id, state=plan.state, act="approved")
        if not plan.begun and plan.expires_at <= now:
            raise ConflictError(
                "NB-6012", plan_id=plan.plan_id, expires_at=format_time(plan.expires_at)
            )
        if plan.approved_by is not None:
            raise ConflictError(
                "NB-6038", plan_id=plan.plan_id, state="approved already", act="approved"
            )
        await plans.approve(tx, plan.plan_id, actor, now)
        record = record_of(
            "replay.approved", plan, plan.counts, time=now, actor=actor, reason=reason
        )
        await append(tx, [record])
    log.info("replay approved", plan_id=str(plan.plan_id))
    return replace(plan, approved_by=actor, approved_at=now)


async def pause(database: Store, plan: Plan, *, actor: str, reason: str) -> Plan:
    """Let a run stop where it stands; the same plan runs on later.

    It is paused at once; a process that runs it stops after the batch that it is at. Raises
    `ConflictError` NB-6038 for a plan that is not running.
    """
    return await _stop(database, plan, State.PAUSED, actor=actor, reason=reason)


async def cancel(database: Store, plan: Plan, *, actor: str, reason: str) -> Plan:
    """End a plan that will never run, or on; what its run did stays done.

    It is cancelled at once, whatever runs: no run of it begins or goes on any more. Raises
    `ConflictError` NB-6038 for one that ended before.
    """
    return await _stop(database, plan, State.CANCELLED, actor=actor, reason=reason)


async def _stop(database: Store, plan: Plan, state: State, *, actor: str, reason: str) -> Plan:
    """Let a plan stand still from now on, by its state as it is and not as the caller saw it."""
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        plan = await plans.hold(tx, plan.plan_id)
        if plan.state not in _STOPPED_FROM[state]:
            raise ConflictError("NB-6038", plan_id=plan.plan_id, state=plan.state, act=state)
        record = record_of(f"replay.{state}", plan, plan.done, time=now, actor=actor, reason=reason)
        await append(tx, [record])
        await plans.stand(tx, plan.plan_id, state)
        if state is State.CANCELLED:
            await plans.thaw(tx, plan.plan_id)
    if state is State.CANCELLED:
        forget(plan)
    log.info("replay stopped", plan_id=str(plan.plan_id), state=str(state))
    return await find(database, str(plan.plan_id))


async def _refused(
    database: Store, plan: Plan, action: str, actor: str, reason: str, code: str
) -> None:
    async with database.transaction() as tx:
        record = record_of(
            action,
            plan,
            Counts(),
            time=datetime.now(UTC),
            actor=actor,
            reason=reason,
            result="refused",
            code=code,
        )
        await append(tx, [record])


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
    missing: int = 0,
) -> Record:
    """Return the ledger record of an act on a plan: who, why, what, how many; no content.

    `missing` is how many planned events a run that ended did not come upon.
    """
    chosen = plan.selection
    detail: dict[str, int | str] = {
        "plan_id": str(plan.plan_id),
        "from": plan.source.partition(":")[0],
        "to": str(plan.target.place),
        "source": b64(plan.source_digest),
        "selection": b64(sha256(canonical(chosen.written())).digest()),
        "new": counts.new,
        "same": counts.same,
        "changed": counts.changed,
        "blocked": counts.blocked,
    }
    if missing:
        detail["missing"] = missing
    if chosen.since is not None:
        detail["since"] = format_time(chosen.since)
    if chosen.until is not None:
        detail["until"] = format_time(chosen.until)
    return make_record(
        action,
        time=time,
        result=result,
        notice_id=chosen.notices[0] if len(chosen.notices) == 1 else None,
        reason=code,
        actor=actor,
        text=reason,
        detail=detail,
    )
