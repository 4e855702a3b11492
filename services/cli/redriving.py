"""How dead letters are chosen and redriven from the command line: look first, confirm, watch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from services.cli.exits import ExitCode
from services.cli.output import Column, names_of
from services.cli.session import Session

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.exchange.forecast import Forecast
    from services.exchange.store.redrives import Chosen, RedriveRow

CauseOption = Annotated[str | None, typer.Option(help="Only this cause.", metavar="NB-nnnn")]
GroupOption = Annotated[
    str | None, typer.Option(metavar="GROUP", help="Only this group; `dead list` names them.")
]
OfficeOption = Annotated[str | None, typer.Option(metavar="AOR", help="Only this office.")]
LaneOption = Annotated[
    str | None, typer.Option(metavar="live|backlog", help="Only what came on this lane.")
]
ConfirmOption = Annotated[
    int | None, typer.Option(metavar="N", help="How many, where nobody can type the number.")
]
FAILED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of a redrive, with what failed again and why."""

    order: "RedriveRow"
    failures: Sequence[tuple[str, str | None, int]]
    letters: Sequence[tuple[UUID, str | None, str]]


def chosen(
    *,
    state: str | None,
    cause: str | None,
    group: str | None,
    office: str | None,
    lane: str | None,
    since: datetime | None,
    until: datetime | None,
) -> "Chosen":
    """Return which dead letters are meant."""
    from services.exchange.dead import Chosen

    return Chosen(
        state=state, cause=cause, group=group, office=office, lane=lane, since=since, until=until
    )


def letters_of(session: Session, ids: Sequence[str], chosen: "Chosen") -> list[UUID]:
    """Return the dead letters that are named, or else chosen, in the order of trying."""
    from services.exchange import dead, redrive

    async def work(agency: "Agency") -> list[UUID]:
        if ids:
            named = [(await dead.show(agency, each)).letter.dead_id for each in ids]
            return list(dict.fromkeys(named))
        return await redrive.chosen(agency, chosen)

    return session.with_agency(work)


def redrive(
    session: Session,
    letters: Sequence[UUID],
    reason: str,
    *,
    rate: int | None,
    confirm: int | None,
    dry_run: bool,
) -> None:
    """Show what a redrive would do, have it confirmed, and do it."""
    if not letters:
        from services.exchange.store.redrives import RedriveRow

        session.emit(
            [],
            schema="dead.redrive",
            columns=[],
            fields=names_of(RedriveRow, "failures", "failed_letters"),
            empty="No open dead letter fits.",
        )
        return
    if dry_run or len(letters) > 1:
        expected = _forecast(session, letters)
        session.remark(*_preview(expected))
        if dry_run:
            session.emit(
                [asdict(each) for each in expected.expected],
                schema="dead.forecast",
                columns=[Column("dead_id", "DEAD LETTER"), Column("outcome"), Column("cause")],
                empty="",
            )
            return
        session.confirm_count(len(letters), "Redrive", "dead letters", confirm)

    async def order(agency: "Agency") -> UUID:
        from services.exchange import redrive as redrives

        return await redrives.begin(agency, letters, actor=session.actor, reason=reason, rate=rate)

    _run(session, session.with_agency(order), total=len(letters))


def go_on(session: Session, text: str) -> None:
    """Go on with a redrive that was interrupted; one that is done only says what came of it."""

    async def work(agency: "Agency") -> "RedriveRow":
        from services.exchange import redrive as redrives

        return await redrives.find(agency, text)

    found = session.with_agency(work)
    _run(session, found.redrive_id, total=found.asked)


def _forecast(session: Session, letters: Sequence[UUID]) -> "Forecast":
    from services.cli.effects import delivery_for
    from services.exchange.forecast import forecast

    with session.progress("looking", unit="messages", total=len(letters)) as progress:

        async def work(agency: "Agency") -> "Forecast":
            return await forecast(delivery_for(agency), letters, progress=progress.update)

        return session.with_agency(work)


def _preview(expected: "Forecast") -> list[str]:
    words = {
        "taken": "pass every check and would be taken",
        "held": "would wait for an earlier revision",
        "failed": "would fail again",
        "passed": "were taken or corrected meanwhile",
    }
    lines = [f"Would redrive {expected.letters:,}"]
    lines += [
        f"  {count:>8,} {words[outcome]}" for outcome, count in expected.outcomes.most_common()
    ]
    lines += [f"  {count:>8,} x {cause}" for cause, count in expected.causes.most_common()]
    return lines


def _run(session: Session, redrive_id: UUID, *, total: int) -> None:
    from services.cli.effects import delivery_for
    from services.exchange import redrive as redrives

    again = f"go on with: noticebus --agency {session.agency} dead redrive --resume {redrive_id}"
    with session.progress("redriving", unit="messages", total=total, again=again) as progress:

        def told(order: "RedriveRow") -> None:
            done = order.taken + order.held + order.failed + order.passed
            note = f"failed again {order.failed:,}" if order.failed else None
            progress.update(done, note=note)

        async def work(agency: "Agency") -> _Done:
            order = await redrives.run(delivery_for(agency), redrive_id, progress=told)
            failures, letters = await redrives.failed(agency, redrive_id, limit=FAILED_MAX)
            return _Done(order, failures, letters)

        done = session.with_agency(work)
    _emit(session, done)
    if done.order.failed:
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _emit(session: Session, done: _Done) -> None:
    order = done.order
    session.emit_one(
        {
            **asdict(order),
            "failures": [
                {"group_id": group_id, "cause": cause, "count": count}
                for group_id, cause, count in done.failures
            ],
            "failed_letters": [
                {"dead_id": dead_id, "cause": cause, "group_id": group_id}
                for dead_id, cause, group_id in done.letters
            ],
        },
        schema="dead.redrive",
        people=[
            f"{'✗' if order.failed else '✓'} redrive {order.redrive_id}",
            f"  {order.taken:,} taken, "
            f"{order.held:,} held, {order.failed:,} failed again, {order.passed:,} needed nothing",
            *(
                f"  {count:>8,} x {cause}  noticebus dead list --group {group_id}"
                for group_id, cause, count in done.failures
            ),
        ],
    )
