"""What it costs to make all projections again: both sides, after a backlog went the whole way.

`python -m tests.benches.shadow URL AGENCY` compares one store, in a process of its own.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.ledger.store import Store
from services.replay.shadow import shadow
from services.reports.as_of import knowing, notice_then
from services.reports.usage import usage
from tests.benches.ground import ROOT, ground, peak_mb
from tests.benches.pipeline import until_all


def run(home: Path, *, notices: int) -> dict[str, Any]:
    """Import as many notices, wait for their receipts, and compare both sides."""
    with ground(home) as made:
        docket = home / "docket"
        rows = notices * 3
        made.command(
            f"--agency ice docket synthesize {docket} --rows {rows} --missed {notices} --seed 12"
        )
        for agency in ("ice", "hhs"):
            made.start(agency)
        imported = json.loads(
            made.command(f"--agency ice docket import {docket} -o json", allowed=(0, 5))
        )
        until_all(
            made, "SELECT count(*) FROM sent WHERE answer = 'receipt'", int(imported["recorded"])
        )
        made.stop()
        return {
            "notices": imported["recorded"],
            **{agency: _apart(made.urls[agency], agency) for agency in ("ice", "hhs")},
        }


def _apart(url: str, agency: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benches.shadow", url, agency],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


async def _compare(url: str, agency: str) -> dict[str, Any]:
    store = await Store.open(url)
    try:
        began = time.perf_counter()
        found = await shadow(store, agency)
        took = {"seconds": round(time.perf_counter() - began, 2)}
        if agency == "ice":
            now = datetime.now(UTC)
            began = time.perf_counter()
            await usage(store, since=None, until=None, actor="bench", as_of=now)
            took["usage_as_of_seconds"] = round(time.perf_counter() - began, 2)
            async with knowing(store, "ice", now) as then, then.reading.transaction() as tx:
                cursor = await tx.execute("SELECT notice_id FROM obligation LIMIT 1")
                [(notice_id,)] = await cursor.fetchall()
            began = time.perf_counter()
            await notice_then(store, notice_id, now, actor="bench")
            took["notice_as_of_seconds"] = round(time.perf_counter() - began, 2)
    finally:
        await store.close()
    return {
        **took,
        "rows": found.compared,
        "differing": found.differing,
        "peak_memory_mb": peak_mb(os.getpid()),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_compare(*sys.argv[1:3]))))
