"""Show where the other agency's log contradicts itself, in every report until it is resolved."""

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.output import Column, Item
from services.cli.session import Doubtful, Session, session_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.exchange.store.conflicts import Conflict
    from services.ledger.store import Store

FIELDS = (
    "conflict_id",
    "code",
    "origin",
    "size",
    "found_at",
    "last_at",
    "times",
    "resolved_at",
    "known_note",
    "told_note",
)


def conflicts(
    ctx: typer.Context,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were resolved.")
    ] = False,
    resolve: Annotated[
        str | None, typer.Option(metavar="ID|all", help="Say that a person resolved it.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is on record.")] = "",
) -> None:
    """List what the other agency signed and cannot both be true, with both notes (-o json).

    Receipts from there on are not believed until a person resolves it. Examples:
    noticebus --agency ice ledger conflicts
    noticebus --agency ice ledger conflicts --resolve 0199 --reason "they restored a backup"
    """
    session = session_of(ctx)
    if (resolve is not None) != bool(reason):
        raise session.misused("--resolve and --reason go together")

    async def work(store: "Store") -> "Sequence[Conflict]":
        from services.exchange import conflicts as found

        if resolve is not None:
            return await found.resolve(store, resolve, actor=session.actor, reason=reason)
        return await found.listed(store, resolved=everything)

    acts = Doubtful.SAID if resolve is None else Doubtful.REFUSED
    items = session.with_store(work, doubtful=acts)
    session.emit(
        [{name: getattr(each, name) for name in FIELDS} for each in items],
        schema="ledger.conflicts",
        columns=[
            Column("conflict_id", "CONFLICT"),
            Column("code"),
            Column("origin", "LOG"),
            Column("size", "FROM RECORD", right=True),
            Column("found_at", "FOUND"),
            Column("times", right=True),
            Column("resolved_at", "RESOLVED"),
        ],
        fields=FIELDS,
        empty="Nothing that the other agency signed contradicts itself.",
    )


def conflict_line(count: int) -> str:
    """Return what every report says while something contradicts itself."""
    times = "contradicts itself" if count == 1 else f"contradicts itself in {count:,} ways"
    return f"the other agency's log {times}: noticebus ledger conflicts"


def told(session: Session) -> Item:
    """Tell people of open conflicts beside a report, and return what a document says of them."""
    from services.exchange.conflicts import listed

    found = session.with_store(listed)
    if not found:
        return {}
    session.remark(f"! {conflict_line(len(found))}")
    return {"conflicts": [{name: getattr(each, name) for name in FIELDS[:6]} for each in found]}
