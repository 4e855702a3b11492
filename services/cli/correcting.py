"""Correct notices that were sent, one or a file of them; the difference is shown first."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.notice import mask_a_number
from services.cli.asking import object_from_standard_input, unseen
from services.cli.exits import ExitCode, say
from services.cli.output import Column
from services.cli.redriving import ConfirmOption
from services.cli.session import Session, session_of
from services.cli.writing import (
    ANumberOption,
    BirthDateOption,
    CourtOption,
    HearingOption,
    NameOption,
    OfficeOption,
    OutcomeOption,
)

if TYPE_CHECKING:
    from services.ice.docket.rejects import Reject
    from services.ice.notices import Change, Correction, Decision
    from services.ice.notices.bulk import Looked
    from services.ledger.store import Store

ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", metavar="CODE", help="Of the closed list; a wrong one is explained."),
]
WITHHELD = "•••"


def correct(
    ctx: typer.Context,
    *,
    notice: Annotated[
        str | None, typer.Argument(metavar="NOTICE", help="Its id, or the beginning of it.")
    ] = None,
    reason: ReasonOption = None,
    a_number: ANumberOption = None,
    given_name: NameOption = None,
    family_name: NameOption = None,
    birth_date: BirthDateOption = None,
    hearing: HearingOption = None,
    court: CourtOption = None,
    office: OfficeOption = None,
    outcome: OutcomeOption = None,
    outcome_at: Annotated[
        str | None, typer.Option(metavar="DATE", help="The day of that outcome.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Many: columns notice, reason and fields; - empties one."),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Where rows go that cannot be used.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference; send nothing.")
    ] = False,
    confirm: ConfirmOption = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="The child's identity too; that is on record.")
    ] = False,
) -> None:
    """Correct a notice that was sent: flags, or one JSON object on standard input.

    Shows the difference first. What is not named stays as it was; null takes a field back. With
    --file a thousand at once: exit 5 when rows were rejected, a second run sends nothing twice.
    Example: noticebus notice correct 0193 --reason DATA_ENTRY --birth-date 2011-03-04
    """
    session = session_of(ctx, needed="ice")
    flags = {
        "a_number": a_number,
        "given_name": given_name,
        "family_name": family_name,
        "birth_date": birth_date,
        "hearing": hearing,
        "court": court,
        "office": office,
        "outcome": outcome,
        "outcome_at": outcome_at,
    }
    written: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if (notice is None) == (file is None) or (file is not None and written):
        raise session.misused("name one notice, or a file with --file and no fields beside it")
    if file is not None:
        _correct_all(session, file, reason, rejects, dry_run=dry_run, confirm=confirm)
        return
    if reason is None:
        raise session.misused("--reason is needed: it goes to HHS")
    if not written:
        written = object_from_standard_input("correction")
    elif a_number == "-":
        written["a_number"] = unseen("A-number")
    assert notice is not None
    _correct_one(session, notice, written, reason.upper(), dry_run=dry_run, reveal=reveal)


def withdraw(
    ctx: typer.Context,
    notice: Annotated[
        str, typer.Argument(metavar="NOTICE", help="Its id, or the beginning of it.")
    ],
    *,
    reason: Annotated[
        str, typer.Option(metavar="CODE", help="Of the closed list; a wrong one is explained.")
    ],
) -> None:
    """Take back a notice that was sent; HHS takes its case off the queue.

    Example: noticebus notice withdraw 0193 --reason DUPLICATE
    """
    from services.ice import notices

    session = session_of(ctx, needed="ice")
    session.confirm("Withdraw this notice at HHS?")

    async def work(store: "Store") -> "Decision":
        notice_id = await notices.resolve(store, notice)
        return await notices.withdraw(store, notice_id, reason=reason.upper(), actor=session.actor)

    decision = session.with_store(work, sends=True)
    before = " before" if decision.already else ""
    session.emit_one(
        {
            "notice_id": decision.item.notice_id,
            "state": decision.item.state,
            "revision": decision.item.revision,
            "decision": decision.decision,
            "message_id": decision.message_id,
            "already": decision.already,
        },
        schema="notice.withdraw",
        people=[f"Withdrawn{before}: {decision.item.notice_id}"],
    )


def _correct_one(
    session: Session,
    notice: str,
    written: dict[str, Any],
    reason: str,
    *,
    dry_run: bool,
    reveal: bool,
) -> None:
    from services.ice import notices

    async def look(store: "Store") -> "Correction":
        notice_id = await notices.resolve(store, notice)
        return await notices.propose(
            store, notice_id, written, reason=reason, actor=session.actor, reveal=reveal
        )

    correction = session.with_store(look)
    say(*_difference(correction, reveal=reveal))
    if not (dry_run or correction.already):
        session.confirm("Send this correction to HHS?")

        async def work(store: "Store") -> "Correction":
            return await notices.correct(
                store, correction.item.notice_id, written, reason=reason, actor=session.actor
            )

        correction = session.with_store(work, sends=True)
    session.emit_one(
        _item(correction, reveal=reveal),
        schema="notice.correct",
        people=_outcome(correction, dry_run=dry_run),
    )


def _correct_all(
    session: Session,
    file: Path,
    reason: str | None,
    rejects: Path | None,
    *,
    dry_run: bool,
    confirm: int | None,
) -> None:
    from services.ice.docket.rejects import write_rejects
    from services.ice.notices import bulk

    rows, unreadable = bulk.read(file, reason=reason)
    with session.progress("looking", unit="rows", total=len(rows)) as progress:

        async def look(store: "Store") -> "list[Looked]":
            return await bulk.look(store, file, rows, actor=session.actor, progress=progress.update)

        looked = session.with_store(look)
    bad = [*unreadable, *(each.reject for each in looked if each.reject is not None)]
    target = (rejects or session.settings.agency_home / "rejects.csv").absolute()
    if bad:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_rejects(target, sorted(set(bad)))
    changes = sum(each.outcome == "change" for each in looked)
    already = sum(each.outcome == "already" for each in looked)
    session.remark(*_summary(looked, bad, changes, already))
    sent: list[Correction] = []
    if changes and not dry_run:
        session.confirm_count(changes, "Send", "corrections", confirm)

        def rejected(reject: "Reject") -> None:
            # The file is whole after each row: an outage further on takes none of it away.
            bad.append(reject)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_rejects(target, sorted(set(bad)))

        with session.progress("correcting", unit="rows", total=changes) as progress:

            async def work(store: "Store") -> "list[Correction]":
                return await bulk.apply(
                    store,
                    file,
                    looked,
                    actor=session.actor,
                    rejected=rejected,
                    progress=progress.update,
                )

            sent = session.with_store(work, sends=True)
    if dry_run:
        _emit_rows(session, looked, bad)
    else:
        session.emit_one(
            {
                "rows": len(rows) + len(unreadable),
                "corrected": len(sent),
                "already": already,
                "rejected": len(bad),
                "rejects": target if bad else None,
                "message_ids": [each.message_id for each in sent],
            },
            schema="notice.corrections",
            people=[
                f"{'✗' if bad else '✓'} {len(sent):,} corrected, {already:,} said so already, "
                f"{len(bad):,} rejected" + (f", see {target}" if bad else "")
            ],
        )
    if bad:
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _emit_rows(session: Session, looked: "list[Looked]", bad: "list[Reject]") -> None:
    rejected = {each.line: each for each in bad}
    items = [
        {
            "line": each.row.line,
            "outcome": each.outcome,
            "notice_id": each.correction.item.notice_id,
            "changes": [_change(change, reveal=False) for change in each.correction.changes],
            "differs": ", ".join(
                f"{one.field}: {_shown(one, one.before)} → {_shown(one, one.after)}"
                for one in each.correction.changes
            ),
            "code": None,
            "fix": None,
        }
        for each in looked
        if each.correction is not None
    ]
    items += [
        {
            "line": line,
            "outcome": "rejected",
            "notice_id": None,
            "changes": [],
            "differs": each.column,
            "code": each.code,
            "fix": each.fix,
        }
        for line, each in rejected.items()
    ]
    session.emit(
        sorted(items, key=lambda item: int(str(item["line"]))),
        schema="notice.corrections_expected",
        columns=[
            Column("line", right=True),
            Column("outcome"),
            Column("notice_id", "NOTICE"),
            Column("differs", "DIFFERENCE"),
            Column("code"),
            Column("fix", "WHAT TO DO"),
        ],
        fields=("line", "outcome", "notice_id", "changes", "differs", "code", "fix"),
        empty="The file has no row.",
    )


def _summary(looked: "list[Looked]", bad: "list[Reject]", changes: int, already: int) -> list[str]:
    lines = [
        f"Would correct {changes:,} notices",
        f"  {already:>8,} say so already",
        f"  {len(bad):>8,} rejected",
    ]
    codes: dict[tuple[str, str], list[int]] = {}
    for each in bad:
        codes.setdefault((each.code, each.column), []).append(each.line)
    for (code, column), where in sorted(codes.items(), key=lambda group: -len(group[1])):
        named = ", ".join(str(line) for line in where[:5]) + (" …" if len(where) > 5 else "")
        lines.append(f"  {len(where):>8,} x {code} {column}  lines {named}")
    fields: dict[str, int] = {}
    for one in looked:
        for change in one.correction.changes if one.correction else ():
            fields[change.field] = fields.get(change.field, 0) + 1
    lines += [f"  {count:>8,} change {name}" for name, count in sorted(fields.items())]
    return lines


def _difference(correction: "Correction", *, reveal: bool) -> list[str]:
    item = correction.item
    lines = [f"notice {item.notice_id}  child {item.child}  office {item.office}"]
    for change in correction.changes:
        lines.append(f"- {change.field}: {_shown(change, change.before, reveal=reveal)}")
        lines.append(f"+ {change.field}: {_shown(change, change.after, reveal=reveal)}")
    return lines


def _shown(change: "Change", value: Any, *, reveal: bool = False) -> str:
    """Return a value for people; who the child is only if that was asked for."""
    if value is None:
        return "(not said)"
    if change.field == "a_number" and not reveal:
        return mask_a_number(value)
    if change.personal and not reveal:
        return WITHHELD
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _change(change: "Change", *, reveal: bool) -> dict[str, object]:
    return {
        "field": change.field,
        "before": _shown(change, change.before, reveal=reveal),
        "after": _shown(change, change.after, reveal=reveal),
    }


def _item(correction: "Correction", *, reveal: bool) -> dict[str, object]:
    return {
        **asdict(correction.item),
        "message_id": correction.message_id,
        "cause": correction.cause,
        "already": correction.already,
        "changes": [_change(change, reveal=reveal) for change in correction.changes],
    }


def _outcome(correction: "Correction", *, dry_run: bool) -> list[str]:
    notice_id = correction.item.notice_id
    if correction.already:
        return [f"Said so already: {notice_id}; nothing was sent."]
    if dry_run:
        return [f"Would correct {notice_id}; nothing was sent."]
    return [
        f"Corrected {notice_id}, revision {correction.item.revision}",
        f"  next: noticebus --agency ice notice trace {notice_id}",
    ]
