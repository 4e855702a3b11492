"""Print the version."""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version

import typer

from services.cli.everywhere import verb
from services.cli.session import session_of

app = verb()


@app.command()
def show(ctx: typer.Context) -> None:
    """Print the version of noticebus and of Python."""
    try:
        ours = version("noticebus")
    except PackageNotFoundError:
        ours = "0 (not installed)"
    session_of(ctx).emit_one(
        {"version": ours, "python": python_version()},
        schema="version",
        people=[f"noticebus {ours} (Python {python_version()})"],
    )
