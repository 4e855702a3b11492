"""Send notices, confirm or dismiss them, follow them.

Lists and pages mask the A-number; seeing a child's identity is `show --reveal`, and on record.
"""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import RejectedError
from services.cli import output
from services.cli.everywhere import Output, noun
from services.cli.exits import ExitCode
from services.cli.output import Column, readable
from services.cli.report import SinceOption, UntilOption, moment, span
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from services.exchange.agency import Agency
    from services.exchange.trace import Step, Trace
    from services.ice.notices import Decision, NoticeDetail, NoticeItem, Sent
    from services.ledger.store import Store

app = noun("Send notices, confirm or dismiss them, follow them.")

COLUMNS = [
    Column("notice_id", "NOTICE"),
    Column("revision", "REV", right=True),
    Column("state"),
    Column("child"),
    Column("office"),
    Column("court"),
    Column("hearing", "HEARING (COURT TIME)"),
    Column("outcome"),
    Column("sent_at", "SENT"),
    Column("receipt_at", "RECEIPT"),
    Column("acknowledged_at", "TAKEN"),
]
PAGE = 5_000
# More rows than this help nobody who reads them; machines get all.
PEOPLE_MAX = 500

NoticeArgument = Annotated[
    str, typer.Argument(metavar="NOTICE", help="Its id, or the beginning of it.")
]


@app.command()
def send(
    ctx: typer.Context,
    *,
    a_number: Annotated[
        str | None,
        typer.Option(metavar="A-NUMBER", help="7 to 9 digits; - asks for it, unseen."),
    ] = None,
    given_name: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    family_name: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    birth_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="2012-05-04, or 2012-05.")
    ] = None,
    hearing: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="In the court's own time: 2026-11-20T09:00."),
    ] = None,
    court: Annotated[str | None, typer.Option(metavar="CODE", help="Base city.")] = None,
    office: Annotated[
        str | None, typer.Option(metavar="AOR", help="Area of responsibility.")
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            metavar="CODE", help="MISSED_NO_ORDER, IN_ABSENTIA_ORDER or ADMIN_CLOSED_FTA."
        ),
    ] = None,
    lane: Annotated[
        str | None, typer.Option(metavar="live|backlog", help="Else by the hearing's age.")
    ] = None,
) -> None:
    """Send a notice written by hand: flags, or one JSON object on standard input.

    In JSON any field of the notice may stand. The same child and hearing again sends nothing and
    says which notice it is.
    """
    from schemas.envelope import Lane
    from services.ice import notices

    session = session_of(ctx, needed="ice")
    if lane is not None and lane not in {Lane.LIVE, Lane.BACKLOG}:
        raise session.misused("--lane is live or backlog")
    flags = {
        "a_number": a_number,
        "given_name": given_name,
        "family_name": family_name,
        "birth_date": birth_date,
        "hearing": hearing,
        "court": court,
        "office": office,
        "outcome": outcome,
    }
    written = {name: value for name, value in flags.items() if value is not None}
    if not written:
        written = _from_standard_input()
    elif a_number == "-":
        written["a_number"] = _unseen("A-number")
    session.confirm("Send this notice to HHS?", unattended=True)

    async def work(store: "Store") -> "Sent":
        return await notices.send(
            store, written, actor=session.actor, lane=Lane(lane) if lane else None
        )

    _emit_sent(session, session.with_store(work, sends=True))


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="to_confirm, recorded, sent, receipted, ...; again."),
    ] = None,
    office: Annotated[str | None, typer.Option(metavar="AOR", help="Only this office.")] = None,
    lane: Annotated[str | None, typer.Option(metavar="live|backlog")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many; people see 500 unless told.")
    ] = None,
) -> None:
    """List notices, oldest first; --since and --until are when we learned of them."""
    session = session_of(ctx, needed="ice")
    chosen = output.chosen(session.given.output)
    people = chosen in (Output.TABLE, Output.PLAIN)
    most = limit if limit is not None else (PEOPLE_MAX if people else None)
    first, last = moment(since), moment(until)

    async def work(store: "Store") -> "list[NoticeItem]":
        return await _pages(
            store, most, states=state, office=office, lane=lane, since=first, until=last
        )

    items = session.with_store(work)
    session.emit(
        [_item(each) for each in items],
        schema="notice.list",
        columns=COLUMNS,
        empty="No notice fits."
        if state or office or lane or since or until
        else "No notice yet. Read court tables: noticebus docket import DIR",
    )
    if people and limit is None and len(items) == PEOPLE_MAX:
        session.remark(f"The first {PEOPLE_MAX}. More: --limit N, or -o csv for all.")


@app.command()
def show(
    ctx: typer.Context,
    notice: NoticeArgument,
    *,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="The child's identity too; that is on record.")
    ] = False,
) -> None:
    """Show one notice: where it stands and what it says."""
    from services.ice import notices

    session = session_of(ctx, needed="ice")

    async def work(store: "Store") -> "NoticeDetail":
        notice_id = await notices.resolve(store, notice)
        return await notices.shown(store, notice_id, actor=session.actor, reveal=reveal)

    detail = session.with_store(work)
    session.emit_one(
        {
            **_item(detail.item),
            "reason_code": detail.reason_code,
            "release": detail.release,
            "overdue_at": detail.overdue_at,
            "aliases": [{"kind": kind, "key": key} for kind, key in detail.aliases],
            "content": detail.content,
        },
        schema="notice.show",
    )


@app.command()
def trace(ctx: typer.Context, notice: NoticeArgument) -> None:
    """Show every step of a notice on our side, and verify each; exit 6 when one does not hold."""
    session = session_of(ctx)

    async def work(agency: "Agency") -> "Trace":
        if agency.name == "ice":
            from services.ice import notices

            return await notices.traced(agency, await notices.resolve(agency.store, notice))
        from services.exchange.trace import trace as trace_steps
        from services.hhs import queue

        return await trace_steps(agency, await queue.resolve(agency.store, notice))

    traced = session.with_agency(work)
    session.emit_one(
        {
            "notice_id": traced.notice_id,
            "holds": traced.holds,
            "origin": traced.origin,
            "size": traced.size,
            "steps": [asdict(step) for step in traced.steps],
        },
        schema="notice.trace",
        people=_steps(traced),
    )
    if not traced.holds:
        raise typer.Exit(ExitCode.INTEGRITY)


@app.command()
def confirm(
    ctx: typer.Context,
    notice: NoticeArgument,
    *,
    reason: Annotated[
        str | None, typer.Option(metavar="CODE", help="Why it is withdrawn, if it is.")
    ] = None,
) -> None:
    """Say yes to what waits: send the notice, or withdraw what the docket took back."""
    from services.ice import notices

    session = session_of(ctx, needed="ice")

    async def work(store: "Store") -> "Decision":
        notice_id = await notices.resolve(store, notice)
        return await notices.confirm(store, notice_id, actor=session.actor, reason=reason)

    _emit_decision(session, session.with_store(work, sends=True), "notice.confirm")


@app.command()
def dismiss(
    ctx: typer.Context,
    notice: NoticeArgument,
    *,
    reason: Annotated[
        str, typer.Option(metavar="CODE", help="Of the closed list; a wrong one is explained.")
    ],
) -> None:
    """Say no to what waits: send nothing, or let stand what was sent."""
    from services.ice import notices

    session = session_of(ctx, needed="ice")

    async def work(store: "Store") -> "Decision":
        notice_id = await notices.resolve(store, notice)
        return await notices.dismiss(store, notice_id, reason=reason.upper(), actor=session.actor)

    _emit_decision(session, session.with_store(work), "notice.dismiss")


async def _pages(store: "Store", most: int | None, **filters: Any) -> "list[NoticeItem]":
    from services.ice import notices

    items: list[NoticeItem] = []
    after: UUID | None = None
    while most is None or len(items) < most:
        wanted = PAGE if most is None else min(PAGE, most - len(items))
        page = await notices.listed(store, after=after, limit=wanted, **filters)
        items += page
        if len(page) < wanted:
            break
        after = page[-1].notice_id
    return items


def _from_standard_input() -> dict[str, Any]:
    """Return the JSON object on standard input. Raises `RejectedError` NB-7007 or NB-7005."""
    if sys.stdin.isatty():
        raise RejectedError("NB-7007", what="notice")
    text = sys.stdin.read()
    if not text.strip():
        raise RejectedError("NB-7007", what="notice")
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        rule = f"It is not JSON at line {error.lineno}, column {error.colno}."
        raise RejectedError("NB-7005", value="standard input", what="notice", rule=rule) from None
    if not isinstance(said, dict):
        raise RejectedError(
            "NB-7005", value="standard input", what="notice", rule="Write one JSON object."
        )
    return said


def _unseen(what: str) -> str:
    """Return a value that must stand in no history: typed unseen, or a line of standard input."""
    if sys.stdin.isatty():
        typed: str = typer.prompt(what, hide_input=True, err=True)
        return typed
    return sys.stdin.readline().strip()


def _emit_sent(session: Session, sent: "Sent") -> None:
    item = sent.item
    people = [
        f"{'Already sent as' if sent.already else 'Recorded'} {item.notice_id}"
        f"  child {item.child}, {_hearing(item)}, {item.court}, office {item.office}",
    ]
    if sent.already:
        people.append("  same child, court and day: nothing new was sent")
        if sent.differs:
            people.append(f"  says otherwise now: {', '.join(sent.differs)}; send a correction")
    people.append(f"  next: noticebus --agency ice notice trace {item.notice_id}")
    session.emit_one(
        {
            **_item(item),
            "message_id": sent.message_id,
            "already": sent.already,
            "differs": list(sent.differs),
        },
        schema="notice.send",
        people=people,
    )


def _emit_decision(session: Session, decision: "Decision", schema: str) -> None:
    item = decision.item
    before = " before" if decision.already else ""
    session.emit_one(
        {
            **_item(item),
            "decision": decision.decision,
            "message_id": decision.message_id,
            "already": decision.already,
        },
        schema=schema,
        people=[f"{decision.decision.capitalize()}{before}: {item.notice_id}  {item.state}"],
    )


def _item(item: "NoticeItem") -> "Mapping[str, object]":
    return {**asdict(item), "hearing": _hearing(item)}


def _hearing(item: "NoticeItem") -> str:
    return item.hearing_at.strftime("%a %Y-%m-%d %H:%M %Z")


def _steps(traced: "Trace") -> list[str]:
    lines = [f"{traced.notice_id}  {len(traced.steps)} steps"]
    before: Step | None = None
    for number, step in enumerate(traced.steps, start=1):
        lines.append(_step(number, step, before))
        before = step
    proven = sum(step.verified == "yes" for step in traced.steps)
    mark = "✓" if traced.holds else "✗"
    lines.append(
        f"{mark} {proven} of {len(traced.steps)} steps verified"
        f" under {traced.origin or 'no checkpoint yet'}, size {traced.size:,}"
    )
    return lines


def _step(number: int, step: "Step", before: "Step | None") -> str:
    later = f"+{span((step.at - before.at).total_seconds())}" if before else ""
    index = f"#{step.record_index}" if step.record_index is not None else "#-"
    mark = {"yes": "✓", "not yet": "…", "failed": "✗"}[step.verified]
    parts = [
        f"{number:>2} {step.agency.upper():<3} {step.step:<22} {readable(step.at)} {later:>9}",
        f"{mark} {index}",
        step.kind or "",
        f"rev {step.revision}" if step.revision else "",
        f"{step.stream} {step.sequence}" if step.stream else "",
        f"by {step.actor}" if step.actor else "",
        step.result if step.result not in {"ok", ""} else "",
        step.reason or "",
        step.fault or "",
    ]
    return "  ".join(part for part in parts if part)
