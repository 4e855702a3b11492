"""What a running agency says of itself over HTTP: the truth, and no identities."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.bus import Publisher, reader
from services.exchange.effects import Taken
from services.exchange.process import PARTS, Process
from services.exchange.status import Status
from services.ledger.store import Transaction
from services.settings import HttpSettings, RelaySettings
from services.telemetry.health import HealthServer, Probe
from tests.agencies import (
    Noted,
    Pair,
    a_notice,
    accept,
    answered,
    running,
    two_agencies,
    until,
)

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


async def test_what_waits_is_no_failure_but_a_reader_that_is_stuck_is(
    home: Path,
    database: Callable[[str], str],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How much a sender may have under way is the sender's affair, and HHS' own window another."""
    may_go_on = asyncio.Event()

    class Slow(Noted):
        async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
            await may_go_on.wait()
            await super().apply(tx, messages)

    relay = {"window_max": 1, "poll_seconds": 0.5, "answer_seconds": 60}
    async with two_agencies(home, database, redis_url) as pair:
        pair.hhs.settings = pair.hhs.settings.model_copy(
            update={"relay": RelaySettings.model_validate(relay)}
        )
        await accept(pair.ice, *[a_notice() for _ in range(30)])
        async with (
            running(pair.ice, pair.ice_noted, ["relay"]),
            running(pair.hhs, Slow()) as hhs,
        ):

            async def behind() -> bool:
                status, probes = await ready(hhs)
                detail = str(probes["groups"]["detail"])
                return status == 200 and detail.startswith("30 entries to take, the oldest for ")

            async def stuck() -> bool:
                return not (await ready(hhs))[1]["reader"]["ok"]

            await until(behind, "readiness with more under way than our own window")
            monkeypatch.setattr(reader, "STALLED_SECONDS", 0.1)
            await until(stuck, "a reader that is stuck")
            may_go_on.set()


async def test_ready_fails_while_an_entry_waits_for_too_long_and_holds_again_once_it_is_taken(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    may_go_on = asyncio.Event()

    class Slow(Noted):
        async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
            await may_go_on.wait()
            await super().apply(tx, messages)

    delivery = {"lag_seconds_max": 1.0}
    async with two_agencies(home, database, redis_url, delivery=delivery) as pair:
        await accept(pair.ice, a_notice())
        async with (
            running(pair.ice, pair.ice_noted, ["relay"]),
            running(pair.hhs, Slow()) as hhs,
        ):

            async def failing() -> set[str]:
                status, probes = await ready(hhs)
                failed = {name for name, probe in probes.items() if not probe["ok"]}
                return failed if status == 503 else set()

            async def late() -> bool:
                return await failing() == {"groups"}

            await until(late, "an entry that waits for too long")
            detail = str((await ready(hhs))[1]["groups"]["detail"])
            assert detail.startswith("1 entries to take, the oldest for ")
            assert detail.endswith(f"limit 1 s, on {LIVE}")
            may_go_on.set()

            async def is_ready() -> bool:
                return not await failing()

            await until(is_ready, "readiness once it is taken")


@pytest.mark.parametrize(("seconds", "holds"), [(200, {True}), (400, {False})])
async def test_what_was_given_to_nobody_yet_waits_since_it_came(
    pair: Pair, seconds: int, holds: set[bool]
) -> None:
    """Many that came lately fail nothing, one that came long ago does."""
    now = int(datetime.now(UTC).timestamp())
    async with Publisher.open(pair.redis_url, settings=pair.hhs.settings.bus) as publisher:
        for number in range(50):
            entry_id = f"{(now - seconds + number) * 1000}-0"
            await publisher.client.xadd(LIVE, {"jws": b"one"}, id=entry_id)
        await publisher.client.xgroup_create(LIVE, "hhs", id="0")
        status = Status(pair.hhs, publisher)

        probe = await status.groups([LIVE])

        assert {probe.ok} == holds
        assert probe.detail.startswith(f"50 entries to take, the oldest for {seconds // 100}")
        # Given out and not acknowledged, it still waits.
        await publisher.client.xreadgroup("hhs", "hhs-0", {LIVE: ">"}, count=10)
        assert {(await status.groups([LIVE])).ok} == holds
        await publisher.client.xreadgroup("hhs", "hhs-0", {LIVE: ">"}, count=50)
        entries: Any = await publisher.client.xrange(LIVE)
        await publisher.client.xack(LIVE, "hhs", *[entry_id for entry_id, _ in entries])
        assert await status.groups([LIVE]) == Probe(ok=True, detail="0 entries to take")


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
