"""What a wiped bus costs: until everything is on it again, and until everything is receipted.

Recovery is the time from the wipe until every unreceipted message stands on the bus again, with
nobody there to read: 30 seconds for 100,000. Until all of them have their receipts is the reader's
time, and is counted apart, from the start of its process.

The consumer is stopped and the window is as wide as what is out, so that every message of the
sender's database has to come back. Nobody does anything after the wipe but start the consumer.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from schemas.envelope import Lane
from services.bus import Publisher
from services.exchange.agency import Agency, open_agency
from services.settings import load
from tests.agencies import a_notice, accept, until, value
from tests.benches.ground import Ground, ground

STREAM = "{ice.hhs.backlog.0}:out"
WAIT_SECONDS = 900.0
# What is demanded of recovery: so many messages back on the bus, in so long from the wipe.
DEMANDED, RECOVERY_SECONDS = 100_000, 30.0
ACCEPTED_AT_ONCE = 1_000


def run(home: Path, *, messages: int) -> dict[str, Any]:
    """Publish `messages`, wipe Redis, and time its recovery and every receipt after that."""
    with ground(home) as made:
        made.start("ice", **wide(messages))
        return asyncio.run(_run(made, messages))


def wide(messages: int) -> dict[str, str]:
    """Return the setting under which so many may be out, and in, without an alarm."""
    return {"NOTICEBUS_RELAY_WINDOW_MAX": str(messages)}


async def _run(made: Ground, messages: int) -> dict[str, Any]:
    settings = load("ice", home=made.home).model_copy(
        update={"database_url": made.urls["ice"], "redis_url": made.urls["redis"]}
    )
    async with (
        open_agency(settings) as ice,
        Publisher.open(made.urls["redis"], settings=settings.bus) as publisher,
        Redis.from_url(made.urls["redis"]) as redis,
    ):
        began = time.perf_counter()
        for at in range(0, messages, ACCEPTED_AT_ONCE):
            count = min(ACCEPTED_AT_ONCE, messages - at)
            await accept(ice, *(a_notice(lane=Lane.BACKLOG) for _ in range(count)))

        async def all_out() -> bool:
            return await _out(ice) == messages and await publisher.length(STREAM) >= messages

        await until(all_out, "every message on the bus", seconds=WAIT_SECONDS)
        published_in = time.perf_counter() - began
        before = made.cpu_seconds()
        began = time.perf_counter()
        await redis.flushall()
        await until(all_out, "every message on the bus again", seconds=WAIT_SECONDS)
        back_in = time.perf_counter() - began
        spent = {k: round(v - before.get(k, 0.0), 2) for k, v in made.cpu_seconds().items()}
        began = time.perf_counter()
        made.start("hhs", **wide(messages))
        await until(lambda: _receipted(ice, messages), "every receipt", seconds=WAIT_SECONDS)
        receipted_in = time.perf_counter() - began
    return {
        "unreceipted": messages,
        "first_published_seconds": round(published_in, 2),
        "wipe_until_back_on_the_bus_seconds": round(back_in, 2),
        "demanded_until_back_on_the_bus": f"{DEMANDED:,} in {RECOVERY_SECONDS:.0f} s",
        "back_per_second": round(messages / back_in),
        "start_of_the_reader_until_receipted_seconds": round(receipted_in, 2),
        "receipted_per_second": round(messages / receipted_in),
        "cpu_seconds_until_back": spent,
        "peak_memory_mb": made.memory_mb(),
    }


async def _out(ice: Agency) -> int:
    """Return how many messages are noted as being on the bus, none while some go again."""
    found = await value(
        ice,
        "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0)"
        " - (SELECT count(*) FROM republish) FROM publication WHERE stream = %s",
        STREAM,
    )
    return int(str(found))


async def _receipted(ice: Agency, messages: int) -> bool:
    done = "SELECT count(*) FROM sent WHERE stream = %s AND answer = 'receipt'"
    return await value(ice, done, STREAM) == messages
