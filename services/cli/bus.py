"""Look at streams, groups and the exchange: what waits where, who reads it, and what is missing."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConflictError, RejectedError
from services.cli import output
from services.cli.conflicts import conflict_line
from services.cli.everywhere import Output, noun
from services.cli.output import Column, names_of, readable
from services.cli.report import span
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.bus.status import ConsumerStatus, GroupStatus
    from services.exchange.agency import Agency
    from services.exchange.consumers import Removal
    from services.exchange.refill import Refilled, Survey
    from services.exchange.seen import Seen
    from services.exchange.store.standing import Standing

app = noun("Look at streams, groups and the exchange; put back what the bus lost.")

STREAM_COLUMNS = [
    Column("stream"),
    Column("direction"),
    Column("length", right=True),
    Column("lag", right=True),
    Column("pending", right=True),
    Column("oldest_pending_at", "OLDEST PENDING"),
    Column("consumers", "READERS", right=True),
]
GROUP_COLUMNS = [
    Column("stream"),
    Column("group"),
    Column("entries", right=True),
    Column("lag", right=True),
    Column("pending", right=True),
    Column("oldest", "OLDEST", right=True),
    Column("last_delivered_id", "LAST DELIVERED"),
    Column("readers"),
    Column("wrong", "WHAT IS WRONG"),
]
REBUILD_COLUMNS = [
    Column("stream"),
    Column("entries", right=True),
    Column("belong", right=True),
    Column("missing", right=True),
    Column("without_bytes", "VOID", right=True),
    Column("other", right=True),
    Column("unsent", right=True),
    Column("read", "GROUP THERE"),
]


@app.command()
def status(ctx: typer.Context) -> None:
    """Show what is unsent, unanswered, late, missing or set aside, and each stream."""
    from services.exchange.seen import look

    session = session_of(ctx)
    seen = session.with_agency(look, bus=True)
    streams = stream_rows(seen)
    item = {
        "agency": session.agency,
        **asdict(seen.standing),
        "streams": streams,
    }
    session.emit_one(item, schema="bus.status", people=_people(session.agency, seen.standing))
    if output.chosen(session.given.output) is Output.TABLE:
        output.emit_text("")
        session.emit(streams, schema="bus.streams", columns=STREAM_COLUMNS, empty="")


@app.command()
def groups(
    ctx: typer.Context,
    *,
    remove_idle: Annotated[
        bool,
        typer.Option(
            "--remove-idle", help="Remove our consumers that nobody uses; what they hold goes on."
        ),
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(
            min=1, metavar="SECONDS", help="Idle is who asked for nothing so long; else by setting."
        ),
    ] = None,
) -> None:
    """List each stream's consumer groups: how far, what is pending, who reads, and what is wrong.

    Example: noticebus --agency hhs bus groups
    """
    from services.exchange.seen import look

    session = session_of(ctx)
    if remove_idle:
        _remove_idle(session, idle)
        return
    if idle is not None:
        raise session.misused("--idle goes with --remove-idle")
    seen = session.with_agency(look, bus=True)
    rows = _groups(session, seen)
    if output.chosen(session.given.output) is Output.TABLE:
        rows = [_for_people(row) for row in rows]
    session.emit(
        rows,
        schema="bus.groups",
        columns=GROUP_COLUMNS,
        fields=GROUP_FIELDS,
        empty="There is no stream yet.",
    )


@app.command()
def rebuild(
    ctx: typer.Context,
    *,
    stream: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this stream of ours; repeatable.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; it is on record. Without it nothing is done.")
    ] = None,
    confirm: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The number of messages that is missing.")
    ] = None,
) -> None:
    """Show what is missing on the bus, and with --reason put it there from the store.

    It happens by itself within seconds while our processes run; this is for who will not wait, and
    for when none runs. Example: noticebus --agency ice bus rebuild --reason "new Redis" --confirm 9
    """
    session = session_of(ctx)
    if confirm is not None and not reason:
        raise session.misused("--confirm goes with --reason")
    only = stream or []
    surveys = session.with_agency(lambda agency: _survey(agency, only), bus=True)
    missing = sum(each.missing for each in surveys)
    if not missing or not reason:
        _show_rebuild(session, surveys, None)
        if missing:
            session.remark(
                f"Nothing was done. next: noticebus bus rebuild --reason WHY --confirm {missing}"
            )
        return
    confirmed = _confirmed(missing, confirm)
    with session.progress("publishing", unit="messages", total=missing) as progress:

        async def work(agency: "Agency") -> "Refilled":
            from services.bus import Publisher
            from services.exchange.refill import refill

            settings = agency.settings
            url = settings.redis_url_required
            async with Publisher.open(url, settings=settings.bus) as publisher:
                return await refill(
                    agency,
                    publisher,
                    only=only,
                    confirm=confirmed,
                    actor=session.actor,
                    reason=reason,
                    progress=progress.update,
                )

        done = session.with_agency(work, bus=True)
    _show_rebuild(session, surveys, done)


def stream_rows(seen: "Seen") -> list[dict[str, object]]:
    """Return one row a stream and group; a stream nobody reads yet has a row of its own."""
    rows: list[dict[str, object]] = []
    for direction, names in (("out", seen.outgoing), ("in", seen.incoming)):
        for name in names:
            found = [group for group in seen.groups if group.stream == name]
            rows += [_row(direction, group, seen) for group in found] or [_unread(direction, name)]
    return rows


def _groups(session: Session, seen: "Seen") -> list[dict[str, object]]:
    """Return one row a stream and group, and one for each stream that has none."""
    from services.exchange import troubles

    settings = session.settings
    claim = settings.bus.claim_idle_seconds
    rows: list[dict[str, object]] = []
    for direction, reader, names in (
        ("out", settings.peer, seen.outgoing),
        ("in", settings.agency, seen.incoming),
    ):
        for name in names:
            found = [group for group in seen.groups if group.stream == name]
            wrong = troubles.of_stream(
                found,
                reader=reader,
                entries=seen.lengths.get(name),
                belong=seen.belong.get(name, 0),
            )
            if not found:
                rows.append(_group_row(name, direction, None, seen.lengths.get(name), wrong))
            for group in found:
                living = [each.name for each in group.consumers if seen.alive(group, each)]
                also = troubles.of_group(
                    group,
                    living=living,
                    ours=group.group == settings.agency,
                    claim_idle_seconds=claim,
                )
                rows.append(
                    _group_row(name, direction, group, group.length, [*wrong, *also], living)
                )
                wrong = []
    return rows


# What `_group_row` returns, in its order.
GROUP_FIELDS = (
    *("stream", "direction", "group", "entries", "lag", "pending", "oldest_pending_id"),
    *("oldest_pending_at", "oldest_pending_age_seconds", "oldest_pending_deliveries"),
    *("last_delivered_id", "consumers", "wrong"),
)


def _group_row(
    stream: str,
    direction: str,
    group: "GroupStatus | None",
    entries: int | None,
    wrong: Sequence[str],
    living: Sequence[str] = (),
) -> dict[str, object]:
    from services.exchange.troubles import entered_at

    at = entered_at(group.oldest_pending_id) if group else None
    age = None if at is None else max(0.0, (datetime.now(UTC) - at).total_seconds())
    return {
        "stream": stream,
        "direction": direction,
        "group": group.group if group else None,
        "entries": entries,
        "lag": group.lag if group else None,
        "pending": group.pending if group else None,
        "oldest_pending_id": group.oldest_pending_id if group else None,
        "oldest_pending_at": at,
        "oldest_pending_age_seconds": None if age is None else round(age, 3),
        "oldest_pending_deliveries": group.oldest_delivered if group else None,
        "last_delivered_id": group.last_delivered_id if group else None,
        "consumers": [_consumer(each, living) for each in group.consumers] if group else [],
        "wrong": list(wrong),
    }


def _consumer(consumer: "ConsumerStatus", living: Sequence[str]) -> dict[str, object]:
    return {
        "name": consumer.name,
        "pending": consumer.pending,
        "idle_seconds": consumer.idle_seconds,
        "alive": consumer.name in living,
    }


def _for_people(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row with its ages and readers in words."""
    age, consumers, wrong = (
        row[name] for name in ("oldest_pending_age_seconds", "consumers", "wrong")
    )
    assert isinstance(consumers, list)
    assert isinstance(wrong, list)
    return {
        **row,
        "oldest": span(age) if isinstance(age, float) else None,
        "readers": ", ".join(
            f"{each['name']}{'' if each['alive'] else ' (not alive)'}"
            f" idle {span(each['idle_seconds'])}"
            + (f" holds {each['pending']:,}" if each["pending"] else "")
            for each in consumers
        ),
        "wrong": "; ".join(wrong) or "nothing",
    }


def _remove_idle(session: Session, idle: float | None) -> None:
    from services.exchange.consumers import Removal

    async def work(agency: "Agency") -> "list[Removal]":
        from services.exchange.consumers import remove_idle
        from services.exchange.process import incoming_streams

        seconds = agency.settings.bus.consumer_idle_seconds if idle is None else idle
        return await remove_idle(
            agency,
            incoming_streams(agency),
            idle_seconds=seconds,
            hand_over=True,
            actor=session.actor,
        )

    session.emit(
        [
            {**asdict(each), "removed": each.kept is None}
            for each in session.with_agency(work, bus=True)
        ],
        schema="bus.consumers",
        columns=[
            Column("stream"),
            Column("consumer"),
            Column("removed"),
            Column("idle_seconds", "IDLE S", right=True),
            Column("handed_over", "HANDED OVER", right=True),
            Column("to"),
            Column("kept", "WHY IT STAYS"),
        ],
        fields=names_of(Removal, "removed"),
        empty="No consumer of ours has been idle for so long.",
    )


async def _survey(agency: "Agency", only: Sequence[str]) -> "list[Survey]":
    from services.bus import Publisher
    from services.exchange.refill import survey

    settings = agency.settings
    async with Publisher.open(settings.redis_url_required, settings=settings.bus) as publisher:
        return await survey(agency, publisher, only=only)


def _confirmed(missing: int, confirm: int | None) -> int:
    """Return the number that a person confirmed; typed on a terminal if it was not given.

    Raises `ConflictError` NB-5024 when more is missing than that, or another number was typed.
    """
    if confirm is not None:
        if confirm < missing:
            raise ConflictError("NB-5024", confirm=confirm, missing=missing)
        return confirm
    if not sys.stdin.isatty():
        raise RejectedError("NB-5028", missing=missing)
    question = f"{missing:,} messages would be published again. Type that number"
    typed: int = typer.prompt(question, type=int, err=True)
    if typed != missing:
        raise ConflictError("NB-5024", confirm=typed, missing=missing)
    return typed


def _show_rebuild(session: Session, surveys: "Sequence[Survey]", done: "Refilled | None") -> None:
    shown = surveys if done is None else done.after
    streams = [_rebuild_row(each) for each in shown]
    missing = sum(each.missing for each in surveys)
    session.emit_one(
        {
            "agency": session.agency,
            "done": done is not None,
            "missing_before": missing,
            "missing": sum(each.missing for each in shown),
            "published": done.asked if done else 0,
            "void": done.void if done else 0,
            "published_by": None if done is None else "this command" if done.by_us else "a process",
            "streams": streams,
        },
        schema="bus.rebuild",
        people=_rebuild_people(missing, surveys, done),
    )
    if output.chosen(session.given.output) is Output.TABLE:
        output.emit_text("")
        session.emit(streams, schema="bus.streams", columns=REBUILD_COLUMNS, empty="")


def _rebuild_people(
    missing: int, surveys: "Sequence[Survey]", done: "Refilled | None"
) -> list[str]:
    if done is not None:
        by = "by this command" if done.by_us else "by the process that publishes"
        told = f", {done.void:,} declared void" if done.void else ""
        return [f"✓ {done.asked:,} messages published again {by}{told}"]
    if not missing:
        return ["✓ everything that belongs on the bus is there"]
    void = sum(each.without_bytes for each in surveys)
    lost = f"; {void:,} of them have no bytes here and would be declared void" if void else ""
    return [f"{missing:,} messages are missing on the bus{lost}"]


def _rebuild_row(survey: "Survey") -> dict[str, object]:
    return {
        "stream": survey.stream,
        "there": survey.exists,
        "read": survey.read,
        "entries": survey.entries,
        "belong": survey.belong,
        "missing": survey.missing,
        "without_bytes": survey.without_bytes,
        "first_missing": survey.lacking[0].sequence if survey.lacking else None,
        "last_missing": survey.lacking[-1].sequence if survey.lacking else None,
        "other": survey.other,
        "unsent": survey.unsent,
    }


def _row(direction: str, group: "GroupStatus", seen: "Seen") -> dict[str, object]:
    from services.exchange.troubles import entered_at

    return {
        "stream": group.stream,
        "direction": direction,
        "group": group.group,
        "length": group.length,
        "lag": group.lag,
        "pending": group.pending,
        "oldest_pending_at": entered_at(group.oldest_pending_id),
        "consumers": len(seen.readers(group)),
    }


def _unread(direction: str, stream: str) -> dict[str, object]:
    return {
        "stream": stream,
        "direction": direction,
        "group": None,
        "length": None,
        "lag": None,
        "pending": None,
        "oldest_pending_at": None,
        "consumers": 0,
    }


def _people(agency: str, standing: "Standing") -> list[str]:
    oldest = readable(standing.oldest_unanswered)
    return [
        f"{agency}: {standing.unsent:,} unsent, {standing.unanswered:,} unanswered"
        f" ({standing.overdue:,} overdue, oldest since {oldest})",
        f"  missing {standing.gap_sequences:,} sequences, void {standing.voided_sequences:,},"
        f" held {standing.held:,}, dead letters {standing.dead:,}, open alarms {standing.alarms:,}",
        *([f"! {conflict_line(standing.conflicts)}"] if standing.conflicts else []),
        f"  ledger {standing.ledger_size:,} records, {standing.unsealed:,} not sealed yet",
    ]
