"""List what is late, by the clocks of the policy."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.conflicts import told
from services.cli.everywhere import verb
from services.cli.exits import ExitCode
from services.cli.output import Column, names_of
from services.cli.report import (
    AsOfOption,
    known_office,
    looking_back,
    moment,
    said_then,
    span,
    tell_then,
)
from services.cli.session import ArchivesOption, session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
    from services.reports.as_of import Then
    from services.reports.overdue import Late

app = verb()


@app.command()
def overdue(
    ctx: typer.Context,
    *,
    office: Annotated[str | None, typer.Option(metavar="AOR", help="Only this office.")] = None,
    fail_on: Annotated[
        str | None, typer.Option(metavar="any|N", help="Exit 8 when that many are late.")
    ] = None,
    as_of: AsOfOption = None,
    archive: ArchivesOption = None,
) -> None:
    """List what is late: confirmations, receipts, acknowledgements, outcomes."""
    from services.reports import overdue as reports

    session = session_of(ctx, archives=archive)
    if fail_on is not None and fail_on != "any" and not fail_on.isdigit():
        raise session.misused("--fail-on is any, or a number")
    at_side = reports.at_ice if session.agency == "ice" else reports.at_hhs

    then = moment(as_of)
    where = known_office(office)
    with looking_back(session, then) as progress:

        async def work(store: "Store") -> "tuple[list[Late], Then | None]":
            if then is None:
                return await at_side(store, office=where), None
            from services.reports.as_of import knowing

            async with knowing(store, session.agency, then, progress=progress) as known:
                return await at_side(known.reading, office=where, now=then), known.then

        late, known_then = session.with_store(work)
    tell_then(session, known_then)
    session.emit(
        [{**asdict(each), "late_by": span(each.late_seconds)} for each in late],
        schema="overdue",
        columns=[
            Column("late_by", "LATE BY"),
            Column("stage"),
            Column("waits_for", "WAITS FOR"),
            Column("notice_id", "NOTICE"),
            Column("office"),
            Column("owner"),
            Column("due_at", "DUE"),
            Column("policy"),
        ],
        fields=names_of(reports.Late, "late_by"),
        empty="Nothing is overdue." if then is None else "Nothing was overdue.",
        also={**said_then(known_then), **told(session)},
    )
    if fail_on is not None and len(late) >= (1 if fail_on == "any" else int(fail_on)) and late:
        raise typer.Exit(ExitCode.POLICY)
