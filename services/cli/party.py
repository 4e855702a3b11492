"""Exchange party files: the public half of an agency, trusted by its fingerprint.

The two keepers compare fingerprints by telephone; what is trusted, by whom and when is on record.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConflictError, NotFoundError
from services.cli.asking import bytes_of
from services.cli.everywhere import noun
from services.cli.output import Column, emit_text
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.exchange.store.parties import PartyRow

app = noun("Exchange party files: who signs and reads for whom.")


@app.command()
def export(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Else standard output.")
    ] = None,
) -> None:
    """Write our party file, for the other agency; its fingerprint goes to standard error."""
    session = session_of(ctx)
    own = next(
        (row for row in _rows(session) if row.agency == session.agency and _current(row)), None
    )
    if own is None:
        raise NotFoundError("NB-4010")
    if file is None:
        emit_text(own.party.decode("utf-8"))
    else:
        if file.exists() and file.read_bytes() != own.party and not session.given.yes:
            raise ConflictError("NB-7013", path=file)
        file.write_bytes(own.party)
    session.remark(
        f"party file of {session.agency}, fingerprint {own.fingerprint}",
        f"  next: at the other agency, noticebus party trust FILE --fingerprint {own.fingerprint}",
    )


@app.command()
def trust(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other agency's party file.")],
    fingerprint: Annotated[
        str | None,
        typer.Option(metavar="sha256:HEX", help="As its keeper told it; else you are asked."),
    ] = None,
) -> None:
    """Trust the other agency's party file, after comparing its fingerprint with its keeper."""
    from schemas.party import Party
    from schemas.party import fingerprint as fingerprint_of
    from services.exchange import parties

    session = session_of(ctx)
    text = bytes_of(file)
    # A file that is none must not be shown as if it could be trusted.
    party = Party.from_bytes(text)
    expected = fingerprint
    if expected is None:
        found = fingerprint_of(text)
        session.remark(f"party file of {party.agency}, {party.domain}", f"  fingerprint {found}")
        session.confirm("Did its keeper tell you this fingerprint?")
        expected = found

    async def work(agency: "Agency") -> bool:
        async with agency.store.transaction() as tx:
            return await parties.trust(
                tx,
                text,
                peer=agency.peer,
                expected_fingerprint=expected.strip(),
                actor=session.actor,
            )

    new = session.with_agency(work)
    for each in party.revoked or ():
        session.remark(
            f"{party.agency} revokes its key {each.kid} and says that others had it since"
            f" {each.at:%Y-%m-%d %H:%M:%SZ}",
            "  what it signed is refused from now on; `noticebus ledger verify` tells what still"
            " counts, and what it would take back",
        )
    session.emit_one(
        {"agency": party.agency, "fingerprint": fingerprint_of(text), "new": new},
        schema="party.trust",
        people=[
            f"{'now trusted' if new else 'trusted already'}: {party.agency} {fingerprint_of(text)}"
        ],
    )


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List party files: ours, and those of the other agency that were trusted."""
    session = session_of(ctx)
    session.emit(
        [
            {
                "agency": row.agency,
                "status": row.status,
                "fingerprint": row.fingerprint,
                "trusted_at": row.trusted_at,
            }
            for row in _rows(session)
        ],
        schema="party.list",
        columns=[
            Column("agency"),
            Column("status"),
            Column("fingerprint"),
            Column("trusted_at", "SINCE"),
        ],
        empty="No party file yet. Make keys first: noticebus keys generate",
    )


def _rows(session: Session) -> "list[PartyRow]":
    from services.exchange import parties

    async def work(agency: "Agency") -> "list[PartyRow]":
        async with agency.store.transaction() as tx:
            return await parties.listed(tx)

    return session.with_agency(work)


def _current(row: "PartyRow") -> bool:
    return row.status == "current"
