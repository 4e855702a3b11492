"""What one notice costs, and forty-three thousand: from table rows to verified receipts."""

import asyncio
import json
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from schemas.envelope import Lane
from services.exchange.agency import open_agency
from services.settings import load
from tests.agencies import a_notice, accept
from tests.benches.ground import NOTICEBUS, ROOT, Ground, ground, peak_mb, quantiles

WAIT_SECONDS = 600.0
# As the import accepts them: so many in a transaction.
ACCEPTED_TOGETHER = 500


def backlog(home: Path, *, missed: int, rows: int) -> dict[str, Any]:
    """Import a docket with `missed` missed hearings; time from its start to the last receipt."""
    with ground(home) as made:
        docket = home / "docket"
        made.command(
            f"--agency ice docket synthesize {docket} --rows {rows} --missed {missed} --seed 11"
        )
        for agency in ("ice", "hhs"):
            made.start(agency)
        before = made.cpu_seconds()
        began = time.perf_counter()
        importing = _command(made, f"--agency ice docket import {docket} -o json")
        peak = 0.0
        while importing.poll() is None:
            peak = max(peak, _peak(importing.pid))
            time.sleep(0.05)
        imported = time.perf_counter() - began
        summary = json.loads(importing.stdout.read() if importing.stdout else b"{}")
        sent = int(summary["recorded"])
        until_all(made, "SELECT count(*) FROM sent WHERE answer = 'receipt'", sent)
        took = time.perf_counter() - began
        return {
            "rows": summary["rows"],
            "notices": sent,
            "import_seconds": round(imported, 2),
            "seconds": round(took, 2),
            "notices_per_second": round(sent / took),
            "cpu_seconds": {
                name: round(spent - before.get(name, 0.0), 2)
                for name, spent in made.cpu_seconds().items()
            },
            "peak_memory_mb": {"docket import": peak, **made.memory_mb()},
        }


def exchange(home: Path, *, messages: int) -> dict[str, Any]:
    """Accept `messages` notices and wait for the last verified receipt: what `peer` compares with.

    Notices are made before the clock starts, as the peer's one message is; accepting, signing,
    encrypting, storing on both sides, sealing and proving are on it.
    """
    with ground(home) as made:
        for agency in ("ice", "hhs"):
            made.start(agency)
        return asyncio.run(_exchange(made, messages))


async def _exchange(made: Ground, messages: int) -> dict[str, Any]:
    drafts = [a_notice(lane=Lane.BACKLOG) for _ in range(messages)]
    settings = load("ice", home=made.home).model_copy(update={"database_url": made.urls["ice"]})
    async with open_agency(settings) as agency:
        began = time.perf_counter()
        for at in range(0, messages, ACCEPTED_TOGETHER):
            await accept(agency, *drafts[at : at + ACCEPTED_TOGETHER])
        accepted = time.perf_counter() - began
    until_all(made, "SELECT count(*) FROM sent WHERE answer = 'receipt'", messages)
    took = time.perf_counter() - began
    return {
        "messages": messages,
        "seconds": round(took, 2),
        "accept_seconds": round(accepted, 2),
        "messages_per_second": round(messages / took),
        "peak_memory_mb": made.memory_mb(),
    }


def latency(home: Path, *, per_second: int, seconds: int) -> dict[str, Any]:
    """Accept `per_second` notices for `seconds`, open loop: commit at ICE to verified receipt."""
    with ground(home) as made:
        for agency in ("ice", "hhs"):
            made.start(agency)
        return asyncio.run(_latency(made, per_second, seconds))


async def _latency(made: Ground, per_second: int, seconds: int) -> dict[str, Any]:
    took = await measured(made, per_second, seconds)
    return {
        "notices": len(took),
        "per_second": per_second,
        "commit_to_verified_receipt_ms": quantiles([each * 1000 for _, each in took]),
        "peak_memory_mb": made.memory_mb(),
    }


async def measured(made: Ground, per_second: int, seconds: int) -> list[tuple[float, float]]:
    """Accept notices in an open loop; returns when each was committed, and seconds to receipt."""
    committed: dict[UUID, float] = {}
    receipted: dict[UUID, float] = {}
    total = per_second * seconds
    settings = load("ice", home=made.home).model_copy(update={"database_url": made.urls["ice"]})
    async with open_agency(settings) as agency:
        listening = asyncio.Event()
        watcher = asyncio.create_task(
            _watch(made.urls["ice"], receipted, committed, total, listening)
        )
        await listening.wait()

        async def send(at: float) -> None:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            draft = a_notice()
            await accept(agency, draft)
            committed[draft.message_id] = time.perf_counter()

        began = time.perf_counter() + 0.5
        async with asyncio.TaskGroup() as group:
            for number in range(total):
                group.create_task(send(began + number / per_second))
        async with asyncio.timeout(WAIT_SECONDS):
            await watcher
    return [(at, receipted[each] - at) for each, at in committed.items()]


async def _watch(
    url: str,
    receipted: dict[UUID, float],
    committed: dict[UUID, float],
    total: int,
    listening: asyncio.Event,
) -> None:
    """Note when each receipt was committed at ICE: the commit tells those who listen."""
    since = datetime.now(UTC)
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as ear,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as eye,
    ):
        await ear.execute('LISTEN "window"')
        listening.set()
        # Others may be receipted at the same time: it ends with the last of ours.
        while len(committed) < total or not committed.keys() <= receipted.keys():
            async for _ in ear.notifies(timeout=1.0, stop_after=1):
                pass
            at = time.perf_counter()
            cursor = await eye.execute(
                "SELECT message_id, answered_at FROM sent"
                " WHERE answer = 'receipt' AND kind = 'fta' AND answered_at >= %s",
                [since],
            )
            for message_id, answered_at in await cursor.fetchall():
                receipted.setdefault(message_id, at)
                since = max(since, answered_at)


def docket(home: Path, *, rows: int) -> dict[str, Any]:
    """Read a large docket with few missed hearings in it: rows a second and peak memory."""
    with ground(home) as made:
        folder = home / "docket"
        began = time.perf_counter()
        made.command(
            f"--agency ice docket synthesize {folder} --rows {rows} --missed 1000 --seed 13"
        )
        made_in = time.perf_counter() - began
        began = time.perf_counter()
        importing = _command(made, f"--agency ice docket import {folder} -o json")
        peak = 0.0
        while importing.poll() is None:
            peak = max(peak, _peak(importing.pid))
            time.sleep(0.05)
        took = time.perf_counter() - began
        summary = json.loads(importing.stdout.read() if importing.stdout else b"{}")
        read = sum(summary["rows"].values())
        return {
            "rows": summary["rows"],
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "synthesize_seconds": round(made_in, 1),
            "seconds": round(took, 2),
            "rows_per_second": round(read / took),
            "peak_memory_mb": peak,
        }


def _command(made: Ground, line: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*NOTICEBUS, "--home", str(made.home), *line.split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )


def _peak(pid: int) -> float:
    try:
        return peak_mb(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def until_all(made: Ground, query: str, expected: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    with psycopg.connect(made.urls["ice"], autocommit=True) as connection:
        while True:
            row = connection.execute(query).fetchone()
            if row is not None and row[0] >= expected:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(query)
            time.sleep(0.05)
