"""Migrate the store, back it up, restore it, and see to what a restore lost."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from schemas.errors import RejectedError
from services.cli.archiving import archive
from services.cli.conflicts import told
from services.cli.erasing import erase
from services.cli.everywhere import noun
from services.cli.output import Column, names_of, readable
from services.cli.report import SinceOption, moment
from services.cli.restored import (
    BACKUP_FIELDS,
    backup_item,
    lost_item,
    recovered_item,
    recovered_people,
    report_people,
)
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.backup.adopting import Adopted
    from services.backup.recovery import Recovered
    from services.backup.report import Report
    from services.backup.snapshot import Backup
    from services.backup.store.recovery import Lost
    from services.exchange.agency import Agency
    from services.keys import KeyRing
    from services.ledger.store import Store
    from services.settings import Settings

T = TypeVar("T")

app = noun("Migrate, back up and restore the store.")

ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is on record.")]

BACKUP_COLUMNS = [
    Column("path", "FILE"),
    Column("made_at", "MADE"),
    Column("agency"),
    Column("generation", "GEN", right=True),
    Column("size", "RECORDS", right=True),
    Column("bytes", right=True),
    Column("program", "VERSION"),
]
LOST_COLUMNS = [
    Column("lost_id", "LOST"),
    Column("cause"),
    Column("kind"),
    Column("notice_id", "NOTICE"),
    Column("said_at", "SENT"),
    Column("stream"),
    Column("generation", "GEN", right=True),
    Column("first_sequence", "FROM", right=True),
    Column("last_sequence", "TO", right=True),
]


@app.command()
def migrate(ctx: typer.Context) -> None:
    """Bring our database to the schema this program needs; safe to run twice."""
    session = session_of(ctx)
    with session.attached() as settings:
        from services.ledger.store import migrate as to_newest

        to_newest(settings.database_url_required, settings.agency)
    session.emit_one(
        {"agency": session.agency, "migrated": True},
        schema="db.migrate",
        people=[f"the store of {session.agency} is up to date"],
    )


@app.command()
def backup(
    ctx: typer.Context,
    place: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A new file, or a folder to make one in.")
    ],
    *,
    list_: Annotated[
        bool, typer.Option("--list", help="List the backups there instead; reads headers alone.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read that backup to its end instead.")
    ] = False,
) -> None:
    """Write all that our store holds at this moment into one encrypted, signed file.

    It can be read with our key ring alone, and the keys are not in it: keep a copy of the folder of
    keys elsewhere. Example: noticebus --agency ice db backup backups/
    """
    session = session_of(ctx)
    if list_ and verify:
        raise session.misused("--list and --verify are two things")
    if list_:
        from services.backup.snapshot import listed

        session.emit(
            [backup_item(each) for each in listed(place)],
            schema="db.backup.list",
            columns=BACKUP_COLUMNS,
            fields=BACKUP_FIELDS,
            empty="No backup there yet. Make one: noticebus db backup DIR",
        )
        return
    with session.progress("verifying" if verify else "backing up", unit="rows") as progress:
        done = (
            _verified(session, place, progress.update)
            if verify
            else session.with_agency(
                lambda agency: _back_up(session, agency, place, progress.update)
            )
        )
    mark = "✓ whole" if verify else "✓ backed up"
    session.emit_one(
        {**backup_item(done), "rows": done.rows, "tables": len(done.parts), "digest": done.digest},
        schema="db.backup",
        people=[
            f"{mark}: {done.rows:,} rows of {len(done.parts)} tables, ledger of"
            f" {readable(done.header.about['size'])} records",
            f"  {done.file_bytes:,} bytes · {done.path}",
        ],
    )
    if not verify:
        session.remark("  the keys are not in it: keep a copy of their folder apart from it")


@app.command()
def restore(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A backup, into an empty database.")
    ] = None,
    *,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Begin a new generation on what was restored.")
    ] = False,
    seen: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What the other agency has seen, from its `db seen`."),
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Adopt without it: it cannot be had.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Show restores, and what was lost by them.")
    ] = False,
    resolve: Annotated[
        str | None,
        typer.Option(metavar="ID|all", help="Say that a person dealt with something lost."),
    ] = None,
    reason: ReasonOption = "",
) -> None:
    """Restore a backup, adopt it, and see to what was lost; three steps, in this order.

    A restored store refuses every change until it is adopted. Examples:
    noticebus --agency ice db restore backups/a.backup
    noticebus --agency ice db restore --adopt --seen seen.file --reason "the disk failed"
    noticebus --agency ice db restore --report
    """
    session = session_of(ctx)
    chosen = [file is not None, adopt, report, resolve is not None, bool(seen) and not adopt]
    if sum(chosen) != 1:
        raise session.misused("give a FILE, or one of --adopt, --seen, --report, --resolve")
    if (adopt or resolve is not None or seen is not None) and not reason:
        raise session.misused("--reason is needed")
    if blind and (not adopt or seen is not None):
        raise session.misused("--blind goes with --adopt, and without --seen")
    if file is not None:
        _restore(session, file)
    elif report:
        _report(session)
    elif resolve is not None:
        _resolve(session, resolve, reason)
    elif adopt:
        _adopt(session, seen, reason, blind=blind)
    elif seen is not None:
        _recover(session, seen, reason)


app.command()(archive)
app.command()(erase)


@app.command("seen")
def seen_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    *,
    since: SinceOption = None,
) -> None:
    """Write what we have seen of the other agency, for its restore; encrypted to it.

    It holds the messages that it had sent to us, nothing of our own. Let our processes first read
    all that is on the bus. Example: noticebus --agency hhs db seen seen.file --since 2026-11-23
    """
    from services.backup import seen

    session = session_of(ctx)
    start = moment(since)

    async def work(agency: "Agency") -> int:
        return await seen.tell(agency, file, since=start, actor=session.actor)

    count = session.with_agency(work)
    session.emit_one(
        {"path": file, "messages": count, "since": start},
        schema="db.seen",
        people=[f"✓ {count:,} messages that we received · {file}"],
    )
    session.remark("  next, there: noticebus db restore --adopt --seen FILE --reason TEXT")


async def _back_up(
    session: Session, agency: "Agency", place: Path, progress: Callable[[int], None]
) -> "Backup":
    from services.backup.snapshot import back_up

    return await back_up(agency.store, agency.ring, place, actor=session.actor, progress=progress)


def _verified(session: Session, place: Path, progress: Callable[[int], None]) -> "Backup":
    from services.backup.snapshot import verify_backup

    return verify_backup(place, _ring(session), progress=progress)


def _restore(session: Session, file: Path) -> None:
    from services.backup.restoring import restore as run

    ring = _ring(session)
    with (
        session.attached() as settings,
        session.progress("restoring", unit="rows") as progress,
    ):
        done = run(settings.database_url_required, ring, file, progress=progress.update)
    session.emit_one(
        {**backup_item(done), "rows": done.rows, "adopted": False},
        schema="db.restore",
        people=[f"✓ restored as of {readable(done.header.made_at)}: {done.rows:,} rows"],
    )
    peer = session.settings.peer
    session.remark(
        "  it refuses every change until it is adopted. Next:",
        f"  at {peer}, once it has read all: noticebus db seen FILE"
        f" --since {done.header.made_at:%Y-%m-%dT%H:%MZ}",
        "  here: noticebus db restore --adopt --seen FILE --reason TEXT",
    )


def _adopt(session: Session, seen: Path | None, reason: str, *, blind: bool) -> None:
    from services.backup.adopting import adopt

    if seen is None and not blind:
        raise RejectedError("NB-5046")
    session.confirm("Begin a new generation on the restored store?", unattended=True)

    async def work(store: "Store", settings: "Settings") -> "Adopted":
        return await adopt(store, settings, file=seen, actor=session.actor, reason=reason)

    done = _with_restored(session, work)
    session.emit_one(
        {
            "generation": done.generation,
            "origin": done.origin,
            "old_origin": done.old_origin,
            "old_size": done.old_size,
            "old_root": done.old_root,
            "sent_again": done.again,
            **recovered_item(done.recovered),
        },
        schema="db.adopt",
        people=[
            f"✓ generation {done.generation} begins: {done.origin}",
            f"  the old log ends at {done.old_size:,} records and stays verifiable",
            *recovered_people(done.recovered),
        ],
    )
    session.remark(
        "  next: noticebus party export FILE, and at the other agency noticebus party trust FILE;",
        "  then noticebus run, and noticebus db restore --report for what waits for a person",
    )


def _recover(session: Session, seen: Path, reason: str) -> None:
    from services.backup.adopting import recover

    async def work(store: "Store", settings: "Settings") -> "Recovered":
        return await recover(store, settings, file=seen, actor=session.actor, reason=reason)

    done = _with_restored(session, work)
    session.emit_one(recovered_item(done), schema="db.recover", people=recovered_people(done))


def _report(session: Session) -> None:
    from services.backup.report import look

    found: Report = session.with_store(look)
    session.emit_one(
        {
            "restores": [
                {
                    "restored_at": each.restored_at,
                    "backup_made_at": each.backup_made_at,
                    "generation": each.generation,
                    "adopted_at": each.adopted_at,
                }
                for each in found.restorations
            ],
            "former_logs": [
                {"origin": each.origin, "size": each.size, "root": each.root}
                for each in found.former
            ],
            "recovered": found.recovered,
            "missing": found.missing,
            "unanswered": found.unanswered,
            "lost": [lost_item(each) for each in found.lost],
            **told(session),
        },
        schema="db.restore.report",
        people=report_people(found),
    )


def _resolve(session: Session, chosen: str, reason: str) -> None:
    from services.backup.adopting import resolve
    from services.backup.store.recovery import Lost

    async def work(store: "Store") -> "list[Lost]":
        return await resolve(store, chosen, actor=session.actor, reason=reason)

    session.emit(
        [lost_item(each) for each in session.with_store(work)],
        schema="db.restore.resolved",
        columns=LOST_COLUMNS,
        fields=names_of(Lost),
        empty="",
    )


def _with_restored(session: Session, work: "Callable[[Store, Settings], Awaitable[T]]") -> T:
    """Run `work` with a store that may wait to be adopted, and with the settings of its servers."""
    from services.ledger.store import Store

    async def opened(settings: "Settings") -> T:
        async with await Store.open(settings.database_url_required, pool_max=2) as store:
            return await work(store, settings)

    with session.attached() as settings:
        return asyncio.run(opened(settings))


def _ring(session: Session) -> "KeyRing":
    from services.keys import KeyRing

    return KeyRing.load(session.settings.keys_folder)
