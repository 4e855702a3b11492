"""Verify the audit log, and all that stands beside it in the store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import RejectedError
from services.cli.exits import ExitCode, tell
from services.cli.session import ArchivesOption, Doubtful, Session, session_of

if TYPE_CHECKING:
    from schemas.checkpoint import Verifier
    from services.exchange.contents import Contents, Disowned
    from services.exchange.verifying import Verified
    from services.ledger.anchor import Found
    from services.ledger.erasures import Gone
    from services.ledger.store import Store

# What a check of the tree alone leaves out, and what that of a former log or a broken one does.
BESIDE = ("columns", "openings", "times")
CONTENTS = ("messages", "contents", "answers")

# Messages from which a second process is worth its start.
APART_FROM = 10_000

VkeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--vkey",
        metavar="VKEY",
        help="Verify with this log key, as C2SP spells it; else with our own.",
    ),
]


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
    archive: ArchivesOption = None,
    exported: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of `ledger export` instead; needs no store."),
    ] = None,
    tree_only: Annotated[
        bool,
        typer.Option(
            "--tree-only", help="Hash and prove the records alone, not what stands beside them."
        ),
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A log that a restore ended, by its name; see db restore --report."
        ),
    ] = None,
) -> None:
    """Hash every record again, rebuild the tree, check every checkpoint and every message.

    Messages are held against their signatures, records and commitments, answers against their
    proofs, times against the other agency's cosignatures, the whole against its anchor and against
    everything that was made from one of its checkpoints. Records whose bytes are in archives stand
    in the tree by their leaf hashes and are counted; with --archive they are hashed again like the
    others. Exit 6 at the first difference, which is named.
    Example: noticebus --agency hhs ledger verify
    """
    from services.exchange.contents import reading
    from services.exchange.verifying import verify_log
    from services.garbage import collect_seldom

    collect_seldom()
    session = session_of(ctx, archives=archive)
    if exported is not None:
        _verify_exported(session, exported, vkey)
        return
    keys = [] if origin and not vkey else log_keys(session, vkey)
    kept = [_read(file) for file in checkpoint or ()]

    async def work(store: "Store") -> "tuple[Verified, Contents | None]":
        if origin is not None or tree_only:
            return await verify_records(store), None
        # A second process begins with the messages while we are at the records.
        async with reading(store, apart_from=APART_FROM) as messages:
            verified = await verify_records(store)
            if verified.difference is not None:
                return verified, None
            with session.progress("verifying contents", unit="messages") as progress:
                return verified, await messages.finish(
                    lambda done, total: progress.update(done, total=total)
                )

    async def verify_records(store: "Store") -> "Verified":
        with session.progress("verifying", unit="records") as progress:
            return await verify_log(
                store,
                session.settings,
                log_keys=keys,
                also=kept,
                origin=origin,
                tree_only=tree_only,
                progress=lambda done, total: progress.update(done, total=total),
            )

    verified, held = session.with_store(work, doubtful=Doubtful.LEFT)
    report, away, anchor = verified.report, verified.gone, verified.anchor
    difference = verified.difference or (None if held is None else held.difference)
    not_checked = [*(BESIDE if tree_only else ()), *(CONTENTS if held is None else ())]
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
            "records_archived": report.archived,
            "contents_erased": {} if away is None else dict(away.by_policy),
            "contents_archived": 0 if away is None else away.archived,
            "anchor": None
            if anchor is None
            else {
                "state": str(anchor.state),
                "size": None if anchor.anchor is None else anchor.anchor.size,
            },
            "messages": None if held is None else held.messages,
            "answers": None if held is None else held.answers,
            "not_evidence": None if held is None else held.not_evidence,
            "disputed": None if held is None else [_disputed(each) for each in held.disputed],
            "not_checked": not_checked,
            "difference": None
            if difference is None
            else {"code": difference.code, "sentence": difference.sentence, **difference.where},
        },
        schema="ledger.verify",
        people=_people(session.agency, verified, held, not_checked),
    )
    if difference is not None:
        tell(difference)
        raise typer.Exit(ExitCode.INTEGRITY)


def log_keys(session: Session, vkeys: list[str] | None) -> "list[Verifier]":
    """Return the keys to verify with: those given, else the public half of our own."""
    from schemas.checkpoint import Verifier
    from services.keys import KeyRing

    if vkeys:
        return [Verifier.parse(text) for text in vkeys]
    return list(KeyRing.load(session.settings.keys_folder).log_verifiers)


def _verify_exported(session: Session, folder: Path, vkeys: list[str] | None) -> None:
    from services.ledger.exported import verify_exported

    with session.progress("verifying", unit="records") as progress:
        found = verify_exported(
            folder,
            log_keys=log_keys(session, vkeys),
            progress=lambda done, total: progress.update(done, total=total),
        )
    session.emit_one(
        {
            "valid": True,
            "origin": found.origin,
            "size": found.size,
            "root": found.root,
            "tiles": found.tiles,
            "entries": found.entries,
            "note": found.note,
        },
        schema="ledger.verify.exported",
        people=[
            f"✓ {found.origin}: {found.size:,} records · {found.tiles:,} tiles have the signed root"
            + ("" if found.entries else " · the records themselves are not in the folder"),
        ],
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RejectedError("NB-7006", what=file, cause=cause) from error


def _people(
    agency: str, verified: "Verified", held: "Contents | None", not_checked: list[str]
) -> list[str]:
    report = verified.report
    broken = verified.difference is not None
    broken = broken or (held is not None and held.difference is not None)
    mark = "✗" if broken else "✓"
    waiting = f" · {report.unsealed:,} not sealed yet" if report.unsealed else ""
    erased = f" · {report.erased:,} with erased names" if report.erased else ""
    return [
        f"{mark} {agency}: {report.verified:,}/{report.size:,} records valid"
        f" · {report.checkpoints:,} checkpoints · {report.tiles:,} tiles{erased}{waiting}",
        *(
            []
            if held is None
            else [f"  {held.messages:,} messages valid · {held.answers:,} answers proven"]
        ),
        *([] if held is None or not held.not_evidence else [_no_evidence(held.not_evidence)]),
        *([] if held is None else [_disowned(each) for each in held.disputed]),
        *([] if verified.anchor is None else [_anchored(verified.anchor)]),
        *([f"  not checked: {', '.join(not_checked)}"] if not_checked else []),
        *(
            [
                f"  {report.archived:,} of the records are in archives: their hashes fit, their"
                " bytes were not read (--archive FILE reads them)"
            ]
            if report.archived
            else []
        ),
        *([] if verified.gone is None else _gone(verified.gone)),
    ]


def _anchored(found: "Found") -> str:
    size = "nothing" if found.anchor is None else f"{found.anchor.size:,} records"
    fits = "the store continues it" if found.error() is None else "the store DOES NOT continue it"
    return f"  {size} anchored outside the store ({found.state}): {fits}"


def _no_evidence(count: int) -> str:
    return (
        f"  {count:,} message{'' if count == 1 else 's'} under a revoked key: no evidence, because"
        " no checkpoint that the other agency cosigned before covers them"
    )


def _disputed(each: "Disowned") -> dict[str, object]:
    return {
        "key": each.first.kid,
        "claimed_since": each.first.since,
        "messages": each.messages,
        "first_index": each.first.index,
        "cosigned_at": each.first.cosigned_at,
        "told_at": each.told_at,
    }


def _disowned(each: "Disowned") -> str:
    first, count = each.first, each.messages
    return (
        f"! {count:,} message{' is' if count == 1 else 's are'} DISPUTED: their signer revoked its"
        f" key {first.kid[:12]} and claims that others had it since"
        f" {first.since:%Y-%m-%d %H:%M:%SZ}. It had cosigned our records of them itself, the first"
        f" at {first.cosigned_at:%Y-%m-%d %H:%M:%SZ}; we learned of the claim at"
        f" {each.told_at:%Y-%m-%d %H:%M:%SZ}"
    )


def _gone(away: "Gone") -> list[str]:
    """Return what is to be said of contents that are gone."""
    lines = [
        f"  {count:,} contents were erased by policy {policy}, as records tell"
        for policy, count in away.by_policy.items()
    ]
    if away.archived:
        lines.append(f"  {away.archived:,} contents are in archives")
    return lines
