"""Show the settings in force."""

import os

import typer

from services.cli.everywhere import noun
from services.cli.output import Column
from services.cli.session import session_of

app = noun("Show the settings in force.")


@app.command()
def show(ctx: typer.Context) -> None:
    """List every variable with its value, passwords masked, and whether it was set."""
    from services.settings import unknown_variables

    session = session_of(ctx)
    items = [
        {
            "variable": variable,
            "value": value,
            "from": "environment" if variable in os.environ else "default",
        }
        for variable, value in session.settings.shown().items()
    ]
    session.emit(
        items,
        schema="config.show",
        columns=[Column("variable"), Column("value"), Column("from")],
        empty="",
    )
    for variable in unknown_variables(os.environ):
        session.remark(f"! {variable} is set, but nothing reads it: is it misspelt?")
