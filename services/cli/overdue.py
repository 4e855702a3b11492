"""List what is late, by the clocks of the policy."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.everywhere import verb
from services.cli.exits import ExitCode
from services.cli.output import Column
from services.cli.report import span
from services.cli.session import session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
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
) -> None:
    """List what is late: confirmations, receipts, acknowledgements, outcomes."""
    from services.reports import overdue as reports

    session = session_of(ctx)
    if fail_on is not None and fail_on != "any" and not fail_on.isdigit():
        raise session.misused("--fail-on is any, or a number")
    at_side = reports.at_ice if session.agency == "ice" else reports.at_hhs

    async def work(store: "Store") -> "list[Late]":
        return await at_side(store, office=office)

    late = session.with_store(work)
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
        empty="Nothing is overdue.",
    )
    if fail_on is not None and len(late) >= (1 if fail_on == "any" else int(fail_on)) and late:
        raise typer.Exit(ExitCode.POLICY)
