"""Erase contents whose retention is over: counted first, confirmed by number, on record."""

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.session import Doubtful, session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
    from services.retention import Due, Erased


def erase(
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count alone; nothing changes.")] = (
        False
    ),
    confirm: Annotated[
        int | None, typer.Option(metavar="N", help="How many notices, as the dry run counted.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; it is on record.")
    ] = None,
) -> None:
    """Erase what closed notices say, once the policy's retention is over; it cannot be undone.

    Records, proofs and counts stay; ledger verify says how much is gone, by policy version. What is
    open, unanswered, held or set aside is never erased. Backups and archives keep their own copies.
    Example: noticebus --agency hhs db erase --dry-run
    """
    from services import retention

    session = session_of(ctx)
    if not dry_run and not (reason or "").strip():
        raise session.misused("--reason is needed, unless it is a --dry-run")

    async def look(store: "Store") -> "Due":
        return await retention.due(store, session.agency)

    found = session.with_store(look)
    said: dict[str, object] = {
        "policy": found.policy,
        "retention_days": found.days,
        "before": found.before,
        "due": found.notices,
    }
    count = f"{found.notices:,} notices are closed, and nothing happened on them since"
    words = f"{count} {found.before:%Y-%m-%d} (policy {found.policy}, {found.days:,} days)"
    if dry_run or not found.notices:
        counts = dict.fromkeys(("notices", "payloads", "envelopes", "letters", "openings"), 0)
        session.emit_one({**said, **counts, "run_id": None}, schema="db.erase", people=[words])
        return
    session.confirm_count(found.notices, "Erase for ever what is said in", "notices", confirm)
    with session.progress("erasing", unit="notices") as progress:

        async def work(store: "Store") -> "Erased":
            return await retention.erase(
                store,
                session.agency,
                found,
                actor=session.actor,
                reason=reason or "",
                progress=lambda done, total: progress.update(done, total=total),
            )

        erased = session.with_store(work, doubtful=Doubtful.REFUSED)
    counts = erased.counts.said()
    session.emit_one(
        {**said, **counts, "run_id": str(erased.run_id)},
        schema="db.erase",
        people=[
            f"✓ erased by policy {erased.policy}: {counts['payloads']:,} contents of"
            f" {counts['notices']:,} notices, {counts['envelopes']:,} encrypted messages,"
            f" {counts['openings']:,} names; records and proofs stay",
        ],
    )
