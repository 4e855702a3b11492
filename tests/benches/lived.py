"""What it costs to verify and to export a ledger that was lived in, as the commands do it.

Synthetic records have no messages, and most of the work of `ledger verify` is in their signatures.
So notices are found, sent, receipted, taken, acknowledged and closed here, by the agencies' own
processes and by the code that a docket and a clerk call; then both sides are verified and exported
by the real command, in a process of its own. What is in the stores is said beside the figures.
"""

import asyncio
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from services.exchange.agency import Agency, open_agency
from services.hhs import queue
from services.ice import obligations
from services.settings import load
from tests.agencies import until, value
from tests.benches.ground import NOTICEBUS, ROOT, Ground, ground, peak_mb
from tests.notices_made import a_finding, recently

# A notice that was taken and closed makes as many records at ICE, receipts of batches aside; HHS
# has one less.
RECORDS_A_NOTICE = 6
FOUND_AT_ONCE = 1_000
CLERKS = 8
WAIT_SECONDS = 7_200.0

OWED = (
    "SELECT (SELECT count(*) FROM sent WHERE answer IS NULL) + (SELECT count(*) FROM outbox)"
    " + (SELECT count(*) FROM unsealed)"
)
CASES = "SELECT count(*) FROM case_file"
CLOSED = "SELECT count(*) FROM record WHERE action = 'notice.closed'"
UNSEEN = (
    "SELECT count(*) FROM checkpoint WHERE size > (SELECT coalesce(max(size), 0) FROM cosignature)"
)


def run(home: Path, *, records: int) -> dict[str, Any]:
    """Live until ICE has about as many `records`, then verify and export both sides."""
    notices = max(1, records // RECORDS_A_NOTICE)
    with ground(home) as made:
        began = time.perf_counter()
        for agency in ("ice", "hhs"):
            made.start(agency)
        asyncio.run(_live(made, notices))
        made.stop()
        lived = time.perf_counter() - began
        return {
            "notices": notices,
            "lived_seconds": round(lived, 1),
            **{agency: _audited(made, agency) for agency in ("ice", "hhs")},
        }


async def _live(made: Ground, notices: int) -> None:
    settings = {
        name: load(name, home=made.home).model_copy(
            update={"database_url": made.urls[name], "redis_url": made.urls["redis"]}
        )
        for name in ("ice", "hhs")
    }
    day = recently()
    async with open_agency(settings["ice"]) as ice, open_agency(settings["hhs"]) as hhs:
        for first in range(1, notices + 1, FOUND_AT_ONCE):
            numbers = range(first, min(first + FOUND_AT_ONCE, notices + 1))
            found = [a_finding(number, on=day) for number in numbers]
            await obligations.open_findings(ice.store, found, release="bench", actor="importer")
        await until(partial(_is, hhs, CASES, notices), "every notice", seconds=WAIT_SECONDS)
        async with hhs.store.transaction() as tx:
            cursor = await tx.execute("SELECT notice_id FROM case_file ORDER BY notice_id")
            cases = [row[0] for row in await cursor.fetchall()]
        async with asyncio.TaskGroup() as clerks:
            for number in range(CLERKS):
                clerks.create_task(_work(hhs, cases[number::CLERKS], f"clerk {number}"))
        await until(partial(_is, ice, CLOSED, notices), "every outcome", seconds=WAIT_SECONDS)
        for agency in (ice, hhs):
            await until(partial(_is, agency, OWED, 0), "rest", seconds=WAIT_SECONDS)
            await until(partial(_is, agency, UNSEEN, 0), "a witness", seconds=WAIT_SECONDS)


async def _work(hhs: Agency, cases: Sequence[UUID], clerk: str) -> None:
    for notice_id in cases:
        await queue.take(hhs.store, notice_id, actor=clerk)
        await queue.outcome(hhs.store, notice_id, code="SAFE_AT_ADDRESS", actor=clerk)


async def _is(agency: Agency, query: str, expected: object) -> bool:
    return await value(agency, query) == expected


def _audited(made: Ground, agency: str) -> dict[str, Any]:
    """Say what a store holds, then verify and export it."""
    with psycopg.connect(made.urls[agency], autocommit=True) as connection:
        connection.execute("ANALYZE")
        actions: dict[str, int] = dict(
            connection.execute(
                "SELECT action, count(*) FROM record GROUP BY action ORDER BY 2 DESC, 1"
            ).fetchall()
        )
        [(sent, taken)] = connection.execute(
            "SELECT (SELECT count(*) FROM sent), (SELECT count(*) FROM inbox)"
        ).fetchall()
    whole = _measured(made, agency, "ledger", "verify")
    tree = _measured(made, agency, "ledger", "verify", "--tree-only")
    exported = _measured(made, agency, "ledger", "export", str(made.home / f"{agency}-log"))
    said = whole["said"]
    if not said["valid"] or said["messages"] != sent + taken or said["not_checked"]:
        raise RuntimeError(f"the ledger of {agency} was not verified as a whole: {said}")
    return {
        "records": said["size"],
        "checkpoints": said["checkpoints"],
        "messages_sent": sent,
        "messages_taken": taken,
        "answers": said["answers"],
        "records_by_action": actions,
        "verify": _figures(whole, said["size"]),
        "verify_tree_only": _figures(tree, said["size"]),
        "export": _figures(exported, exported["said"]["size"]),
    }


def _figures(measured: dict[str, Any], records: int) -> dict[str, float]:
    seconds = measured["seconds"]
    return {
        **{name: measured[name] for name in ("seconds", "cpu_seconds", "server_cpu_seconds")},
        "records_per_second": round(records / seconds),
        "seconds_for_a_million": round(seconds * 1_000_000 / records, 1),
        "peak_memory_mb": measured["peak"],
    }


def _measured(made: Ground, agency: str, *words: str) -> dict[str, Any]:
    """Run a command: its data, seconds, processor seconds of it and of servers, peak megabytes."""
    line = [*NOTICEBUS, "--home", str(made.home), "--agency", agency, *words, "-q", "-o", "json"]
    servers = sum(made.cpu_seconds().values())
    spent = _children()
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile() as out,
        subprocess.Popen(line, cwd=ROOT, stdout=out) as process,
    ):
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        out.seek(0)
        said = out.read()
    if process.returncode:
        raise RuntimeError(f"`{' '.join(words)}` at {agency} ended with {process.returncode}")
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(_children() - spent, 2),
        "server_cpu_seconds": round(sum(made.cpu_seconds().values()) - servers, 2),
        "peak": peak,
        "said": json.loads(said),
    }


def _children() -> float:
    """Return the processor seconds of all processes that we started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(pid: int) -> float:
    try:
        return peak_mb(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
