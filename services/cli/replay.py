"""Run recorded messages again into a chosen place: plan first, look, then run.

Nothing is sent again, no clock starts again, nothing counts as use. What writes to standard output
or a file changes nothing, so it may run without a plan of its own. Every run is on record with its
reason.
"""

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli import output
from services.cli.everywhere import Output, noun
from services.cli.exits import ExitCode
from services.cli.replaying import (
    EVENT_COLUMNS,
    PLAN_COLUMNS,
    PLAN_FIELDS,
    SAVED_COLUMNS,
    Chosen,
    DeadOption,
    FromOption,
    KindOption,
    LaneOption,
    NoticeOption,
    OfficeOption,
    SequenceOption,
    described,
    event_item,
    people,
    planned_of,
    ran_item,
    ran_people,
    run_of,
    saved_item,
    target_of,
)
from services.cli.report import SinceOption, UntilOption
from services.cli.session import ArchivesOption, Doubtful, Session, session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
    from services.replay import Examined, Plan, Saved

app = noun("Run recorded messages again into a chosen place.")

PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help="Its id, or the beginning.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is on record.")]


@app.command()
def plan(
    ctx: typer.Context,
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="stdout, file:PATH, stream:{replay.NAME}, store (what we derived) or shadow.",
        ),
    ] = "store",
    source: FromOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sequence: SequenceOption = None,
    notice: NoticeOption = None,
    office: OfficeOption = None,
    kind: KindOption = None,
    lane: LaneOption = None,
    dead: DeadOption = None,
    saved: Annotated[
        str | None, typer.Option(metavar="NAME", help="What was selected under that name.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the selection under a name.")
    ] = None,
    archive: ArchivesOption = None,
    limit: Annotated[
        int, typer.Option(min=0, max=100_000, help="Events shown; ndjson has every one.")
    ] = 100,
) -> None:
    """Show what a replay would change, and keep that as a plan for an hour; changes nothing.

    Example: noticebus --agency hhs replay plan --office HOU --since 7d
    """
    session = session_of(ctx, archives=archive)
    if archive and to != "shadow":
        raise session.misused("--archive goes with --to shadow; else use --from archive:FILE")
    chosen = Chosen(since, until, source, sequence, notice, office, kind, lane, dead, saved, save)
    tell = _line if output.chosen(session.given.output) is Output.NDJSON else None
    planned = planned_of(session, to, chosen, limit=limit, tell=tell)
    items = [event_item(each) for each in planned.first] if tell is None else []
    differing = planned.plan.counts.events - planned.plan.counts.same
    session.emit_one(
        {
            "what": "plan",
            **described(planned.plan),
            "shadow_differing": planned.shadowed.differing if planned.shadowed else None,
            "items_left_out": max(0, differing - len(planned.first)),
            "items": items,
        },
        schema="replay.plan",
        people=people(planned, archives=archive or ()),
    )
    if tell is None and (left := differing - len(planned.first)) > 0:
        session.remark(
            f"! {left:,} of {differing:,} events that are not the same are not shown here:"
            " --limit N shows more of them, -o ndjson every one."
        )
    if items and output.chosen(session.given.output) is Output.TABLE:
        output.emit_text("")
        session.emit(items, schema="replay.events", columns=EVENT_COLUMNS, empty="")
    if planned.shadowed is not None and planned.shadowed.differing:
        raise typer.Exit(ExitCode.INTEGRITY)


@app.command()
def approve(ctx: typer.Context, plan_id: PlanArgument, *, reason: ReasonOption) -> None:
    """Approve a plan that somebody else made; above a number of events one needs it.

    Example: noticebus --agency hhs --as second replay approve 019ab --reason INC-204
    """
    _act(session_of(ctx), plan_id, "approve", reason, "approved")


@app.command()
def run(
    ctx: typer.Context,
    plan_id: Annotated[
        str | None, typer.Argument(metavar="PLAN", help="Its id, or the beginning of it.")
    ] = None,
    *,
    reason: ReasonOption,
    confirm: Annotated[
        int | None, typer.Option(metavar="N", help="The number of changes the plan showed.")
    ] = None,
    rate: Annotated[
        int | None, typer.Option(metavar="N/s", min=1, max=1_000_000, help="Events a second.")
    ] = None,
    maxlen: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Entries that a stream keeps.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Without a plan: stdout or file:PATH."),
    ] = None,
    source: FromOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sequence: SequenceOption = None,
    notice: NoticeOption = None,
    office: OfficeOption = None,
    kind: KindOption = None,
    lane: LaneOption = None,
    dead: DeadOption = None,
    archive: ArchivesOption = None,
) -> None:
    """Do what a plan showed; exit 9 when anything has changed since. Resumes where it stopped.

    What was erased or archived while it ran is blocked and counted; exit 5 when planned events
    are gone.

    Example: noticebus --agency hhs replay run 019ab --reason INC-204 --confirm 24 --rate 500
    """
    from services.replay import Place, State

    session = session_of(ctx)
    _said(session, reason)
    asked = Chosen(since, until, source, sequence, notice, office, kind, lane, dead)
    if plan_id is None:
        if to is None:
            raise session.misused("name a plan, or say --to stdout or --to file:PATH")
        if target_of(to).place not in (Place.STDOUT, Place.FILE):
            raise session.misused("what is not a copy needs a plan: noticebus replay plan")
        chosen = planned_of(session, to, asked).plan
    else:
        if to or asked != Chosen():
            raise session.misused("a plan already says what is replayed, and where to")
        chosen = _found(session, plan_id)
    if archive and chosen.target.place is not Place.SHADOW:
        raise session.misused("--archive goes with a plan to shadow")
    session.archives = archive or ()
    again = _again(session, chosen, reason, confirm)
    ran = run_of(session, chosen, reason, confirm=confirm, rate=rate, maxlen=maxlen, again=again)
    if chosen.target.place is Place.STDOUT:
        session.remark(f"{ran.written:,} lines of {ran.counts.events:,} events")
        if ran.plan.state is not State.DONE:
            session.remark(
                "! Standard output keeps nothing: the same command begins again with the first"
                " event. To go on where a run stood, use --to file:PATH."
            )
    else:
        session.emit_one(ran_item(ran), schema="replay.run", people=ran_people(ran))
    if ran.plan.state is not State.DONE or ran.missing:
        raise typer.Exit(ExitCode.PARTLY_DONE)


@app.command()
def pause(ctx: typer.Context, plan_id: PlanArgument, *, reason: ReasonOption) -> None:
    """Let a run stop after the batch that it is at; `replay run` with the same plan goes on.

    Example: noticebus --agency hhs replay pause 019ab --reason "load is high"
    """
    _act(session_of(ctx), plan_id, "pause", reason, "stands still")


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="planned, running, paused, cancelled, done or expired."),
    ] = None,
    saved: Annotated[
        bool, typer.Option("--saved", help="Selections that were kept under a name.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1_000,
) -> None:
    """List plans and how far their runs came, newest first; or saved selections.

    Example: noticebus --agency hhs replay list --state running
    """
    from services import replay

    session = session_of(ctx)
    if saved:

        async def kept(store: "Store") -> "list[Saved]":
            return await replay.all_saved(store)

        session.emit(
            [saved_item(each) for each in session.with_store(kept)],
            schema="replay.saved",
            columns=SAVED_COLUMNS,
            empty="No selection is saved. Save one with replay plan --save NAME.",
        )
        return
    unknown = [each for each in state or [] if each not in set(replay.State)]
    if unknown:
        raise session.misused(f"{unknown[0]} is not a state; use {', '.join(replay.State)}")
    states = [replay.State(each) for each in state or []]

    async def work(store: "Store") -> "list[Plan]":
        return await replay.listed(store, states=states, limit=limit)

    session.emit(
        [described(each) for each in session.with_store(work)],
        schema="replay.list",
        columns=PLAN_COLUMNS,
        fields=PLAN_FIELDS,
        empty=f"No plan is {' or '.join(states)}." if states else "No replay was planned here.",
    )


@app.command()
def show(ctx: typer.Context, plan_id: PlanArgument) -> None:
    """Show one plan: what it selects, who made and approved it, and how far its run came.

    Example: noticebus --agency hhs replay show 019ab
    """
    session = session_of(ctx)
    session.emit_one(described(_found(session, plan_id)), schema="replay.show")


@app.command()
def cancel(ctx: typer.Context, plan_id: PlanArgument, *, reason: ReasonOption) -> None:
    """End a plan for good; what its run did until then stays done.

    Example: noticebus --agency hhs replay cancel 019ab --reason "wrong office"
    """
    _act(session_of(ctx), plan_id, "cancel", reason, "cancelled")


def _found(session: Session, plan_id: str) -> "Plan":
    from services import replay

    async def work(store: "Store") -> "Plan":
        return await replay.find(store, plan_id)

    return session.with_store(work)


def _act(session: Session, plan_id: str, act: str, reason: str, said: str) -> None:
    from services import replay

    _said(session, reason)
    acts = {"approve": replay.approve, "pause": replay.pause, "cancel": replay.cancel}

    async def work(store: "Store") -> "Plan":
        found = await replay.find(store, plan_id)
        return await acts[act](store, found, actor=session.actor, reason=reason)

    plan = session.with_store(work, doubtful=Doubtful.REFUSED)
    session.emit_one(
        described(plan),
        schema=f"replay.{act}",
        people=[f"✓ replay plan {plan.plan_id} {said} · {plan.stands}"],
    )


def _said(session: Session, reason: str) -> None:
    if not reason.strip():
        raise session.misused("--reason must say something")


def _again(session: Session, plan: "Plan", reason: str, confirm: int | None) -> str:
    """Return how a run that is interrupted goes on, for its last words."""
    if not plan.target.keeps:
        return f"a run to {plan.target.place} keeps nothing: the same command begins again"
    words = ["noticebus", "--agency", session.agency, "replay", "run", str(plan.plan_id)]
    words += ["--reason", reason, *(["--confirm", str(confirm)] if confirm is not None else [])]
    return f"go on with: {shlex.join(words)}"


def _line(event: "Examined") -> None:
    said = output.plain_value({"what": "event", **event_item(event)})
    sys.stdout.write(json.dumps(said, ensure_ascii=False) + "\n")
