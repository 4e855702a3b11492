"""Move closed notices to an archive file, read such a file, put back what it holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.report import moment
from services.cli.session import Session, session_of
from services.cli.verifying import VkeyOption, log_keys

if TYPE_CHECKING:
    from services.backup.archive import Back
    from services.backup.archive_file import Verified
    from services.exchange.agency import Agency


def archive(
    ctx: typer.Context,
    place: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A new file, or a folder to make one in.")
    ],
    *,
    before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only notices of which nothing happened since."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read that file to its end instead; needs no store.")
    ] = False,
    bring_back: Annotated[
        bool, typer.Option("--bring-back", help="Put back what that file holds instead.")
    ] = False,
    vkey: VkeyOption = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is on record.")] = "",
) -> None:
    """Move closed notices, messages and records, to an encrypted, signed file that proves itself.

    Leaf hashes, tree and counts stay, so that every proof can still be made. The file holds the log
    up to its newest checkpoint. --archive FILE of other commands lets them read it beside the
    store, `replay plan --from archive:FILE` replays it.
    Example: noticebus --agency hhs db archive archives/ --before 2026-01-01 --reason "yearly"
    """
    session = session_of(ctx)
    if verify:
        if bring_back or before is not None or reason:
            raise session.misused("--verify goes alone")
        _verify(session, place, vkey)
        return
    if vkey:
        raise session.misused("--vkey goes with --verify")
    if not reason:
        raise session.misused("--reason is needed")
    if bring_back == (before is not None):
        raise session.misused("give either --before or --bring-back")
    if bring_back:
        _bring_back(session, place, reason)
        return
    start = moment(before)
    assert start is not None
    with session.progress("archiving", unit="records") as progress:

        async def work(agency: "Agency") -> "Verified | None":
            from services.backup.archive import archive as run

            return await run(
                agency.store,
                agency.ring,
                place,
                before=start,
                actor=session.actor,
                reason=reason,
                progress=progress.update,
            )

        done = session.with_agency(work)
    if done is None:
        session.emit_one(
            {"path": None, "messages": 0, "records": 0},
            schema="db.archive",
            people=["Nothing is closed and was quiet for that long: no file was made."],
        )
        return
    session.emit_one(
        {
            "path": done.path,
            "messages": done.messages,
            "records": done.records,
            "size": done.size,
            "root": done.root,
            "digest": done.digest,
        },
        schema="db.archive",
        people=[
            f"✓ {done.messages:,} messages and {done.records:,} records moved, of a log of"
            f" {done.size:,} records · {done.path}"
        ],
    )


def _verify(session: Session, file: Path, vkeys: list[str] | None) -> None:
    from services.backup.archive_file import verify_archive
    from services.keys import KeyRing

    ring = KeyRing.load(session.settings.keys_folder)
    with session.progress("verifying", unit="records") as progress:
        found = verify_archive(
            file, ring, log_keys=log_keys(session, vkeys), progress=progress.update
        )
    session.emit_one(
        {
            "valid": True,
            "origin": found.origin,
            "size": found.size,
            "root": found.root,
            "checkpoints": found.checkpoints,
            "messages": found.messages,
            "records": found.records,
            "leaves": found.leaves,
        },
        schema="db.archive.verify",
        people=[
            f"✓ {found.origin}: {found.size:,} records · {found.checkpoints:,} checkpoints"
            f" · {found.messages:,} messages are those of their records",
            f"  {found.records:,} records moved here · {found.leaves:,} are known by their hashes"
            " and are in earlier archives",
        ],
    )


def _bring_back(session: Session, place: Path, reason: str) -> None:
    async def work(agency: "Agency") -> "Back":
        from services.backup.archive import bring_back as run
        from services.exchange.parties import own_log_keys

        return await run(
            agency.store,
            agency.ring,
            place,
            log_keys=await own_log_keys(agency.store, agency.name),
            actor=session.actor,
            reason=reason,
        )

    back = session.with_agency(work)
    session.emit_one(
        {"path": place, "messages": back.messages, "records": back.records},
        schema="db.archive.back",
        people=[
            f"✓ {back.messages:,} messages and {back.records:,} records are in the store again"
        ],
    )
