"""Make, list and revoke the tokens by which inspectors read the records over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.everywhere import noun
from services.cli.output import Column
from services.cli.session import Doubtful, session_of

if TYPE_CHECKING:
    from services.ledger.access import Made
    from services.ledger.store import Store
    from services.ledger.store.access import Token

app = noun("Let inspectors read the records over HTTP, for a time.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="For whom or what it is; not a secret.")
]


@app.command()
def create(
    ctx: typer.Context,
    name: NameArgument,
    *,
    days: Annotated[int, typer.Option(min=1, max=366, help="How long it is valid.")] = 30,
) -> None:
    """Make a token for an inspector; its secret is shown now and never again.

    Example: noticebus --agency hhs token create inspector-general --days 7
    """
    from services.ledger import access

    session = session_of(ctx)

    async def work(store: "Store") -> "Made":
        return await access.create(store, name, lifetime=timedelta(days=days), actor=session.actor)

    made = session.with_store(work, doubtful=Doubtful.REFUSED)
    session.emit_one(
        {"name": made.name, "secret": made.secret, "expires_at": made.expires_at},
        schema="token.create",
        people=[made.secret],
    )
    session.remark(
        f"token of {made.name}, valid until {made.expires_at:%Y-%m-%d %H:%MZ}; keep it now",
        '  next: curl -H "Authorization: Bearer TOKEN" http://HOST:PORT/log/tile/entries/000',
    )


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List tokens, without their secrets."""
    from services.ledger.store import access

    session = session_of(ctx)

    async def work(store: "Store") -> "list[Token]":
        async with store.glance() as look:
            return await access.listed(look)

    now = datetime.now(UTC)
    session.emit(
        [
            {
                "name": token.name,
                "role": token.role,
                "state": _state(token, now),
                "created_at": token.created_at,
                "expires_at": token.expires_at,
                "revoked_at": token.revoked_at,
            }
            for token in session.with_store(work)
        ],
        schema="token.list",
        columns=[
            Column("name"),
            Column("role"),
            Column("state"),
            Column("created_at", "SINCE"),
            Column("expires_at", "UNTIL"),
        ],
        fields=("name", "role", "state", "created_at", "expires_at", "revoked_at"),
        empty="No token yet: nobody reads records over HTTP.",
    )


@app.command()
def revoke(ctx: typer.Context, name: NameArgument) -> None:
    """End a token at once."""
    from services.ledger import access

    session = session_of(ctx)

    async def work(store: "Store") -> None:
        await access.revoke(store, name, actor=session.actor)

    # Whoever is to be kept out is kept out, whatever is wrong with the store.
    session.with_store(work)
    session.emit_one(
        {"name": name, "state": "revoked"}, schema="token.revoke", people=[f"revoked: {name}"]
    )


def _state(token: "Token", now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at <= now else "valid"
