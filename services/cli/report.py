"""Count how often, by which office, how fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import RejectedError
from services.cli import output
from services.cli.conflicts import told
from services.cli.everywhere import Output, noun
from services.cli.output import Column, names_of, readable
from services.cli.session import ArchivesOption, Session, session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
    from services.reports.as_of import Progress, Then
    from services.reports.usage import OfficeUsage, Usage

app = noun("Count how often, by which office, how fast.")

BAR_CELLS = 10
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

SinceOption = Annotated[
    str | None, typer.Option(metavar="WHEN", help="A day, a time, or an age such as 7d.")
]
UntilOption = Annotated[str | None, typer.Option(metavar="WHEN", help="Not included.")]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="WHEN",
        help="As this agency knew it then: 2026-03-03T12:00Z; a day is its first moment in UTC.",
    ),
]


@app.command()
def usage(
    ctx: typer.Context,
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    as_of: AsOfOption = None,
    archive: ArchivesOption = None,
) -> None:
    """By office: known missed, sent, receipts, taken, closed, overdue; silent offices first."""
    from services.reports.store import OfficeCounts
    from services.reports.usage import usage as count

    session = session_of(ctx, needed="ice", archives=archive)
    (first, last), then = period(since, until), moment(as_of)
    with looking_back(session, then) as progress:

        async def work(store: "Store") -> "Usage":
            return await count(
                store,
                since=first,
                until=last,
                actor=session.actor,
                as_of=then,
                progress=progress,
            )

        counted = session.with_store(work)
    rows = [_row(each) for each in counted.offices]
    tell_then(session, counted.then)
    between = [
        f"{word} {readable(end)}"
        for word, end in (("from", counted.since), ("until", counted.until))
        if end is not None
    ]
    session.remark(
        f"{' '.join(['Hearings', *between]) if between else 'All hearings'}"
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
            Column("bar", "COVERAGE", drawn=True),
            Column("receipts", right=True),
            Column("receipt_time", "RECEIPT P50/P95"),
            Column("taken", right=True),
            Column("taken_time", "TAKEN P50/P95"),
            Column("closed", right=True),
            Column("to_confirm", "TO CONFIRM", right=True),
            Column("overdue", right=True),
        ],
        fields=names_of(
            OfficeCounts, "coverage", "silent", "overdue", "receipt_time", "taken_time"
        ),
        empty="No missed hearing is known for this time. Read one in: noticebus docket import DIR",
        also={**said_then(counted.then), **told(session)},
    )


@contextmanager
def looking_back(session: Session, then: datetime | None) -> "Iterator[Progress | None]":
    """Show how far it is with making again what was known then; nothing where nobody asked."""
    if then is None:
        yield None
        return
    with session.progress("looking back", unit="records read") as shown:
        done: dict[str, int] = {}

        def tell(what: str, count: int) -> None:
            done[what] = count
            shown.update(sum(done.values()))

        yield tell


def said_then(then: "Then | None") -> dict[str, object]:
    """Return what a document says of the moment that was asked about, and of its checkpoint."""
    if then is None:
        return {}
    from services.reports.as_of import said_of

    return {"as_of": said_of(then)}


def tell_then(session: Session, then: "Then | None") -> None:
    """Tell people which moment they look at, and under which checkpoint."""
    if then is None:
        return
    said = said_then(then)["as_of"]
    assert isinstance(said, dict)
    sealed = said["checkpoint"]
    under = (
        "no checkpoint yet"
        if sealed is None
        else f"checkpoint of {sealed['size']:,} records, root {sealed['root']},"
        f" sealed {readable(sealed['sealed_at'])}"
    )
    session.remark(f"As known {readable(then.at)} · {under}")


def moment(text: str | None) -> datetime | None:
    """Return what a person means by a day, a time (UTC unless it has an offset) or an age.

    Raises `RejectedError` NB-7005.
    """
    if text is None:
        return None
    try:
        if age(text):
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


def age(text: str | None) -> str | None:
    """Return what a person gave as an age, which means another moment each time, else None."""
    if text is not None and text[:-1].isdecimal() and text[-1:] in UNITS:
        return text
    return None


def period(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """Return the two ends of a time, `until` not included.

    Raises `RejectedError` NB-7005 for what is no time, NB-7034 where nothing lies between them.
    """
    first, last = moment(since), moment(until)
    if first is not None and last is not None and first >= last:
        raise RejectedError("NB-7034", since=since, until=until)
    return first, last


def known_office(text: str | None) -> str | None:
    """Return the office that a code or another of its spellings names, None for none.

    Raises `RejectedError` NB-7005, so that a misspelt one is not taken for a silent one.
    """
    from schemas import codes

    if text is None:
        return None
    try:
        return codes.office_code(text)
    except RejectedError:
        rule = f"Use one of {', '.join(codes.offices())}."
        raise RejectedError("NB-7005", value=text, what="office", rule=rule) from None


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
