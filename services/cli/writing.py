"""The flags by which people write a notice, or correct one."""

from typing import Annotated

import typer

ANumberOption = Annotated[
    str | None, typer.Option(metavar="A-NUMBER", help="7 to 9 digits; - asks for it, unseen.")
]
NameOption = Annotated[str | None, typer.Option(metavar="NAME")]
BirthDateOption = Annotated[
    str | None, typer.Option(metavar="DATE", help="2012-05-04, or 2012-05.")
]
HearingOption = Annotated[
    str | None, typer.Option(metavar="WHEN", help="In the court's own time: 2026-11-20T09:00.")
]
CourtOption = Annotated[str | None, typer.Option(metavar="CODE", help="Base city.")]
OfficeOption = Annotated[str | None, typer.Option(metavar="AOR", help="Area of responsibility.")]
OutcomeOption = Annotated[
    str | None,
    typer.Option(metavar="CODE", help="MISSED_NO_ORDER, IN_ABSENTIA_ORDER or ADMIN_CLOSED_FTA."),
]
