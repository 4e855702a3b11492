"""Verify the audit log, show its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import NotFoundError, RejectedError
from services.cli import output
from services.cli.everywhere import Output, noun
from services.cli.exits import ExitCode, tell
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from schemas.checkpoint import Verifier
    from services.ledger.store import Store
    from services.ledger.verify import Report

app = noun("Verify the audit log, show its checkpoint.")

VkeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--vkey",
        metavar="VKEY",
        help="Verify with this log key, as C2SP spells it; else with our own.",
    ),
]


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint of a ledger."""

    size: int
    note: str


@app.command()
def verify(
    ctx: typer.Context,
    *,
    vkey: VkeyOption = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A checkpoint kept elsewhere that this ledger must contain too.",
        ),
    ] = None,
) -> None:
    """Hash every record again, rebuild the tree, check every checkpoint; exit 6 at a difference."""
    from services.ledger.verify import verify as verify_ledger

    session = session_of(ctx)
    keys = _log_keys(session, vkey)
    kept = [_read(file) for file in checkpoint or ()]
    with session.progress("verifying", unit="records") as progress:

        async def work(store: "Store") -> "Report":
            return await verify_ledger(
                store,
                log_keys=keys,
                also=kept,
                progress=lambda done, total: progress.update(done, total=total),
            )

        report = session.with_store(work)
    difference = report.difference
    session.emit_one(
        {
            "valid": difference is None,
            "size": report.size,
            "verified": report.verified,
            "root": report.root,
            "checkpoints": report.checkpoints,
            "tiles": report.tiles,
            "openings": report.openings,
            "erased": report.erased,
            "unsealed": report.unsealed,
            "difference": None
            if difference is None
            else {"code": difference.code, "sentence": difference.sentence, **difference.where},
        },
        schema="ledger.verify",
        people=_people(session.agency, report),
    )
    if difference is not None:
        tell(difference)
        raise typer.Exit(ExitCode.INTEGRITY)


@app.command()
def checkpoint(ctx: typer.Context) -> None:
    """Print the newest checkpoint: a signed note that anybody with our log key can verify."""
    from services.ledger.store import log

    session = session_of(ctx)

    async def work(store: "Store") -> "Newest | None":
        async with store.transaction() as tx:
            newest = await log.newest_checkpoint(tx)
        return None if newest is None else Newest(newest[0], newest[1])

    newest = session.with_store(work)
    if newest is None:
        raise NotFoundError("NB-7018")
    if output.chosen(session.given.output) in (Output.TABLE, Output.PLAIN):
        output.emit_text(newest.note)
        return
    origin, _, root = newest.note.splitlines()[:3]
    session.emit_one(
        {"origin": origin, "size": newest.size, "root": root, "note": newest.note},
        schema="ledger.checkpoint",
    )


def _log_keys(session: Session, vkeys: list[str] | None) -> "list[Verifier]":
    """Return the keys to verify with: those given, else the public half of our own."""
    from schemas.checkpoint import Verifier
    from services.keys import KeyRing

    if vkeys:
        return [Verifier.parse(text) for text in vkeys]
    return [KeyRing.load(session.settings.keys_folder).log_key.verifier]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RejectedError("NB-7006", what=file, cause=cause) from error


def _people(agency: str, report: "Report") -> list[str]:
    mark = "✓" if report.difference is None else "✗"
    waiting = f" · {report.unsealed:,} not sealed yet" if report.unsealed else ""
    erased = f" · {report.erased:,} with erased names" if report.erased else ""
    return [
        f"{mark} {agency}: {report.verified:,}/{report.size:,} records valid"
        f" · {report.checkpoints:,} checkpoints · {report.tiles:,} tiles{erased}{waiting}"
    ]
