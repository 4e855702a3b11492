"""The commands of replay on a real home: every event streamed, steps exit as the design says."""

import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.reports.usage import usage
from tests.agencies import Pair, two_agencies, until, value
from tests.command_line import CommandLine
from tests.replays import change, is_, plan, run, take
from tests.restores import archived, closed_and_open

NOTICES = 1_050
COPY = "{replay.drill}"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        await take(pair.ice, pair.hhs, NOTICES)
        yield pair


@pytest.fixture
def noticebus(pair: Pair) -> CommandLine:
    return command_of(pair)


def command_of(pair: Pair) -> CommandLine:
    settings = pair.hhs.settings
    return CommandLine(
        settings.home,
        {
            "NOTICEBUS_AGENCY": "hhs",
            "NOTICEBUS_ACTOR": "operator",
            "NOTICEBUS_DATABASE_URL": settings.database_url_required,
            "NOTICEBUS_REDIS_URL": settings.redis_url_required,
        },
    )


def events_and_plan(text: str) -> tuple[list[Any], Any]:
    *events, last = [json.loads(line) for line in text.splitlines()]
    return events, last


@pytest.mark.timeout(240)
async def test_a_large_replay_from_plan_to_end(pair: Pair, noticebus: CommandLine) -> None:
    await change(pair.hhs, "DELETE FROM case_file")

    planned = noticebus("replay plan --save all -o ndjson")
    events, made = events_and_plan(planned.out)
    line = f"replay run {made['plan_id']} --reason drill"
    unconfirmed = noticebus(line)
    alone = noticebus(f"{line} --confirm {NOTICES}")
    own = noticebus(f"--as operator replay approve {made['plan_id']} --reason x")
    approved = noticebus.json(f"--as second replay approve {made['plan_id']} --reason x")
    ran = noticebus.json(f"{line} --confirm {NOTICES}")
    again = noticebus(f"{line} --confirm {NOTICES}")
    shown = noticebus.json(f"replay show {made['plan_id']}")

    assert planned.code == 0, planned.err
    assert len(events) == made["new"] == made["changes"] == NOTICES
    assert {event["what"] for event in events} == {"event"}
    assert {event["standing"] for event in events} == {"new"}
    assert made["offices"] == {events[0]["office"]: made["counts"]}
    assert (unconfirmed.code, alone.code, own.code, again.code) == (2, 4, 4, 9)
    assert approved["approved_by"] == "second"
    assert (ran["applied"], ran["state"], shown["state"]) == (NOTICES, "done", "done")
    assert await value(pair.hhs, "SELECT count(*) FROM case_file") == NOTICES
    listed = noticebus.json("replay list --state done")["items"]
    assert [each["done"] for each in listed] == [NOTICES]


@pytest.mark.timeout(240)
async def test_a_stream_of_replays_by_command_and_back(pair: Pair, noticebus: CommandLine) -> None:
    made = noticebus.json(f"replay plan --sequence {{ice.hhs.live.0}}:out:1-40 --to stream:{COPY}")
    ran = noticebus.json(f"replay run {made['plan_id']} --reason drill --confirm 40 --maxlen 1000")
    await change(pair.hhs, "DELETE FROM case_file")
    await change(pair.hhs, "DELETE FROM payload")
    looked = noticebus(f"replay plan --from stream:{COPY} --limit 3 -o json")
    back = looked.data
    put = noticebus(f"replay run {back['plan_id']} --reason drill --confirm 40 -o json")
    misused = noticebus(f"replay run {back['plan_id']} --reason drill --confirm 40 --maxlen 5")
    unknown = noticebus("replay plan --from stream:{replay.nothing}")

    assert (ran["written"], ran["applied"]) == (40, 0)
    assert (back["new"], len(back["items"]), back["items_left_out"]) == (40, 3, 37)
    assert "! 37 of 40 events" in looked.err
    assert put.data["applied"] == 40
    assert (misused.code, unknown.code) == (2, 3)
    assert "NB-6032" in unknown.err


async def test_what_a_replay_does_is_in_no_report(pair: Pair) -> None:
    before = await usage(pair.ice.store, since=None, until=None, actor="auditor")

    await run(pair.ice, await plan(pair.ice))
    await change(pair.hhs, "UPDATE case_file SET office = 'XXX'")
    planned = await plan(pair.hhs, kinds=())

    after = await usage(pair.ice.store, since=None, until=None, actor="auditor")
    assert planned.plan.changes == NOTICES
    assert after.offices == before.offices
    assert after.total == before.total


@pytest.mark.timeout(240)
async def test_an_interrupted_run_says_how_it_goes_on(pair: Pair, noticebus: CommandLine) -> None:
    await change(pair.hhs, "UPDATE case_file SET office = 'XXX'")
    made = noticebus.json("replay plan --sequence {ice.hhs.live.0}:out:1-900")
    line = f"replay run {made['plan_id']} --reason drill --confirm 900"

    going = noticebus.start(f"{line} --rate 20")
    begun = "SELECT count(*) FROM replay_plan WHERE cursor IS NOT NULL"
    try:
        await until(partial(is_, pair.hhs, 1, begun), "the first batch")
        going.send_signal(signal.SIGINT)
        _, words = going.communicate(timeout=60)
    finally:
        going.kill()
    [again] = re.findall(r"go on with: noticebus (.*)", words.decode())
    done = noticebus.json(again.rstrip("."))

    assert going.returncode == 130, words
    assert again.startswith(f"--agency hhs {line}")
    assert (done["resumed"], done["state"], done["changed"]) == (True, "done", 900)


@pytest.mark.timeout(240)
async def test_a_shadow_with_archives_beside_it_runs_as_it_was_planned(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    async with closed_and_open(home, database, redis_url) as pair:
        made = await archived(pair.hhs, home / "archives")
        assert made is not None
        command = command_of(pair)
        without = command("replay plan --to shadow")
        planned = command(f"replay plan --to shadow --archive {made.path}")
        [following] = re.findall(r"next: noticebus (.*)", planned.out)
        alone = command(following.replace("WHY", "drill").partition(" --archive")[0])
        ran = command(following.replace("WHY", "drill"))

    assert (without.code, planned.code) == (3, 0), planned.err
    assert alone.code == 3
    assert "NB-3070" in alone.err
    assert (ran.code, str(made.path) in following) == (0, True), ran.err
