"""How long one proof bundle takes: gathered, laid out, checked, put on record, on disk."""

import asyncio
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from services.exchange.agency import Agency, open_agency
from services.proof.building import Selection, build
from services.settings import load
from tests.agencies import a_notice, accept, until, value
from tests.benches.ground import Ground, ground, peak_mb
from tests.bundles import run_verify

ACCEPTED_AT_ONCE = 1_000
BUNDLES = 20
WAIT_SECONDS = 600.0


def run(home: Path, *, notices: int) -> dict[str, Any]:
    """Receipt `notices`, then build bundles of single ones among them, as fast as they come."""
    with ground(home) as made:
        made.start("ice")
        made.start("hhs")
        return asyncio.run(_run(made, notices))


async def _run(made: Ground, notices: int) -> dict[str, Any]:
    settings = load("ice", home=made.home).model_copy(
        update={"database_url": made.urls["ice"], "redis_url": made.urls["redis"]}
    )
    async with open_agency(settings) as ice:
        drafts = [a_notice() for _ in range(notices)]
        for first in range(0, notices, ACCEPTED_AT_ONCE):
            await accept(ice, *drafts[first : first + ACCEPTED_AT_ONCE])
        await until(lambda: _receipted(ice, notices), "every receipt", seconds=WAIT_SECONDS)
        took: list[float] = []
        size = 0
        for number in range(BUNDLES):
            draft = drafts[number * notices // BUNDLES]
            path = made.home / f"{number}.zip"
            began = time.perf_counter()
            done = await build(ice, Selection(notice_id=draft.notice_id), path, actor="bench")
            took.append(time.perf_counter() - began)
            size = done.bytes
        began = time.perf_counter()
        verdict = await asyncio.to_thread(run_verify, path)
        assert verdict.code == 0, verdict.out
        return {
            "notices": notices,
            "first_seconds": round(took[0], 3),
            "bundle_seconds": round(median(took), 3),
            "slowest_seconds": round(max(took[1:]), 3),
            "bundle_bytes": size,
            "verify_py_seconds": round(time.perf_counter() - began, 3),
            "peak_mb": peak_mb(os.getpid()),
        }


async def _receipted(ice: Agency, notices: int) -> bool:
    return await value(ice, "SELECT count(*) FROM sent WHERE answer = 'receipt'") == notices
