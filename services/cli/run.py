"""Run an agency's processes until told to stop."""

import asyncio
import sys
from typing import Annotated

import typer

from schemas.errors import RejectedError
from services.cli.everywhere import verb
from services.cli.session import AGENCIES, Session, session_of

app = verb()


@app.command()
def run(
    ctx: typer.Context,
    # Not `agency`: the option that every command takes has that name.
    whose: Annotated[str, typer.Argument(metavar="ice|hhs", help="Whose processes.")],
    only: Annotated[
        str | None,
        typer.Option(metavar="PART,...", help="relay, delivery, sealer; else all of them."),
    ] = None,
) -> None:
    """Run relay, delivery and sealer of an agency until SIGTERM or Ctrl-C.

    Health and metrics are served where NOTICEBUS_HTTP_PORT says. Lines on standard error are JSON.
    """
    if whose not in AGENCIES:
        raise RejectedError("NB-7002", agency=whose)
    session = session_of(ctx, needed=whose)
    parts = _parts(session, only)
    with session.attached(bus=True, process=",".join(parts)) as settings:
        if session.agency == "ice":
            from services.ice.process import main
        else:
            from services.hhs.process import main
        with _runner() as runner:
            runner.run(main(settings, parts))


def _parts(session: Session, only: str | None) -> tuple[str, ...]:
    from services.exchange.process import PARTS

    if only is None:
        return PARTS
    named = tuple(part.strip() for part in only.split(",") if part.strip())
    unknown = [part for part in named if part not in PARTS]
    if unknown or not named:
        raise session.misused(f"--only takes {', '.join(PARTS)}, separated by commas")
    return named


def _runner() -> asyncio.Runner:
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
