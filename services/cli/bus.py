"""Look at streams, groups and the exchange: what waits where, and who reads it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from services.cli import output
from services.cli.everywhere import Output, noun
from services.cli.output import Column, readable
from services.cli.session import session_of

if TYPE_CHECKING:
    from services.bus.status import GroupStatus
    from services.exchange.agency import Agency
    from services.exchange.store.standing import Standing

app = noun("Look at streams, groups and the exchange.")

# A consumer that has not asked for so long is not alive.
CONSUMER_IDLE_SECONDS_MAX = 30.0

STREAM_COLUMNS = [
    Column("stream"),
    Column("direction"),
    Column("length", right=True),
    Column("lag", right=True),
    Column("pending", right=True),
    Column("oldest_pending_at", "OLDEST PENDING"),
    Column("consumers", "READERS", right=True),
]


@dataclass(frozen=True, slots=True)
class Seen:
    """The exchange and the bus, seen from one agency at one moment."""

    standing: "Standing"
    outgoing: Sequence[str]
    incoming: Sequence[str]
    groups: "Sequence[GroupStatus]"

    def streams(self) -> list[dict[str, object]]:
        """Return one row a stream and group; a stream nobody reads yet has a row of its own."""
        rows: list[dict[str, object]] = []
        for direction, names in (("out", self.outgoing), ("in", self.incoming)):
            for name in names:
                found = [group for group in self.groups if group.stream == name]
                rows += [_row(direction, group) for group in found] or [_unread(direction, name)]
        return rows


@app.command()
def status(ctx: typer.Context) -> None:
    """Show what is unsent, unanswered, late, missing or set aside, and each stream."""
    session = session_of(ctx)
    seen = session.with_agency(look, bus=True)
    streams = seen.streams()
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
def groups(ctx: typer.Context) -> None:
    """List consumer groups and their consumers, one row a consumer."""
    session = session_of(ctx)
    seen = session.with_agency(look, bus=True)
    session.emit(
        [
            {
                "stream": group.stream,
                "group": group.group,
                "consumer": consumer.name,
                "pending": consumer.pending,
                "idle_seconds": consumer.idle_seconds,
                "alive": consumer.idle_seconds <= CONSUMER_IDLE_SECONDS_MAX,
                "lag": group.lag,
                "last_delivered_id": group.last_delivered_id,
            }
            for group in seen.groups
            for consumer in group.consumers
        ],
        schema="bus.groups",
        columns=[
            Column("stream"),
            Column("group"),
            Column("consumer"),
            Column("alive"),
            Column("idle_seconds", "IDLE S", right=True),
            Column("pending", right=True),
            Column("lag", right=True),
        ],
        empty="No consumer has read a stream yet. Start one: noticebus run ice, noticebus run hhs",
    )


async def look(agency: "Agency") -> Seen:
    """Return what the store and the bus say now. Raises `UnavailableError` when one is away."""
    from services.bus.status import group_status
    from services.exchange.process import incoming_streams
    from services.exchange.status import standing_of
    from services.exchange.store import outgoing

    async with agency.store.transaction() as tx:
        sending = [head.stream for head in await outgoing.heads(tx)]
    reading = incoming_streams(agency)
    url, settings = agency.settings.redis_url_required, agency.settings.bus
    found: list[GroupStatus] = []
    for stream in (*sending, *reading):
        found += await group_status(url, stream, settings=settings)
    return Seen(await standing_of(agency.store), sending, reading, found)


def _row(direction: str, group: "GroupStatus") -> dict[str, object]:
    return {
        "stream": group.stream,
        "direction": direction,
        "group": group.group,
        "length": group.length,
        "lag": group.lag,
        "pending": group.pending,
        "oldest_pending_at": entered_at(group.oldest_pending_id),
        "consumers": sum(
            consumer.idle_seconds <= CONSUMER_IDLE_SECONDS_MAX for consumer in group.consumers
        ),
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


def entered_at(entry_id: str | None) -> datetime | None:
    """Return when an entry was added: the first half of its id is Redis' clock in milliseconds."""
    if entry_id is None:
        return None
    return datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)


def _people(agency: str, standing: "Standing") -> list[str]:
    oldest = readable(standing.oldest_unanswered)
    return [
        f"{agency}: {standing.unsent:,} unsent, {standing.unanswered:,} unanswered"
        f" ({standing.overdue:,} overdue, oldest since {oldest})",
        f"  missing {standing.gap_sequences:,} sequences, held {standing.held:,},"
        f" dead letters {standing.dead:,}, open alarms {standing.alarms:,}",
        f"  ledger {standing.ledger_size:,} records, {standing.unsealed:,} not sealed yet",
    ]
