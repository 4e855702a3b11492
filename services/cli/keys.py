"""Make, show and rotate our keys; private halves never leave their folder."""

from typing import TYPE_CHECKING

import typer

from services.cli.everywhere import noun
from services.cli.output import Column
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.keys import KeyRing

app = noun("Make, show and rotate our keys.")

COLUMNS = [Column("use"), Column("algorithm"), Column("key_id", "KEY"), Column("state")]


@app.command()
def generate(ctx: typer.Context) -> None:
    """Make the keys of our agency; where some are already, nothing is touched."""
    from services.keys import KeyRing

    session = session_of(ctx)
    settings = session.settings
    ring = KeyRing.generate(settings.keys_folder, settings.domain, settings.agency)
    _emit(session, ring, "keys.generate")
    session.remark(f"keys of {settings.agency} in {settings.keys_folder}; back them up")


@app.command()
def show(ctx: typer.Context) -> None:
    """List our keys by their public names."""
    from services.keys import KeyRing

    session = session_of(ctx)
    _emit(session, KeyRing.load(session.settings.keys_folder), "keys.list")


@app.command()
def rotate(ctx: typer.Context) -> None:
    """Make a new signing key and sign with it from now on; old signatures stay valid.

    The other agency refuses what the new key signs until it trusts our new party file, and takes
    the same messages once it does.
    """
    from services.keys import KeyRing
    from services.ledger.records import make_record
    from services.ledger.store import append

    session = session_of(ctx)
    session.confirm("Sign with a new key from now on?", unattended=True)

    async def publish(agency: "Agency") -> None:
        from datetime import UTC, datetime

        record = make_record(
            "keys.rotated",
            time=datetime.now(UTC),
            actor=session.actor,
            detail={"kid": agency.ring.signing.kid},
        )
        async with agency.store.transaction() as tx:
            await append(tx, [record])

    with session.attached():
        ring = KeyRing.rotate(session.settings.keys_folder)
        # Opening the agency puts the new party file on record, and running processes take it up.
        session.with_agency(publish)
    _emit(session, ring, "keys.rotate")
    session.remark(
        "  next: noticebus party export FILE, and at the other agency noticebus party trust FILE"
    )


def _emit(session: Session, ring: "KeyRing", schema: str) -> None:
    rows: list[dict[str, object]] = []
    for use, algorithm, kids in (
        ("signing", "ES256, P-256", [key.kid for key in ring.signing_keys]),
        ("encryption", "ECDH-ES, P-256", [key.kid for key in ring.encryption_keys]),
    ):
        rows += [
            {"use": use, "algorithm": algorithm, "key_id": kid, "state": state}
            for kid, state in zip(kids, ["newest", *["older"] * len(kids)], strict=False)
        ]
    rows.append(
        {
            "use": "log",
            "algorithm": "Ed25519",
            "key_id": ring.log_key.verifier.vkey(),
            "state": "newest",
        }
    )
    rows.append(
        {
            "use": "cosigner",
            "algorithm": "Ed25519",
            "key_id": ring.cosigner.name,
            "state": "newest",
        }
    )
    session.emit(rows, schema=schema, columns=COLUMNS, empty="")
