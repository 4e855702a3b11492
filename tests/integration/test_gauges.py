"""Gauges say what store and bus hold at the moment they are asked."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from schemas.errors import UnavailableError
from services.exchange.gauges import Gauges
from services.exchange.process import incoming_streams
from services.ice import notices
from services.telemetry.metrics import REGISTRY
from tests.agencies import two_agencies
from tests.notices_made import by_hand


def shown(name: str) -> float:
    """Return the value of one gauge, as `/metrics` would show it."""
    lines = generate_latest(REGISTRY).decode().splitlines()
    return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


async def test_what_waits_is_counted_where_it_waits(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    async with two_agencies(home, database, redis_url) as pair:
        gauges = Gauges(pair.ice, tuple(incoming_streams(pair.ice)))
        await notices.send(pair.ice.store, by_hand(), actor="officer")

        await gauges.of_store()
        await gauges.of_bus()

    assert shown("noticebus_outbox_unsent") == 1
    assert shown("noticebus_unanswered") == 0
    assert shown("noticebus_oldest_unanswered_seconds") == 0
    assert shown("noticebus_ledger_unsealed") >= 1


async def test_a_bus_that_is_away_is_said_and_not_guessed(
    home: Path, database: Callable[[str], str]
) -> None:
    async with two_agencies(home, database, "redis://127.0.0.1:1/0") as pair:
        gauges = Gauges(pair.ice, ())

        await gauges.of_store()
        with pytest.raises(UnavailableError):
            await gauges.of_bus()
