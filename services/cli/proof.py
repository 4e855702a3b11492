"""Build bundles that an outsider checks offline, and check them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import EvidenceError
from services.cli.asking import bytes_of, unseen
from services.cli.conflicts import told
from services.cli.everywhere import noun
from services.cli.exits import ExitCode, tell
from services.cli.report import SinceOption, UntilOption, moment
from services.cli.session import ArchivesOption, Session, session_of

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.proof.absence import Searched
    from services.proof.building import Built, Selection

app = noun("Build bundles that an outsider checks offline, and check them.")


@app.command()
def build(
    ctx: typer.Context,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The new zip.")],
    notice: Annotated[
        str | None, typer.Option(metavar="ID", help="One notice, by its id or its beginning.")
    ] = None,
    office: Annotated[
        str | None, typer.Option(metavar="CODE", help="The notices of an office instead.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    archive: ArchivesOption = None,
    reveal: Annotated[
        bool,
        typer.Option("--reveal", help="With what the messages say and who acted; needs --reason."),
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why it is revealed; it is on record.")
    ] = None,
) -> None:
    """Write what we have of a notice into one zip: messages, records, receipts, proofs, keys.

    Whoever gets it needs Python and openssl, or other people's tools, and nothing of ours. Without
    --reveal no personal data is in it. Each bundle is on record.
    Example: noticebus --agency ice proof build --notice 0190f2b6 --out proof.zip
    """
    session = session_of(ctx, archives=archive)
    if (notice is None) == (office is None):
        raise session.misused("give either --notice or --office")
    if notice is not None and (since or until):
        raise session.misused("--since and --until go with --office")
    if reveal != (reason is not None and bool(reason.strip())):
        raise session.misused("--reveal and --reason go together")

    async def work(agency: "Agency") -> "Built":
        from services.proof.building import build as build_bundle

        selection = await _selection(session, agency, notice, office, since, until)
        return await build_bundle(agency, selection, out, actor=session.actor, reason=reason)

    built = session.with_agency(work)
    session.emit_one(
        {
            "path": str(built.path),
            "sha256": built.digest,
            "bytes": built.bytes,
            "notices": built.notices,
            "messages": built.messages,
            "records": built.records,
            "receipts": built.receipts,
            "origin": built.origin,
            "size": built.size,
            "revealed": built.revealed,
            **told(session),
        },
        schema="proof.build",
        people=[
            f"✓ {out}: {built.notices:,} notices, {built.messages:,} messages,"
            f" {built.receipts:,} receipts, {built.records:,} records"
            f" under the checkpoint of {built.size:,}",
            f"  sha256 {built.digest}",
            f"  next: unzip -q {out} -d proof && python3 proof/verify.py",
        ],
    )
    if built.revealed:
        session.remark("It holds personal data: who asked for it, and why, is on record.")


@app.command()
def verify(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle, ours or the other's.")],
    *,
    fingerprint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AGENCY=SHA256:...",
            help="What an agency told you of its keys; else compare what is printed.",
        ),
    ] = None,
) -> None:
    """Check a bundle, as the verify.py in it does; needs no home, no keys, no servers.

    Exit 6 names the file in the bundle that does not hold, and why.
    Example: noticebus proof verify proof.zip
    """
    from services.proof.archive import unpacked
    from services.proof.checking import check

    session = session_of(ctx)
    expected = dict(_pair(session, text) for text in fingerprint or ())
    try:
        checked = check(unpacked(file), expected=expected)
    except EvidenceError as error:
        session.emit_one(
            {
                "valid": False,
                "path": str(file),
                "member": error.where.get("member"),
                "difference": {"code": error.code, "sentence": error.sentence},
            },
            schema="proof.verify",
            people=[f"✗ {file}: {error.where.get('member', 'it')} does not hold"],
        )
        tell(error)
        raise typer.Exit(ExitCode.INTEGRITY) from None
    session.emit_one(
        {
            "valid": True,
            "path": str(file),
            "made_by": checked.agency,
            "made_at": checked.made_at,
            "origin": checked.origin,
            "size": checked.size,
            "revealed": checked.revealed,
            "notices": checked.notices,
            "members": checked.members,
            "fingerprints": dict(checked.fingerprints),
            "witnesses": list(checked.witnesses),
            "conflicts": list(checked.conflicts),
            "checks": [{"member": each.member, "told": each.told} for each in checked.held],
            "disputed": [{"member": each.member, "told": each.told} for each in checked.disputed],
        },
        schema="proof.verify",
        people=[
            *(f"✓ {each.member}: {each.told}" for each in checked.held),
            *(f"! DISPUTED {each.member}: {each.told}" for each in checked.disputed),
            f"✓ all holds: {checked.notices:,} notices, {checked.members:,} files, made by"
            f" {checked.agency} at {checked.made_at}{_but(len(checked.disputed))}",
            *_compare(checked.fingerprints, expected),
            *(f"  third witness {vkey}  ← compare it too" for vkey in checked.witnesses),
            *(f"! {each}" for each in checked.conflicts),
        ],
    )


@app.command()
def absence(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A log, by `ledger export --cosigned`.")
    ],
    *,
    index_key: Annotated[
        Path, typer.Option(metavar="FILE", help="The index key: `index.key` of a folder of keys.")
    ],
    since: Annotated[str, typer.Option(metavar="WHEN", help="A day or a time.")],
    until: Annotated[str, typer.Option(metavar="WHEN", help="Not included.")],
    vkey: Annotated[str, typer.Option(metavar="VKEY", help="The log's key.")],
    witness: Annotated[
        list[str], typer.Option(metavar="VKEY", help="Keys of those who may have cosigned it.")
    ],
    a_number: Annotated[
        str, typer.Option(metavar="A-NUMBER", help="- asks for it, unseen, or reads it.")
    ] = "-",
) -> None:
    """Show that a log has no notice for a case in a time; needs no home, no servers.

    Every record under the cosigned checkpoint is looked at. Exit 1 when there is one, or a record
    that bears no tag and so leaves it open. It shows nothing of what the log was never given.
    Example: noticebus proof absence ice-log --index-key index.key --since 2026-11-01 --until
    2026-12-01 --vkey KEY --witness KEY
    """
    from schemas.casetag import parse_index_key
    from schemas.checkpoint import Verifier
    from schemas.notice import normalise_a_number
    from services.proof.absence import search

    session = session_of(ctx)
    begin, end = moment(since), moment(until)
    if begin is None or end is None or begin >= end:
        raise session.misused("--since is before --until")
    case = normalise_a_number(unseen("A-number") if a_number == "-" else a_number)
    with session.progress("looking", unit="records") as progress:
        found = search(
            folder,
            log_keys=[Verifier.parse(vkey)],
            witnesses=[Verifier.parse(each) for each in witness],
            index_key=parse_index_key(bytes_of(index_key)),
            a_number=case,
            since=begin,
            until=end,
            progress=lambda done, total: progress.update(done, total=total),
        )
    session.emit_one(
        {
            "absent": found.absent,
            "origin": found.origin,
            "size": found.size,
            "records": found.records,
            "tagged": found.tagged,
            "since": begin,
            "until": end,
            "found": [asdict(each) for each in found.found],
            "untagged": [asdict(each) for each in found.untagged],
            "at_other_times": found.elsewhere,
            "cosigned": [
                {"name": each.verifier.name, "at": each.at} for each in found.cosignatures
            ],
        },
        schema="proof.absence",
        people=_absence(found),
    )
    if not found.absent:
        raise typer.Exit(ExitCode.FAILED)


def _absence(found: "Searched") -> list[str]:
    """Return what a search says, and what it cannot."""
    said = [
        f"{'✓ no' if not found.found else '✗ ' + str(len(found.found))} record of a notice for this"
        f" case, of {found.records:,} records of {found.origin}, {found.tagged:,} of them tagged",
        *(
            f"  record {each.index}: {each.action} {each.time:%Y-%m-%d %H:%M:%SZ}"
            f" notice {each.notice_id}"
            for each in found.found
        ),
    ]
    if found.untagged:
        said.append(
            f"✗ {len(found.untagged):,} records in that time bear no tag and may be of any case,"
            f" the first at {found.untagged[0].index}"
        )
    if found.elsewhere:
        said.append(f"  {found.elsewhere:,} records of this case are of other times")
    said += [
        f"  all of the log up to {each.at:%Y-%m-%d %H:%M:%SZ}, as {each.verifier.name} saw it"
        for each in found.cosignatures
    ]
    said.append("  times are those of the log's own clock; what it was never given is in no log")
    return said


async def _selection(
    session: Session,
    agency: "Agency",
    notice: str | None,
    office: str | None,
    since: str | None,
    until: str | None,
) -> "Selection":
    from schemas.codes import office_code
    from services.exchange.trace import resolve
    from services.proof.building import Selection

    if notice is not None:
        return Selection(notice_id=await resolve(agency.store, notice, agency=session.agency))
    return Selection(office=office_code(office or ""), since=moment(since), until=moment(until))


def _pair(session: Session, text: str) -> tuple[str, str]:
    agency, equals, fingerprint = text.partition("=")
    if not equals or not fingerprint.startswith("sha256:"):
        raise session.misused("--fingerprint is written ice=sha256:...")
    return agency, fingerprint


def _but(disputed: int) -> str:
    """Return what has to stand beside "all holds" where a signer would take something back."""
    what = "signature" if disputed == 1 else "signatures"
    return f"; DISPUTED by their signer: {disputed:,} {what}, see above" if disputed else ""


def _compare(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Return what a person still has to do: the mathematics do not know whose keys these are."""
    return [
        f"  keys of {agency}: {fingerprint}"
        + ("" if agency in expected else f"  ← compare it with what {agency} tells you itself")
        for agency, fingerprint in found.items()
    ]
