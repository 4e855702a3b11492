"""Run recorded messages again into a chosen place: plan first, look, then run.

Nothing is sent again, no clock starts again, nothing counts as use. What writes to standard output
or a file changes nothing, so it may run without a plan of its own.
"""

from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli import output
from services.cli.everywhere import Output, noun
from services.cli.output import Column, readable
from services.cli.report import SinceOption, UntilOption, moment
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
    from services.replay import Examined, Plan, Planned, Ran, Target

app = noun("Run recorded messages again into a chosen place.")

ToOption = Annotated[
    str, typer.Option(metavar="PLACE", help="stdout, file:PATH, or store (what we derived).")
]
NoticeOption = Annotated[
    str | None, typer.Option(metavar="NOTICE", help="Only this notice; its id or beginning.")
]
ITEM_COLUMNS = [
    Column("standing", "EVENT"),
    Column("kind"),
    Column("notice_id", "NOTICE"),
    Column("revision", "REV", right=True),
    Column("at"),
    Column("differs", "WHAT DIFFERS"),
]


@app.command()
def plan(
    ctx: typer.Context,
    *,
    to: ToOption = "store",
    since: SinceOption = None,
    until: UntilOption = None,
    notice: NoticeOption = None,
) -> None:
    """Show what a replay would change, and keep that as a plan for an hour; changes nothing."""
    session = session_of(ctx)
    planned = _plan(session, to, since, until, notice)
    items = [_event(each) for each in planned.first]
    session.emit_one(
        {**_described(planned.plan), "items": items},
        schema="replay.plan",
        people=_people(planned.plan),
    )
    if items and output.chosen(session.given.output) is Output.TABLE:
        output.emit_text("")
        session.emit(items, schema="replay.events", columns=ITEM_COLUMNS, empty="")


@app.command()
def run(
    ctx: typer.Context,
    plan_id: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="Its id, or the beginning of it.")
    ] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is on record.")] = "",
    confirm: Annotated[
        int | None, typer.Option(metavar="N", help="The number of changes the plan showed.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Without a plan: stdout or file:PATH."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    notice: NoticeOption = None,
) -> None:
    """Do what a plan showed; exit 9 when anything has changed since. Resumes where it stopped."""
    from services.replay import Place

    session = session_of(ctx)
    if plan_id is None:
        if to is None:
            raise session.misused("name a plan, or say --to stdout or --to file:PATH")
        if _target(to).place is Place.STORE:
            raise session.misused("what changes the store needs a plan: noticebus replay plan")
        chosen = _plan(session, to, since, until, notice).plan
    else:
        if to or since or until or notice:
            raise session.misused("a plan already says what is replayed, and where to")
        chosen = _find(session, plan_id)
    if chosen.changes and not reason:
        raise session.misused("--reason is needed for what changes the store")
    ran = _run(session, chosen, reason or "to look at", confirm)
    if chosen.target.place is Place.STDOUT:
        session.remark(f"{ran.written:,} lines of {ran.counts.events:,} events")
        return
    session.emit_one(
        {
            "plan_id": ran.plan.plan_id,
            "to": str(ran.plan.target),
            "events": ran.counts.events,
            **asdict(ran.counts),
            "applied": ran.applied,
            "written": ran.written,
            "resumed": ran.resumed,
        },
        schema="replay.run",
        people=[
            f"✓ replay {ran.plan.plan_id}: {ran.counts.events:,} events, "
            f"{ran.counts.new:,} new, {ran.counts.changed:,} changed, {ran.counts.same:,} same, "
            f"{ran.counts.blocked:,} blocked"
            + (f", {ran.written:,} lines written" if ran.written else ""),
            "  nothing was sent again, no clock restarted, nothing counts as use",
        ],
    )


def _plan(
    session: Session, to: str, since: str | None, until: str | None, notice: str | None
) -> "Planned":
    from services.replay import Selection, notice_named
    from services.replay import plan as make

    target = _target(to)
    first, last = moment(since), moment(until)
    with session.progress("planning", unit="events") as progress:

        async def work(store: "Store") -> "Planned":
            return await make(
                store,
                session.agency,
                selection=Selection(
                    since=first,
                    until=last,
                    notice_id=await notice_named(store, notice) if notice else None,
                ),
                target=target,
                actor=session.actor,
                progress=progress.update,
            )

        return session.with_store(work)


def _find(session: Session, plan_id: str) -> "Plan":
    from services.replay import find

    async def work(store: "Store") -> "Plan":
        return await find(store, plan_id)

    return session.with_store(work)


def _run(session: Session, plan: "Plan", reason: str, confirm: int | None) -> "Ran":
    from services.replay import Place, opened
    from services.replay import run as run_plan

    into = nullcontext() if plan.target.place is Place.STORE else opened(plan.target)
    with (
        into as sink,
        session.progress("replaying", unit="events", total=plan.counts.events) as progress,
    ):

        async def work(store: "Store") -> "Ran":
            return await run_plan(
                store,
                session.agency,
                plan,
                actor=session.actor,
                reason=reason,
                confirm=confirm,
                sink=sink,
                progress=progress.update,
            )

        return session.with_store(work)


def _target(to: str) -> "Target":
    from services.replay import Target

    return Target.of(to)


def _described(plan: "Plan") -> dict[str, object]:
    return {
        "plan_id": plan.plan_id,
        "state": plan.state,
        "to": str(plan.target),
        "since": plan.selection.since,
        "until": plan.selection.until,
        "notice_id": plan.selection.notice_id,
        "events": plan.counts.events,
        **asdict(plan.counts),
        "counts": asdict(plan.counts),
        "changes": plan.changes,
        "made_at": plan.made_at,
        "expires_at": plan.expires_at,
    }


def _event(examined: "Examined") -> dict[str, object]:
    message, finding = examined.message, examined.finding
    differences = [asdict(each) for each in finding.differences]
    return {
        "standing": finding.standing,
        "kind": message.kind,
        "direction": message.direction,
        "notice_id": message.notice_id,
        "revision": message.revision,
        "message_id": message.message_id,
        "at": message.at,
        "cause": finding.cause,
        "differences": differences,
        "differs": finding.cause
        or "; ".join(", ".join(readable(part) for part in each.values()) for each in differences),
    }


def _people(plan: "Plan") -> list[str]:
    counts = plan.counts
    confirm = f" --reason WHY --confirm {plan.changes}" if plan.changes else ""
    return [
        f"Plan {plan.plan_id} · {counts.events:,} events in order · to {plan.target}"
        f" · holds until {readable(plan.expires_at)}",
        f"  {counts.same:>8,} same       no effect",
        f"  {counts.new:>8,} new        would be added",
        f"  {counts.changed:>8,} changed    would be put right",
        f"  {counts.blocked:>8,} blocked    cannot be replayed",
        f"  next: noticebus replay run {plan.plan_id}{confirm}",
    ]
