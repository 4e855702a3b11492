"""Watching while real processes work, die and come back: each line once, in the ledger's order."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.envelope import Lane
from services.exchange.agency import Agency
from tests.agencies import a_notice, answered, until, value
from tests.command_line import COMMAND_SECONDS, CommandLine
from tests.faults.scene import Scene, a_scene, accept_slowly

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SEED = 20261124
BEGINNING = "ice.1.0"
NOTICES = 600
WRITERS = 3
KILLS = 8


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with a_scene(tmp_path, seed=SEED) as scene:
        scene.start_all()
        yield scene


class Watcher:
    """`noticebus watch` as a process; what was read of it counts as seen, and nothing else."""

    def __init__(self, scene: Scene) -> None:
        environment = {"NOTICEBUS_DATABASE_URL": scene.databases["ice"].url}
        self._noticebus = CommandLine(scene.folder, environment)
        self.lines: list[dict[str, Any]] = []
        self.remarks = ""
        self.process = self._start()

    @property
    def cursor(self) -> str:
        return str(self.lines[-1]["cursor"]) if self.lines else BEGINNING

    def _start(self) -> subprocess.Popen[bytes]:
        return self._noticebus.start(f"--agency ice watch -o ndjson --after {self.cursor}")

    async def read(self, count: int) -> None:
        """Read so many more lines."""
        assert self.process.stdout is not None
        for _ in range(count):
            line = await asyncio.to_thread(self.process.stdout.readline)
            self.lines.append(json.loads(line))

    async def read_to_the_end(self, agency: Agency) -> None:
        """Read until the last record of the ledger was seen."""
        size = await value(agency, "SELECT size FROM log_head")
        while self.cursor != f"ice.1.{size}":
            await self.read(1)

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        try:
            _, remarks = self.process.communicate(timeout=COMMAND_SECONDS)
        finally:
            self.process.kill()
        self.remarks += remarks.decode()
        return self.process.returncode

    def kill_and_resume(self) -> None:
        """Kill -9, and go on after the last line that was read."""
        assert self.end(signal.SIGKILL) == -signal.SIGKILL
        self.process = self._start()


async def told_by(agency: Agency) -> list[tuple[int, str]]:
    """Return what the ledger has to tell, read another way: index and message of each line."""
    async with agency.store.transaction() as tx:
        cursor = await tx.execute(
            "SELECT e.record_index, coalesce(s.message_id, r.message_id)"
            " FROM log_entry AS e JOIN record AS r USING (record_id)"
            " LEFT JOIN sent AS s"
            " ON r.action = 'receipts.verified' AND s.answer_message = r.message_id"
            " ORDER BY e.record_index, s.answer_index"
        )
        return [(row[0], str(row[1])) for row in await cursor.fetchall()]


async def test_a_watcher_killed_and_resumed_sees_each_line_once_and_in_order(
    scene: Scene,
) -> None:
    drafts = [a_notice(lane=Lane.BACKLOG if n % 3 else Lane.LIVE) for n in range(NOTICES)]
    watcher = Watcher(scene)
    async with asyncio.TaskGroup() as writers:
        for number in range(WRITERS):
            part = drafts[number::WRITERS]
            writers.create_task(accept_slowly(scene, part, at_once=10, pause_seconds=0.1))
        for _ in range(KILLS):
            await watcher.read(scene.random.randrange(1, 2 * NOTICES // KILLS))
            watcher.kill_and_resume()
    await scene.accepted_and_answered(drafts)

    await watcher.read_to_the_end(scene.pair.ice)
    code = watcher.end(signal.SIGINT)

    assert code == 130
    assert f"watch --after {watcher.cursor}" in watcher.remarks
    seen = [(line["index"], str(line["message_id"])) for line in watcher.lines]
    assert seen == await told_by(scene.pair.ice)
    states = [line["state"] for line in watcher.lines if line["kind"] == "fta"]
    assert {state: states.count(state) for state in states} == {
        "accepted": NOTICES, "sent": NOTICES, "receipted": NOTICES
    }  # fmt: skip


async def test_a_watcher_waits_out_a_restart_of_its_database(scene: Scene) -> None:
    drafts = [a_notice() for _ in range(NOTICES // 2)]
    watcher = Watcher(scene)
    accepting = asyncio.create_task(accept_slowly(scene, drafts, at_once=10, pause_seconds=0.1))
    # A process that finds no store when it begins ends; whoever started it starts it again.
    await until(lambda: answered(scene.pair.ice, drafts[:1]), "every process at work")

    for _ in range(2):
        await watcher.read(NOTICES // 4)
        await asyncio.to_thread(scene.databases["ice"].kill)
        await asyncio.to_thread(scene.databases["ice"].start)
    await accepting
    await until(lambda: answered(scene.pair.ice, drafts), "every receipt")
    await scene.accepted_and_answered(drafts)
    await watcher.read_to_the_end(scene.pair.ice)

    assert watcher.end(signal.SIGINT) == 130
    seen = [(line["index"], str(line["message_id"])) for line in watcher.lines]
    assert seen == await told_by(scene.pair.ice)
    assert watcher.remarks.count("The store is away") >= 1
    assert watcher.remarks.count("The store is back") >= 1
