"""Take notices at HHS, work them, close them: one person, one case, on a lease."""

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from services.cli.everywhere import noun
from services.cli.output import Column, names_of, readable
from services.cli.report import (
    AsOfOption,
    known_office,
    looking_back,
    moment,
    said_then,
    tell_then,
)
from services.cli.session import ArchivesOption, Doubtful, session_of

if TYPE_CHECKING:
    from services.hhs.queue import Closing, QueueItem, Taking
    from services.ledger.store import Reading, Store
    from services.reports.as_of import Then

app = noun("Take notices at HHS, work them, close them.")

COLUMNS = [
    Column("due_at", "DUE"),
    Column("overdue", "LATE"),
    Column("notice_id", "NOTICE"),
    Column("child"),
    Column("office"),
    Column("court"),
    Column("priority"),
    Column("state"),
    Column("owner"),
]
STATES = ("open", "unowned", "taken", "closed", "withdrawn", "all")

NoticeArgument = Annotated[
    str, typer.Argument(metavar="NOTICE", help="Its id, or the beginning of it.")
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    state: Annotated[
        str,
        typer.Option(metavar="STATE", help="open, unowned, taken, closed, withdrawn or all."),
    ] = "open",
    office: Annotated[str | None, typer.Option(metavar="AOR", help="Only this office.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only what I have taken.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1_000,
    as_of: AsOfOption = None,
    archive: ArchivesOption = None,
) -> None:
    """List cases, what is due first on top; or as HHS knew them then."""
    from services.hhs import queue

    session = session_of(ctx, needed="hhs", archives=archive)
    if state not in STATES:
        raise session.misused(f"--state is one of {', '.join(STATES)}")
    states = {"open": queue.OPEN_STATES, "all": None}.get(state, (state,))
    then, where = moment(as_of), known_office(office)
    with looking_back(session, then) as progress:

        async def look(reading: "Reading") -> "list[QueueItem]":
            return await queue.listed(
                reading,
                states=states,
                office=where,
                owner=session.actor if mine else None,
                limit=limit,
                now=then,
            )

        async def work(store: "Store") -> "tuple[list[QueueItem], Then | None]":
            if then is None:
                return await look(store), None
            from services.reports.as_of import knowing

            async with knowing(store, "hhs", then, progress=progress) as known:
                return await look(known.reading), known.then

        items, known_then = session.with_store(work)
    tell_then(session, known_then)
    waiting = "Nothing is waiting." if then is None else "Nothing was waiting."
    none = f"No case {'is' if then is None else 'was'} {state}."
    session.emit(
        [_item(each) for each in items],
        schema="queue.list",
        columns=COLUMNS,
        fields=names_of(queue.QueueItem),
        empty=waiting if state in {"open", "unowned"} else none,
        also=said_then(known_then),
    )


@app.command()
def take(
    ctx: typer.Context,
    notice: Annotated[
        str | None,
        typer.Argument(metavar="NOTICE", help="Else the one that is due first."),
    ] = None,
    *,
    office: Annotated[str | None, typer.Option(metavar="AOR", help="Only this office.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 14, help="How long I have it.")] = 8,
) -> None:
    """Take a case by name; ICE hears that somebody has it, not who."""
    from services.hhs import queue

    session = session_of(ctx, needed="hhs")

    async def work(store: "Store") -> "Taking | None":
        notice_id = None if notice is None else await _resolve(store, notice)
        return await queue.take(
            store,
            notice_id,
            actor=session.actor,
            office=known_office(office),
            lease=timedelta(hours=hours),
        )

    taking = session.with_store(work, sends=True)
    if taking is None:
        session.emit_one({"taken": False}, schema="queue.take", people=["Nothing is waiting."])
        return
    item = taking.item
    session.emit_one(
        {
            "taken": True,
            "first": taking.first,
            "renewed": taking.renewed,
            **_item(item),
        },
        schema="queue.take",
        people=[
            f"{'Still yours' if taking.renewed else 'Taken'}: {item.notice_id}"
            f"  child {item.child or 'erased'}, {item.office}",
            f"  yours until {readable(taking.lease_until)}, due {readable(item.due_at)}",
            f"  next: noticebus --agency hhs queue outcome {item.notice_id} CODE",
        ],
    )


@app.command()
def release(ctx: typer.Context, notice: NoticeArgument) -> None:
    """Put a case of mine back into the queue."""
    from services.hhs import queue

    session = session_of(ctx, needed="hhs")

    async def work(store: "Store") -> UUID:
        notice_id = await _resolve(store, notice)
        await queue.release(store, notice_id, actor=session.actor)
        return notice_id

    notice_id = session.with_store(work, doubtful=Doubtful.REFUSED)
    session.emit_one(
        {"notice_id": notice_id, "state": "unowned"},
        schema="queue.release",
        people=[f"Back in the queue: {notice_id}"],
    )


@app.command()
def outcome(
    ctx: typer.Context,
    notice: NoticeArgument,
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="What came of it; a wrong code lists them all.")
    ],
) -> None:
    """Close a case of mine with what came of it; ICE hears the coarse code alone."""
    from services.hhs import queue

    session = session_of(ctx, needed="hhs")

    async def work(store: "Store") -> "Closing":
        notice_id = await _resolve(store, notice)
        return await queue.outcome(store, notice_id, code=code.upper(), actor=session.actor)

    closing = session.with_store(work, sends=True)
    session.emit_one(
        {
            "notice_id": closing.notice_id,
            "outcome_code": closing.code,
            "told": closing.told,
            "already": closing.already,
        },
        schema="queue.outcome",
        people=[
            f"{'Closed before' if closing.already else 'Closed'}: {closing.notice_id} "
            f"{closing.code}; ICE hears {closing.told}"
        ],
    )


async def _resolve(store: "Store", notice: str) -> UUID:
    from services.hhs import queue

    return await queue.resolve(store, notice)


def _item(item: "QueueItem") -> dict[str, object]:
    return asdict(item)
