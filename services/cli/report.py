"""Count how often, by which office, how fast."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import RejectedError
from services.cli import output
from services.cli.everywhere import Output, noun
from services.cli.output import Column, readable
from services.cli.session import session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
    from services.reports.usage import OfficeUsage, Usage

app = noun("Count how often, by which office, how fast.")

BAR_CELLS = 10
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

SinceOption = Annotated[
    str | None, typer.Option(metavar="WHEN", help="A day, a time, or an age such as 7d.")
]
UntilOption = Annotated[str | None, typer.Option(metavar="WHEN", help="Not included.")]


@app.command()
def usage(ctx: typer.Context, *, since: SinceOption = None, until: UntilOption = None) -> None:
    """By office: known missed, sent, receipts, taken, closed, overdue; silent offices first."""
    from services.reports.usage import usage as count

    session = session_of(ctx, needed="ice")
    first, last = moment(since), moment(until)

    async def work(store: "Store") -> "Usage":
        return await count(store, since=first, until=last, actor=session.actor)

    counted = session.with_store(work)
    rows = [_row(each) for each in counted.offices]
    session.remark(
        f"Hearings from {readable(counted.since)} until {readable(counted.until)}"
        f" · policy {counted.policy} · made {readable(counted.made_at)}"
    )
    # Machines add up themselves; a sum among the offices would be counted twice.
    if rows and output.chosen(session.given.output) in (Output.TABLE, Output.PLAIN):
        rows.append(_row(counted.total, total=True))
    session.emit(
        rows,
        schema="report.usage",
        columns=[
            Column("office"),
            Column("known_missed", "KNOWN MISSED", right=True),
            Column("sent", right=True),
            Column("bar", "COVERAGE"),
            Column("receipts", right=True),
            Column("receipt_time", "RECEIPT P50/P95"),
            Column("taken", right=True),
            Column("taken_time", "TAKEN P50/P95"),
            Column("closed", right=True),
            Column("to_confirm", "TO CONFIRM", right=True),
            Column("overdue", right=True),
        ],
        empty="No missed hearing is known for this time. Read one in: noticebus docket import DIR",
    )


def moment(text: str | None) -> datetime | None:
    """Return what a person means by a day, a time (UTC unless it has an offset) or an age.

    Raises `RejectedError` NB-7005.
    """
    if text is None:
        return None
    try:
        if text[:-1].isdecimal() and text[-1:] in UNITS:
            return datetime.now(UTC) - timedelta(**{UNITS[text[-1]]: int(text[:-1])})
        said = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise RejectedError(
            "NB-7005",
            value=text,
            what="time",
            rule="Write 2026-11-23, 2026-11-23T14:00Z, or an age: 90m, 12h, 7d, 4w.",
        ) from None
    return said if said.tzinfo is not None else said.replace(tzinfo=UTC)


def _row(office: "OfficeUsage", *, total: bool = False) -> dict[str, object]:
    counts = office.counts
    silent = office.silent and not total
    row = asdict(counts)
    row |= {
        "coverage": office.coverage,
        "silent": silent,
        "overdue": office.overdue,
        "bar": _bar(office, silent=silent),
        "receipt_time": _pair(counts.sent_to_receipt_p50, counts.sent_to_receipt_p95),
        "taken_time": _pair(counts.receipt_to_taken_p50, counts.receipt_to_taken_p95),
    }
    return row


def _bar(office: "OfficeUsage", *, silent: bool) -> str:
    if office.coverage is None:
        return "none missed"
    filled = round(office.coverage * BAR_CELLS)
    bar = "█" * filled + "░" * (BAR_CELLS - filled)
    return f"{bar} {office.coverage:4.0%}{' silent' if silent else ''}"


def _pair(median: float | None, tail: float | None) -> str:
    return "-" if median is None or tail is None else f"{span(median)} / {span(tail)}"


def span(seconds: float) -> str:
    """Return a duration as people read it, in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, smaller, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller:02d} {name}"
    return f"{whole // 60} m {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
