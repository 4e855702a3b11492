"""Options that every command takes, before the noun or after the verb alike.

They are declared once, on the root, and attached to each command when it is loaded; what stands
nearest to the command wins.
"""

import contextlib
import copy
import os
import re
import sys
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from schemas.errors import RejectedError


class Output(StrEnum):
    """How data is written to standard output."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PLAIN = "plain"


@dataclass(slots=True)
class Everywhere:
    """What was given, anywhere on the line; None or False is "not given".

    `unusable` is what is wrong with NOTICEBUS_OUTPUT (NB-7010), which is not in `output` then.
    """

    agency: str | None = None
    home: Path | None = None
    output: Output | None = None
    actor: str | None = None
    yes: bool = False
    quiet: bool = False
    verbose: bool = False
    unusable: RejectedError | None = None

    def take(self, given: dict[str, Any]) -> None:
        """Take over what was given; what was not given changes nothing."""
        for field in fields(self):
            if given.get(field.name):
                setattr(self, field.name, given[field.name])


PANEL = "Everywhere"
CONTEXT = {"help_option_names": ["-h", "--help"]}

AgencyOption = Annotated[
    str | None,
    typer.Option(
        help="On whose side: ice or hhs. Else NOTICEBUS_AGENCY.",
        metavar="ice|hhs",
        rich_help_panel=PANEL,
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of embedded servers, keys and rejects. Else NOTICEBUS_HOME, ./.noticebus.",
        metavar="DIR",
        rich_help_panel=PANEL,
    ),
]
OutputOption = Annotated[
    Output | None,
    typer.Option(
        "--output",
        "-o",
        help="How data is written: table, json, ndjson, csv or plain.",
        metavar="FORMAT",
        case_sensitive=False,
        rich_help_panel=PANEL,
    ),
]
ActorOption = Annotated[
    str | None,
    typer.Option(
        "--as", help="Who acts; it is on record. Else the OS user.", metavar="NAME",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Answer yes to every question.", rich_help_panel=PANEL)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no remarks.", rich_help_panel=PANEL)
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Say more on standard error, places of errors included.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip


def noun(purpose: str) -> typer.Typer:
    """Return the Typer application of one noun, to which its verbs are added."""
    app = typer.Typer(
        help=purpose,
        invoke_without_command=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )

    # With a callback one verb alone is still a verb, not the noun itself.
    @app.callback()
    def alone(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            # Nothing was done, so nothing goes to standard output.
            with contextlib.redirect_stdout(sys.stderr):
                ctx.get_help()
            raise typer.Exit(2)

    return app


def verb() -> typer.Typer:
    """Return the Typer application of a command without verbs below it."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings=CONTEXT
    )


def of(ctx: typer.Context) -> Everywhere:
    """Return what was given so far on this command line."""
    root = ctx.find_root()
    if isinstance(root.obj, Everywhere):
        return root.obj
    try:
        given = Everywhere(output=_preset())
    except RejectedError as error:
        given = Everywhere(unusable=error)
    root.obj = given
    return given


def _preset() -> Output | None:
    preset = os.environ.get("NOTICEBUS_OUTPUT")
    if not preset:
        return None
    if preset not in set(Output):
        rule = f"use {', '.join(Output)}"
        raise RejectedError("NB-7010", variable="NOTICEBUS_OUTPUT", rule=rule)
    return Output(preset)


def attach(command: TyperCommand | TyperGroup, root: TyperGroup) -> None:
    """Let every command below `command` take the root's options too."""
    if isinstance(command, TyperGroup):
        for each in command.commands.values():
            if isinstance(each, TyperCommand | TyperGroup):
                attach(each, root)
        return
    # Lines of a docstring end where the source's do; people's windows end elsewhere.
    parts = re.split(r"\n\n|\s(?=Example: )", command.help or "")
    command.help = "\n\n".join(" ".join(part.split()) for part in parts)
    name_no_values(command)
    taken = {name for param in command.params for name in param.opts}
    for param in root.params:
        if taken.isdisjoint(param.opts) and param.name in Everywhere.__dataclass_fields__:
            again = copy.copy(param)
            again.expose_value = False
            again.callback = _remember
            command.params.append(again)


def name_no_values(command: TyperCommand | TyperGroup) -> None:
    """Let the help of flags name no value, because they take none."""
    for param in command.params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""


def _remember(ctx: Any, param: Any, value: Any) -> Any:
    of(ctx).take({param.name: value})
    return value
