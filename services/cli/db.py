"""Migrate the store."""

import typer

from services.cli.everywhere import noun
from services.cli.session import session_of

app = noun("Migrate the store.")


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
