"""Send notices, confirm or dismiss them, follow them.

Lists and pages mask the A-number; seeing a child's identity is `show --reveal`, and on record.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import correcting, output
from services.cli.asking import object_from_standard_input, unseen
from services.cli.everywhere import Output, noun
from services.cli.exits import ExitCode
from services.cli.output import Column, names_of
from services.cli.report import (
    AsOfOption,
    SinceOption,
    UntilOption,
    known_office,
    moment,
    period,
    said_then,
)
from services.cli.session import ArchivesOption, Doubtful, Session, session_of
from services.cli.writing import (
    ANumberOption,
    BirthDateOption,
    CourtOption,
    HearingOption,
    NameOption,
    OfficeOption,
    OutcomeOption,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from services.exchange.agency import Agency
    from services.exchange.trace import Trace
    from services.hhs.queue import CaseDetail
    from services.ice.notices import Decision, NoticeDetail, NoticeItem, Sent
    from services.ledger.store import Store
    from services.reports.as_of import Then

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
    a_number: ANumberOption = None,
    given_name: NameOption = None,
    family_name: NameOption = None,
    birth_date: BirthDateOption = None,
    hearing: HearingOption = None,
    court: CourtOption = None,
    office: OfficeOption = None,
    outcome: OutcomeOption = None,
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
        written = object_from_standard_input("notice")
    elif a_number == "-":
        written["a_number"] = unseen("A-number")
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
    from services.ice.notices import NoticeItem

    session = session_of(ctx, needed="ice")
    chosen = output.chosen(session.given.output)
    people = chosen in (Output.TABLE, Output.PLAIN)
    most = limit if limit is not None else (PEOPLE_MAX if people else None)
    first, last = period(since, until)
    where = known_office(office)
    if lane is not None and lane not in {"live", "backlog"}:
        raise session.misused("--lane is live or backlog")

    async def work(store: "Store") -> "list[NoticeItem]":
        return await _pages(
            store, most, states=state, office=where, lane=lane, since=first, until=last
        )

    items = session.with_store(work)
    session.emit(
        [_item(each) for each in items],
        schema="notice.list",
        columns=COLUMNS,
        fields=names_of(NoticeItem, "hearing"),
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
    as_of: AsOfOption = None,
    archive: ArchivesOption = None,
) -> None:
    """Show one notice: where it stands and what it says, or stood and said as known then.

    At HHS its case: who has it, what was done in it. Without --agency it is ICE's.
    """
    from services.ice import notices

    session = session_of(ctx, usual="ice", archives=archive)
    at = moment(as_of)
    if session.agency == "hhs":
        _show_case(session, notice, at, reveal=reveal)
        return

    async def work(store: "Store") -> "tuple[NoticeDetail, Then | None]":
        notice_id = await notices.resolve(store, notice)
        if at is None:
            shown = await notices.shown(store, notice_id, actor=session.actor, reveal=reveal)
            return shown, None
        from services.reports.as_of import notice_then

        return await notice_then(store, notice_id, at, actor=session.actor, reveal=reveal)

    detail, then = session.with_store(work)
    session.emit_one(
        {
            **_item(detail.item),
            "reason_code": detail.reason_code,
            "release": detail.release,
            "overdue_at": detail.overdue_at,
            "aliases": [{"kind": kind, "key": key} for kind, key in detail.aliases],
            "content": detail.content,
            **said_then(then),
        },
        schema="notice.show",
    )


def _show_case(session: Session, notice: str, at: "datetime | None", *, reveal: bool) -> None:
    from services.hhs import queue

    async def work(store: "Store") -> "tuple[CaseDetail, Then | None]":
        if at is None:
            notice_id = await queue.resolve(store, notice)
            return await queue.shown(store, notice_id, actor=session.actor, reveal=reveal), None
        from services.exchange.trace import resolve
        from services.reports.as_of import case_then

        # What is known of the past is told by records, whatever became of its case.
        notice_id = await resolve(store, notice, agency="hhs")
        return await case_then(store, notice_id, at, actor=session.actor, reveal=reveal)

    detail, then = session.with_store(work)
    session.emit_one(
        {
            **asdict(detail.item),
            "events": [asdict(each) for each in detail.events],
            "content": detail.notice,
            **said_then(then),
        },
        schema="notice.case",
    )


@app.command()
def trace(ctx: typer.Context, notice: NoticeArgument, *, archive: ArchivesOption = None) -> None:
    """Show every step of a notice on our side, and verify each; exit 6 when one does not hold."""
    from services.cli import tracing

    session = session_of(ctx, archives=archive)

    async def work(agency: "Agency") -> "Trace":
        from services.exchange.trace import resolve

        notice_id = await resolve(agency.store, notice, agency=agency.name)
        if agency.name == "ice":
            from services.ice import notices

            return await notices.traced(agency, notice_id)
        from services.hhs import queue

        return await queue.traced(agency, notice_id)

    traced = session.with_agency(work)
    tracing.emit(session, traced)
    if not traced.holds:
        raise typer.Exit(ExitCode.INTEGRITY)


@app.command()
def confirm(
    ctx: typer.Context,
    notice: NoticeArgument,
    *,
    reason: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="Why it is withdrawn or sent again, if it is."),
    ] = None,
) -> None:
    """Say yes to what waits: send it, withdraw what the docket took back, or send that again."""
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
    """Say no to what waits: send nothing, and let stand what was sent."""
    from services.ice import notices

    session = session_of(ctx, needed="ice")

    async def work(store: "Store") -> "Decision":
        notice_id = await notices.resolve(store, notice)
        return await notices.dismiss(store, notice_id, reason=reason.upper(), actor=session.actor)

    dismissed = session.with_store(work, doubtful=Doubtful.REFUSED)
    _emit_decision(session, dismissed, "notice.dismiss")


app.command("correct")(correcting.correct)
app.command("withdraw")(correcting.withdraw)


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
