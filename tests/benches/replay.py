"""What a replay costs: the difference over everything that HHS took, and all of it again.

Notices are taken as delivery takes them, signed and encrypted, without a bus between; a process of
its own signs them meanwhile. Then every case is thrown away. Each step is the real command in a
process of its own, so that start, progress and memory are part of the figure. Plan and run are
measured at a tenth as well: memory does not grow with what is replayed.

The size that is demanded takes about half an hour, store and all, so it is asked for (`--full`).
Otherwise its figures are worked out from the smaller ones, and the result says which it was.
"""

import asyncio
import multiprocessing
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psycopg

from services.bus import Entry
from services.exchange.agency import Agency, open_agency
from services.exchange.process import delivery_of
from services.hhs.casework import CaseWork
from services.settings import Settings, load
from tests.benches.ground import Ground, Watched, ground
from tests.replays import an_entry

FULL = 448_000
PLAN_MINUTES, RUN_MINUTES = 3, 12
# As many as delivery reads at once: it checks the next chunk while one is committed.
AT_ONCE = 1_260
AHEAD = 4


def run(home: Path, *, notices: int) -> dict[str, Any]:
    """Take `notices`; plan and run a tenth of them and all, with every case there and none."""
    tenth = notices // 10
    part = ("--sequence", f"{{ice.hhs.live.0}}:out:1-{tenth}")
    with ground(home) as made:
        began = time.perf_counter()
        asyncio.run(_take(made, notices))
        taken_in = time.perf_counter() - began
        _empty(made, "ANALYZE")
        small, same = _plan(made, *part), _plan(made)
        _empty(made, "TRUNCATE case_file, case_event", "ANALYZE")
        small_run = _run(made, _plan(made, *part))
        _empty(made, "TRUNCATE case_file, case_event", "ANALYZE")
        lost = _plan(made)
        ran = _run(made, lost)
        shadow = made.watched("--agency", "hhs", "replay", "plan", "--to", "shadow")
    found = (same.said["same"], small_run.said["applied"], ran.said["applied"])
    if found != (notices, tenth, notices):
        raise RuntimeError("the replay did other than it was asked")
    return {
        "notices": notices,
        "measured_at_full_size": notices >= FULL,
        "taken_seconds": round(taken_in, 1),
        "taken_per_second": round(notices / taken_in),
        "plan_seconds": same.seconds,
        "plan_per_second": round(notices / same.seconds),
        "plan_of_an_empty_store_seconds": lost.seconds,
        "run_seconds": ran.seconds,
        "run_per_second": round(notices / ran.seconds),
        "shadow_afterwards_seconds": shadow.seconds,
        "minutes_of_448000": {
            "from": "measured" if notices >= FULL else f"worked out from {tenth:,} and {notices:,}",
            "plan": _minutes(small, same, notices),
            "plan_demanded": PLAN_MINUTES,
            "run": _minutes(small_run, ran, notices),
            "run_demanded": RUN_MINUTES,
        },
        "peak_memory_mb": {
            f"plan of {tenth}": small.peak_mb,
            f"plan of {notices}": same.peak_mb,
            f"plan of {notices} into an empty store": lost.peak_mb,
            f"run of {tenth}": small_run.peak_mb,
            f"run of {notices}": ran.peak_mb,
        },
        "lines_of_progress": {"plan": same.told, "run": ran.told},
    }


def _plan(made: Ground, *selected: str) -> Watched:
    return made.watched("--agency", "hhs", "replay", "plan", "--limit", "1", *selected)


def _run(made: Ground, planned: Watched) -> Watched:
    plan_id = planned.said["plan_id"]
    if planned.said["needs_approval"]:
        made.command(f"--agency hhs --as second replay approve {plan_id} --reason bench")
    confirm = ("--confirm", str(planned.said["changes"]))
    return made.watched("--agency", "hhs", "replay", "run", plan_id, "--reason", "bench", *confirm)


def _minutes(small: Watched, large: Watched, notices: int) -> float:
    """Return how long all would take at the pace between the two sizes, start of the program once.

    Of the whole size it is what was measured.
    """
    pace = (large.seconds - small.seconds) / (notices - notices // 10)
    return round((large.seconds + pace * max(0, FULL - notices)) / 60, 2)


def _empty(made: Ground, *statements: str) -> None:
    with psycopg.connect(made.urls["hhs"], autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def _take(made: Ground, notices: int) -> None:
    """Let HHS take so many notices, while another process signs those that come next."""
    async with open_agency(_settings(made.home, made.urls, "hhs")) as hhs:
        delivery = delivery_of(hhs, CaseWork())
        with ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open_signer,
            initargs=(made.home, made.urls),
        ) as signers:
            firsts = deque(range(1, notices + 1, AT_ONCE))
            ahead: deque[Future[Sequence[Entry]]] = deque()
            while firsts or ahead:
                while firsts and len(ahead) < AHEAD:
                    first = firsts.popleft()
                    upto = min(first + AT_ONCE, notices + 1)
                    ahead.append(signers.submit(_signed, first, upto))
                await delivery.take(await asyncio.wrap_future(ahead.popleft()))


_signer: Agency


def _open_signer(home: Path, urls: Mapping[str, str]) -> None:
    """Read ICE's keys once, in the process that signs."""

    async def opened() -> Agency:
        async with open_agency(_settings(home, urls, "ice")) as ice:
            return ice

    global _signer
    _signer = asyncio.run(opened())


def _signed(first: int, upto: int) -> Sequence[Entry]:
    return [an_entry(_signer, sequence) for sequence in range(first, upto)]


def _settings(home: Path, urls: Mapping[str, str], agency: str) -> Settings:
    return load(agency, home=home).model_copy(update={"database_url": urls[agency]})
