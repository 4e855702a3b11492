"""What a running agency says of itself over HTTP: the truth, and no identities."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from services.bus import Publisher
from services.exchange.process import PARTS, Process
from services.settings import HttpSettings
from services.telemetry.health import HealthServer
from tests.agencies import Pair, a_notice, accept, answered, running, two_agencies, until

LIVE = "{ice.hhs.live.0}:out"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def ready(process: Process) -> tuple[int, dict[str, dict[str, object]]]:
    async with (
        HealthServer(HttpSettings(port=0), process.probes(PARTS)) as server,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"http://127.0.0.1:{server.port}/ready")
    return answer.status_code, json.loads(answer.content)["probes"]


async def test_ready_holds_while_every_part_works(pair: Pair) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)
    async with running(pair.ice, pair.ice_noted), running(pair.hhs, pair.hhs_noted) as hhs:
        await until(lambda: answered(pair.ice, [draft]), "the receipt")

        async def is_ready() -> bool:
            return (await ready(hhs))[0] == 200

        await until(is_ready, "readiness")


async def test_ready_fails_when_a_group_is_gone_or_a_part_never_ran(pair: Pair) -> None:
    async with Publisher.open(pair.redis_url, settings=pair.hhs.settings.bus) as publisher:
        idle = Process(pair.hhs, pair.hhs_noted, publisher)

        status, probes = await ready(idle)

    assert status == 503
    assert {name for name, probe in probes.items() if not probe["ok"]} == {
        "relay",
        "reader",
        "groups",
        "sealer",
    }
    assert LIVE in str(probes["groups"]["detail"])


async def test_ready_fails_when_an_answer_is_overdue(pair: Pair) -> None:
    await accept(pair.ice, a_notice())
    async with running(pair.ice, pair.ice_noted) as ice:

        async def overdue() -> bool:
            return not (await ready(ice))[1]["answers"]["ok"]

        await until(overdue, "an overdue answer in /ready")


async def test_a_second_process_reads_in_its_own_slot_and_leaves_relays_alone(pair: Pair) -> None:
    async with running(pair.hhs, pair.hhs_noted) as first:
        await until(lambda: has_parts(first), "the first process at work")
        async with running(pair.hhs, pair.hhs_noted) as second:
            await until(lambda: reads(second), "the second process in a slot of its own")
            assert not second.relays

            drafts = [a_notice() for _ in range(50)]
            await accept(pair.ice, *drafts)
            async with running(pair.ice, pair.ice_noted):
                await until(lambda: answered(pair.ice, drafts), "every receipt")

    assert len(pair.hhs_noted.taken) == 50


async def has_parts(process: Process) -> bool:
    return bool(process.relays and process.readers)


async def reads(process: Process) -> bool:
    return bool(process.readers) and all(reader.healthy for reader in process.readers)
