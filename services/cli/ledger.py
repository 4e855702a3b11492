"""Verify the audit log, show its checkpoint, export it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import NotFoundError
from services.cli.anchor import anchor
from services.cli.checkpoint import checkpoint, seen_in
from services.cli.conflicts import conflicts
from services.cli.everywhere import noun
from services.cli.session import ArchivesOption, Doubtful, session_of
from services.cli.verifying import verify

if TYPE_CHECKING:
    from services.ledger.export import Exported
    from services.ledger.store import Store

app = noun("Verify the audit log, show its checkpoint, export it.")

app.command()(verify)
app.command()(anchor)
app.command()(conflicts)
app.command()(checkpoint)


@app.command()
def export(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
    *,
    archive: ArchivesOption = None,
    hashes_only: Annotated[
        bool,
        typer.Option("--hashes-only", help="Without the records: what may be shown to everyone."),
    ] = False,
    cosigned: Annotated[
        bool,
        typer.Option("--cosigned", help="Up to the newest checkpoint that others cosigned."),
    ] = False,
) -> None:
    """Write the log as C2SP tlog-tiles, for tools that are not ours.

    The second time only what is new is added; an interrupted export goes on. Records hold no names;
    they are still for the owner and for inspectors alone.
    Example: noticebus --agency ice ledger export ./ice-log
    """
    from services.ledger.export import export as export_log

    session = session_of(ctx, archives=archive)
    with session.progress("exporting", unit="records") as progress:

        async def work(store: "Store") -> "Exported":
            return await export_log(
                store,
                folder,
                entries=not hashes_only,
                actor=session.actor,
                under=await _cosigned(store) if cosigned else None,
                progress=lambda done, total: progress.update(done, total=total),
            )

        exported = session.with_store(work, doubtful=Doubtful.REFUSED)
    session.emit_one(
        {
            "folder": str(folder),
            "size": exported.size,
            "added": exported.added,
            "entries": not hashes_only,
            "note": exported.note,
        },
        schema="ledger.export",
        people=[
            f"{session.agency}: {exported.size:,} records in {folder}, {exported.added:,} of them"
            " new, under this checkpoint:",
            *exported.note.splitlines(),
        ],
    )


async def _cosigned(store: "Store") -> tuple[int, str]:
    """Return size and note of our newest cosigned checkpoint. Raises `NotFoundError` NB-3227."""
    seen = await seen_in(store)
    if seen is None or seen.cosigned is None:
        raise NotFoundError("NB-3227")
    return seen.cosigned.size, seen.cosigned.note
