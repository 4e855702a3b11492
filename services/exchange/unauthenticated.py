"""Put on record, once a minute ended, how many entries arrived that nobody vouched for."""

from datetime import UTC, datetime

from schemas.canonical import format_time
from services.exchange.agency import Agency
from services.exchange.store import dead
from services.ledger.records import make_record
from services.ledger.store import append


async def record_ended_minutes(agency: Agency) -> None:
    """Write one record for each stream, cause and minute that ended since the last call."""
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        ended = await dead.ended_minutes(tx, now)
        if not ended:
            return
        await append(
            tx,
            [
                make_record(
                    "entries.refused",
                    time=now,
                    result="refused",
                    stream=stream,
                    reason=cause,
                    detail={"minute": format_time(minute), "count": arrivals},
                )
                for stream, cause, minute, arrivals in ended
            ],
        )
