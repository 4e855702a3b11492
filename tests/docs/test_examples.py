"""The example programs run as they stand, on real stores, and the pages quote them word by word."""

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.exchange import dead
from services.exchange.process import delivery_of
from services.hhs.casework import CaseWork
from services.replay import Selection
from tests.agencies import Pair, a_notice, accept, running, trust, two_agencies
from tests.command_line import COMMAND_SECONDS
from tests.replays import Way, actions, change, rows
from tests.steps import LIVE, on_stream, relay, rotate

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/replay_week.py"
REDRIVE = ROOT / "docs/examples/redrive_group.py"
PAGE = ROOT / "docs/replay-library.md"
SPOIL = "UPDATE case_file SET office = 'LOS' WHERE notice_id = %s"


def loaded() -> ModuleType:
    """Return the example as a module of its own."""
    spec = importlib.util.spec_from_file_location("replay_week", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def replay_a_week(way: Way) -> subprocess.CompletedProcess[str]:
    """Run the example as its users do: with the address of HHS' store, and nothing else of ours."""
    url = way.hhs.settings.database_url_required
    kept = {name: value for name, value in os.environ.items() if "NOTICEBUS" not in name}
    return subprocess.run(
        [sys.executable, EXAMPLE, "hhs", "the office was wrong"],
        env={**kept, "PYTHONPATH": str(ROOT), "NOTICEBUS_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


async def test_the_example_replays_a_week_and_sees_it_go_on_record(way: Way) -> None:
    before = await rows(way.hhs, "case_file", "notice_id")
    await change(way.hhs, SPOIL, way.corrected)

    async with running(way.hhs, CaseWork(), ["sealer"]):
        done = await asyncio.to_thread(replay_a_week, way)

    assert done.returncode == 0, done.stderr
    copied = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["direction"] for event in copied} == {"received", "sent"}
    assert f"{len(copied)} envelopes copied" in done.stderr
    assert f"{way.corrected} changed" in done.stderr
    assert "office LOS -> " in done.stderr
    assert "1 of" in done.stderr
    assert done.stderr.count("replay run") == 2
    assert re.search(r"watch --after hhs\.1\.[1-9][0-9]*\n", done.stderr)
    assert await rows(way.hhs, "case_file", "notice_id") == before


async def test_the_example_plans_again_when_its_plan_is_stale(
    way: Way, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = loaded()
    planned = example.plan
    await change(way.hhs, SPOIL, way.corrected)
    left = [way.taken]

    async def overtaken(*given: Any, **named: Any) -> Any:
        made = await planned(*given, **named)
        if left:
            await change(way.hhs, SPOIL, left.pop())
        return made

    monkeypatch.setattr(example, "plan", overtaken)

    ran = await example.mend(way.hhs.store, "hhs", Selection(), "because")

    assert (ran.applied, left) == (2, [])
    assert "planning again" in capsys.readouterr().err
    assert await actions(way.hhs) == [
        "replay.planned", "replay.run", "replay.planned", "replay.begun", "replay.run"
    ]  # fmt: skip


async def test_the_example_redrives_a_group_and_names_what_fails_again(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    async with two_agencies(home, database, redis_url) as pair:
        await rotate(pair)
        drafts = [a_notice() for _ in range(3)]
        await accept(pair.ice, *drafts, replace(a_notice(), body=b"{}"))
        await relay(pair.ice, LIVE)
        await delivery_of(pair.hhs, CaseWork()).take(await on_stream(pair, LIVE))
        await trust(pair.hhs, pair.ice)

        nothing = await asyncio.to_thread(redrive_a_group, pair, "NB-2011")
        done = await asyncio.to_thread(redrive_a_group, pair, "NB-2010")

        assert nothing.returncode == done.returncode == 0, nothing.stderr + done.stderr
        assert "would be taken: 0" in nothing.stderr
        assert "4 letters of NB-2010.unread" in done.stderr
        assert "3 taken, 1 failed again" in done.stderr
        [failed] = [json.loads(line) for line in done.stdout.splitlines()]
        [act] = (await dead.show(pair.hhs, failed["dead_id"])).history
        assert (act.actor, act.reason, act.outcome) == ("redrive-group", "trusted", "failed")
        assert act.cause == failed["cause"]


def redrive_a_group(pair: Pair, cause: str) -> subprocess.CompletedProcess[str]:
    """Run the example as its users do: with the home and the store of HHS."""
    settings = pair.hhs.settings
    kept = {name: value for name, value in os.environ.items() if "NOTICEBUS" not in name}
    ours = {
        "NOTICEBUS_HOME": str(settings.home),
        "NOTICEBUS_DATABASE_URL": settings.database_url_required,
    }
    return subprocess.run(
        [sys.executable, REDRIVE, cause, "trusted"],
        env={**kept, "PYTHONPATH": str(ROOT), **ours},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def test_the_page_quotes_the_example_word_by_word() -> None:
    programs = [each.read_text(encoding="utf-8") for each in (EXAMPLE, REDRIVE)]
    quoted = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

    assert len(quoted) >= 8
    assert [code for code in quoted if not any(code in program for program in programs)] == []


@pytest.mark.parametrize("example", [EXAMPLE, REDRIVE], ids=lambda each: str(each.stem))
def test_the_example_is_typed(example: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("mypy"), "--strict", example],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
