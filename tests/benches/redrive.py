"""What a redrive of thousands costs those who send today: latency without it, beside it, after it.

The letters are real: signed under a key that the recipient trusts only afterwards, on the very lane
that live notices take, so that both want the same rows, sealer and processors.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from services.exchange.agency import open_agency
from services.settings import load
from tests.agencies import a_notice, accept, until, value
from tests.benches.ground import Ground, Watched, ground, introduce, quantiles
from tests.benches.pipeline import measured

WAIT_SECONDS = 600.0
ACCEPTED_AT_ONCE = 500
# Long enough for a redrive of ten thousand at the pace that it finds by itself.
BESIDE_SECONDS = 90
ALONE_SECONDS = 30


def run(home: Path, *, letters: int, per_second: int) -> dict[str, Any]:
    """Set `letters` aside, then redrive them while `per_second` live notices go on."""
    with ground(home) as made:
        made.start("hhs")
        made.command("--agency ice keys rotate")
        made.start("ice")
        asyncio.run(_set_aside(made, letters))
        introduce(made, "ice", "hhs")
        # The first second of a process is slower than any other, and nobody's doing.
        asyncio.run(measured(made, per_second, 5))
        before = asyncio.run(measured(made, per_second, ALONE_SECONDS))
        during, redriven, took = asyncio.run(_beside(made, letters, per_second))
        after = asyncio.run(measured(made, per_second, ALONE_SECONDS))
        memory = made.memory_mb()
    alone = quantiles([each * 1000 for _, each in (*before, *after)])
    beside = quantiles([each * 1000 for _, each in during])
    return {
        "letters": letters,
        "taken": redriven.said["taken"],
        "failed": redriven.said["failed"],
        "redrive_seconds": round(took, 1),
        "letters_per_second": round(letters / took),
        "live_per_second": per_second,
        "live_notices_beside": len(during),
        "without_redrive_ms": alone,
        "with_redrive_ms": beside,
        "p99_ratio": round(beside["p99"] / alone["p99"], 2),
        "peak_memory_mb": {"redrive": redriven.peak_mb, **memory},
        "lines_of_progress": redriven.told,
    }


async def _set_aside(made: Ground, letters: int) -> None:
    async with (
        open_agency(_settings(made, "ice")) as ice,
        open_agency(_settings(made, "hhs")) as hhs,
    ):
        for at in range(0, letters, ACCEPTED_AT_ONCE):
            count = min(ACCEPTED_AT_ONCE, letters - at)
            await accept(ice, *(a_notice() for _ in range(count)))

        async def all_dead() -> bool:
            dead = await value(hhs, "SELECT count(*) FROM dead_letter WHERE state = 'open'")
            told = await value(ice, "SELECT count(*) FROM sent WHERE answer = 'refusal'")
            return dead == told == letters

        await until(all_dead, "every dead letter", seconds=WAIT_SECONDS)


def _settings(made: Ground, agency: str) -> Any:
    return load(agency, home=made.home).model_copy(update={"database_url": made.urls[agency]})


async def _beside(
    made: Ground, letters: int, per_second: int
) -> tuple[list[tuple[float, float]], Watched, float]:
    """Redrive all letters; returns the live notices that were committed meanwhile."""
    began = time.perf_counter()
    redriving = asyncio.create_task(asyncio.to_thread(_redrive, made, letters))
    live = asyncio.create_task(measured(made, per_second, BESIDE_SECONDS))
    summary = await redriving
    ended = time.perf_counter()
    return [each for each in await live if each[0] <= ended], summary, ended - began


def _redrive(made: Ground, letters: int) -> Watched:
    line = f"--agency hhs dead redrive --all --reason bench --confirm {letters}"
    return made.watched(*line.split())
