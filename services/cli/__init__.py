"""The command `noticebus`: nouns, each with its verbs, loaded when they are called.

Data goes to standard output, everything else to standard error; `exits` has the exit codes. An
error is one code, one sentence and one fix, never a traceback.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from schemas.errors import NoticeBusError, RejectedError
from services.cli import everywhere
from services.cli.exits import ExitCode, exit_code_of, say, tell

# Noun, or verb that stands alone -> what it is for. Each is a module of this package.
COMMANDS = {
    "demo": "Run the main job end to end, with embedded servers.",
    "run": "Run an agency's processes.",
    "docket": "Read court tables at ICE, or invent some.",
    "notice": "Send notices, confirm or dismiss them, follow them.",
    "queue": "Take notices at HHS, work them, close them.",
    "overdue": "List what is late.",
    "watch": "Follow live what is accepted, sent, received, receipted, refused, taken and closed.",
    "report": "Count how often, by which office, how fast.",
    "dead": "Read what was set aside, redrive it, or give it up.",
    "replay": "Run recorded messages again into a chosen place.",
    "ledger": "Verify the audit log, show its checkpoint, export it.",
    "proof": "Build bundles that an outsider checks offline, and check them.",
    "keys": "Make, show and rotate our keys.",
    "party": "Exchange party files: who signs and reads for whom.",
    "token": "Let inspectors read the records over HTTP, for a time.",
    "bus": "Look at streams, groups and the exchange.",
    "schema": "Show and check what crosses the agency border.",
    "db": "Migrate, back up and restore the store.",
    "doctor": "Find out what is wrong, and how to fix it.",
    "config": "Show the settings in force.",
    "version": "Print the version.",
}
PROGRAM = "noticebus"


class Nouns(TyperGroup):
    """The root group: lists every command by its line above, imports one when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        everywhere.name_no_values(self)
        self.commands = {
            name: TyperCommand(name=name, help=purpose) for name, purpose in COMMANDS.items()
        }
        self._listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, imported now unless only its line in the help is wanted."""
        if cmd_name not in self.commands or self._listing:
            return self.commands.get(cmd_name)
        module = importlib.import_module(f"services.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        if isinstance(command, TyperCommand | TyperGroup):
            everywhere.attach(command, self)
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without importing what it lists."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


app = typer.Typer(
    cls=Nouns,
    name=PROGRAM,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=everywhere.CONTEXT,
    help="Prove that a missed-hearing notice was sent, received and acted on.",
)


@app.callback()
def root(
    ctx: typer.Context,
    *,
    agency: everywhere.AgencyOption = None,
    home: everywhere.HomeOption = None,
    output: everywhere.OutputOption = None,
    actor: everywhere.ActorOption = None,
    yes: everywhere.YesOption = False,
    quiet: everywhere.QuietOption = False,
    verbose: everywhere.VerboseOption = False,
) -> None:
    """Prove that a missed-hearing notice was sent, received and acted on."""
    everywhere.of(ctx).take(ctx.params)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit with its code."""
    sys.exit(execute(sys.argv[1:] if arguments is None else arguments))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    # Kept here, because Typer's context is gone when the last words are said.
    meta: dict[str, Any] = {}
    command = typer.main.get_command(app)
    try:
        _refuse_other_bytes(arguments)
        with command.make_context(PROGRAM, list(arguments) or ["--help"]) as ctx:
            meta = ctx.meta
            command.invoke(ctx)
        # Now, while a reader that has gone can still be told from a failure.
        sys.stdout.flush()
    except typer.Exit as ended:
        return ended.exit_code
    except NoticeBusError as error:
        tell(error)
        _places(arguments, error)
        return exit_code_of(error)
    except typer.TyperException as error:
        return _wrong_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        session = meta.get("session")
        say(f"Stopped. {getattr(session, 'finished', None) or 'Nothing was left half-done.'}")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, say) has what it wanted; what is left over goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:  # noqa: BLE001 -- the outermost border: words instead of a traceback
        if (ours := _ours(error)) is not None:
            tell(ours)
            _places(arguments, error)
            return exit_code_of(ours)
        from services.telemetry.redaction import chain

        tell(NoticeBusError("NB-7014", cause=chain(error)))
        _places(arguments, error)
        return ExitCode.FAILED
    return ExitCode.DONE


def _refuse_other_bytes(arguments: Sequence[str]) -> None:
    """Raise `RejectedError` NB-7094 for an argument that no store and no screen can take."""
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise RejectedError("NB-7094", number=number) from None


def _ours(error: BaseException) -> NoticeBusError | None:
    """Return the first error of ours in a group, as tasks that ran side by side raise it."""
    if isinstance(error, NoticeBusError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _ours(each))), None)
    return None


def _wrong_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    tell(RejectedError("NB-7011", cause=error.format_message(), command=path))
    return ExitCode.WRONG_INPUT


def _places(arguments: Sequence[str], error: BaseException) -> None:
    if "-v" in arguments or "--verbose" in arguments:
        from services.telemetry.redaction import places

        say(*(f"  at {place}" for place in places(error.__traceback__)))
