"""Show the anchor of the audit log, and adopt the store where its anchor is gone."""

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.exits import ExitCode, tell
from services.cli.session import Doubtful, Session, session_of

if TYPE_CHECKING:
    from services.ledger.anchor import Found
    from services.ledger.store import Store


def anchor(
    ctx: typer.Context,
    *,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Anchor the store as it is: its anchor is lost.")
    ] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is on record.")] = "",
) -> None:
    """Compare the store with its newest checkpoint outside it; exit 6 when it went back.

    Every checkpoint is written there after its commit and before anything leaves that rests on it.
    Examples: noticebus --agency hhs ledger anchor
    noticebus --agency hhs ledger anchor --adopt --reason "the folder was lost with its disk"
    """
    session = session_of(ctx)
    if adopt != bool(reason):
        raise session.misused("--adopt and --reason go together")
    if adopt:
        session.confirm("Anchor the store as it is now?", unattended=True)
    found = session.with_store(lambda store: _found(session, store, reason), doubtful=Doubtful.LEFT)
    error = None if adopt else found.error()
    session.emit_one(
        {
            "path": found.path,
            "state": str(found.state),
            "adopted": adopt,
            "anchor": None
            if found.anchor is None
            else {
                "origin": found.anchor.origin,
                "size": found.anchor.size,
                "root": found.anchor.root,
            },
            "store": None
            if found.head is None
            else {"origin": found.head.origin, "size": found.head.size, "root": found.head.root},
        },
        schema="ledger.anchor",
        people=_people(found, adopted=adopt),
    )
    if error is not None:
        tell(error)
        raise typer.Exit(ExitCode.INTEGRITY)


async def _found(session: Session, store: "Store", reason: str) -> "Found":
    from services.exchange.anchors import own_anchor
    from services.ledger.anchor import adopt, look

    async with store.transaction() as tx:
        file = await own_anchor(tx, session.settings)
        if not reason:
            return await look(tx, file)
    return await adopt(store, file, actor=session.actor, reason=reason)


def _people(found: "Found", *, adopted: bool) -> list[str]:
    size = f"{found.head.size:,} records" if found.head else "no record"
    if adopted:
        return [f"✓ anchored as it is, {size} · {found.path}"]
    outside = f"{found.anchor.size:,} records" if found.anchor else "nothing"
    mark = "✓" if found.error() is None else "✗"
    return [
        f"{mark} {found.state}: {outside} anchored, {size} in the store · {found.path}",
        *(
            f"  {where}: {' · '.join(point.text().splitlines())}"
            for where, point in (("anchored", found.anchor), ("store", found.head))
            if point is not None
        ),
    ]
