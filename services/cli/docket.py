"""Read court tables at ICE, or invent some in the same layout."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import RejectedError
from services.cli.everywhere import noun
from services.cli.exits import ExitCode
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from schemas.envelope import Lane
    from services.ice.importing import Opened
    from services.ice.releases import Imported
    from services.ledger.store import Store

app = noun("Read court tables at ICE, or invent some.")

# Ten times what the court publishes; beyond a thousand million their keys would be other seeds'.
ROWS_MAX = 100_000_000

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder with the tables and crosswalk.csv.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read, and how."""

    folder: Path
    release: str | None
    as_of: date | None
    lane: "Lane | None"
    rejects: Path


@app.command("import")
def import_(
    ctx: typer.Context,
    folder: FolderArgument,
    *,
    release: Annotated[
        str | None, typer.Option(metavar="NAME", help="Names the tables; else the folder does.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="DATE", help="No hearing after it was missed; today.")
    ] = None,
    lane: Annotated[
        str | None, typer.Option(metavar="live|backlog", help="Else by each hearing's age.")
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where rejects go; else rejects.csv in our home."),
    ] = None,
) -> None:
    """Find missed hearings of unaccompanied children, and send a notice of each.

    What a person has to decide waits for `notice confirm`. Rows that cannot be used go to the
    rejects, and the rest goes on: exit 5 then. The same tables again change nothing; after an
    interruption the same command goes on.
    """
    from schemas.envelope import Lane

    session = session_of(ctx, needed="ice")
    if lane is not None and lane not in {Lane.LIVE, Lane.BACKLOG}:
        raise session.misused("--lane is live or backlog")
    if not folder.is_dir():
        raise RejectedError("NB-7006", what=folder, cause="it is no folder")
    imported = _import(
        session,
        Reading(
            folder=folder,
            release=release,
            as_of=_day(as_of),
            lane=Lane(lane) if lane else None,
            rejects=(rejects or session.settings.agency_home / "rejects.csv").absolute(),
        ),
    )
    opened = imported.opened
    session.emit_one(
        {
            "release": imported.release,
            "digest": imported.digest,
            "rows": imported.rows,
            "recorded": opened.recorded,
            "to_confirm": opened.to_confirm,
            "already": opened.already,
            "updated": opened.updated,
            "sent_after_all": opened.sent_after_all,
            "asked_again": opened.asked_again,
            "withdrawals": opened.withdrawals,
            "taken_back": opened.taken_back,
            "unasked": opened.unasked,
            "rejected": imported.rejected,
            "rejects": imported.rejects,
        },
        schema="docket.import",
        people=_people(imported),
    )
    if imported.rejected:
        raise typer.Exit(ExitCode.PARTLY_DONE)


@app.command()
def synthesize(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
    *,
    rows: Annotated[
        int, typer.Option(min=1, max=ROWS_MAX, help="Proceedings, in scope or not.")
    ] = 2_000,
    missed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Missed hearings in scope: those to send and those to confirm, together (1 in 10"
            " needs a person's confirmation). Else a tenth of the rows.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="The same seed makes the same people; another one, modulo 100, others, under other"
            " keys of the court."
        ),
    ] = 1,
) -> None:
    """Invent tables in the court's layout, quirks included, with answers.csv beside them.

    Example: noticebus docket synthesize ./invented --rows 5000 --missed 200 --seed 3
    """
    from services.ice.docket.stories import Expected
    from services.ice.docket.synthesize import ANSWERS
    from services.ice.docket.synthesize import synthesize as invent

    session = session_of(ctx)
    with session.progress("inventing", unit="rows", total=rows) as progress:
        made = invent(
            folder,
            rows=rows,
            missed=rows // 10 if missed is None else missed,
            seed=seed,
            progress=progress.update,
        )
    expected = {str(each): made.expected.get(each, 0) for each in Expected}
    session.emit_one(
        {
            "folder": folder,
            "seed": seed,
            "rows": dict(made.rows),
            "expected": expected,
            "answers": folder / ANSWERS,
        },
        schema="docket.synthesize",
        people=[
            f"Invented in {folder}: "
            + ", ".join(f"{count:,} {table}" for table, count in made.rows.items()),
            f"  expected, in {folder / ANSWERS}: "
            + ", ".join(f"{count:,} {what}" for what, count in expected.items()),
            f"  next: noticebus docket import {folder}",
        ],
    )


def _import(session: Session, asked: Reading) -> "Imported":
    """Read the tables, then open what they say, each with its progress."""
    from services.garbage import collect_seldom
    from services.ice.docket.scan import Docket
    from services.ice.releases import take_in

    collect_seldom()
    with session.attached(), _spill(session.settings.agency_home / "spill") as spill:
        with session.progress("reading", unit="rows") as reading:
            docket = Docket.open(
                asked.folder,
                spill=spill,
                release=asked.release,
                as_of=asked.as_of,
                rejects=asked.rejects,
                progress=lambda table, done, total: reading.update(
                    done, total=total or None, what=f"reading {table}"
                ),
            )
        with docket, session.progress("opening", unit="hearings") as opening:

            async def work(store: "Store") -> "Imported":
                return await take_in(
                    store,
                    docket,
                    rejects=asked.rejects,
                    lane=asked.lane,
                    actor=session.actor,
                    progress=lambda opened: opening.update(_seen(opened)),
                )

            return session.with_store(work, sends=True)


@contextmanager
def _spill(folder: Path) -> Iterator[Path]:
    """Give out a folder for this process' overflow; what killed imports left behind is removed."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.iterdir():
        if not _lives(left.name):
            shutil.rmtree(left, ignore_errors=True)
    own = folder / str(os.getpid())
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _lives(name: str) -> bool:
    try:
        os.kill(int(name), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _seen(opened: "Opened") -> int:
    return opened.recorded + opened.to_confirm + opened.already


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RejectedError(
            "NB-7005", value=text, what="day", rule="Write it as 2026-11-23."
        ) from None


def _people(imported: "Imported") -> list[str]:
    opened = imported.opened
    lines = [
        f"Read {sum(imported.rows.values()):,} rows of {imported.release}: "
        + ", ".join(f"{count:,} {table}" for table, count in imported.rows.items()),
        f"  {opened.recorded:>8,} recorded     notices go to HHS as soon as ICE runs",
        f"  {opened.to_confirm:>8,} to confirm   a person decides: noticebus notice confirm",
        f"  {opened.already:>8,} already      known before, nothing new was sent",
    ]
    more = (
        (opened.updated, "updated", "gained court keys, HHS is told"),
        (opened.sent_after_all, "sent after all", "the court decided since"),
        (opened.asked_again, "asked again", "missed after all: a person decides"),
        (opened.withdrawals, "to withdraw", "taken back by these tables: a person decides"),
        (opened.taken_back, "taken back", "never sent, and no longer said to be missed"),
        (opened.unasked, "asked no more", "the docket says again what HHS was told"),
        (imported.rejected, "rejected", f"see {imported.rejects}"),
    )
    lines += [f"  {count:>8,} {what:<12} {why}" for count, what, why in more if count]
    return lines
