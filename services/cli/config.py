"""Show the settings in force."""

import os
from typing import TYPE_CHECKING

import typer

from schemas.errors import RejectedError
from services.cli import output
from services.cli.everywhere import Output, noun
from services.cli.output import Column, Item
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.settings import Settings

app = noun("Show the settings in force.")


@app.command()
def show(ctx: typer.Context) -> None:
    """List every variable with its value, passwords masked, and where the value came from.

    What cannot be used is marked with the rule that it breaks, and the command ends with 2.

    Example: noticebus --agency ice config show
    """
    from services.settings import examine, unknown_variables

    session = session_of(ctx, unusable_preset=True)
    settings, rules = examine(session.agency, home=session.given.home)
    if session.given.unusable is not None:
        rules["NOTICEBUS_OUTPUT"] = str(session.given.unusable.where["rule"])
    wrong = [Column("error")] if rules else []
    session.emit(
        _items(session, settings, rules),
        schema="config.show",
        columns=[Column("variable"), Column("value"), Column("from"), *wrong],
        empty="",
    )
    for variable in unknown_variables(os.environ):
        session.remark(f"! {variable} is set, but nothing reads it: is it misspelt?")
    for variable, rule in rules.items():
        raise RejectedError("NB-7010", variable=variable, rule=rule)


def _items(session: Session, settings: "Settings", rules: dict[str, str]) -> list[Item]:
    """Return a row for each variable, in the order of the guide."""
    given = session.given
    values: dict[str, object] = dict(settings.shown())
    values["NOTICEBUS_KEYS"] = settings.keys_folder
    values["NOTICEBUS_ACTOR"] = session.actor
    values["NOTICEBUS_OUTPUT"] = output.chosen(given.output)
    # As it was written, since no setting was made of it; a file's path shows no secret either.
    values |= {variable: os.environ.get(variable) for variable in rules}
    # `-o` and its variable are one until here; where they agree, nothing hangs on which it was.
    preset = os.environ.get("NOTICEBUS_OUTPUT")
    flags = {
        "NOTICEBUS_AGENCY": "--agency" if given.agency else None,
        "NOTICEBUS_HOME": "--home" if given.home else None,
        "NOTICEBUS_ACTOR": "--as" if given.actor else None,
        "NOTICEBUS_OUTPUT": "-o" if given.output and given.output != preset else None,
    }
    if output.chosen(given.output) in (Output.TABLE, Output.PLAIN):
        # As one would type them: 10000 and 1, not 10,000 and 1.00.
        values = {
            name: f"{value:g}" if isinstance(value, int | float) else value
            for name, value in values.items()
        }
    return [
        {
            "variable": variable,
            "value": value,
            "from": flags.get(variable) or _source(variable),
            "error": rules.get(variable),
        }
        for variable, value in values.items()
    ]


def _source(variable: str) -> str:
    """Return what set a value that no flag set: the environment, a file that it names, or we."""
    # A variable that is there and empty sets nothing.
    if os.environ.get(variable):
        return "environment"
    if os.environ.get(f"{variable}_FILE"):
        return f"{variable}_FILE"
    embedded = variable in {"NOTICEBUS_DATABASE_URL", "NOTICEBUS_REDIS_URL"}
    return "embedded" if embedded else "default"
