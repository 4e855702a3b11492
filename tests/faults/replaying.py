"""A replay as a process of its own that kills itself (SIGKILL) at a point.

`python -m tests.faults.replaying SETTINGS PLAN POINT NUMBER`: at its NUMBER-th batch it dies at
POINT: `before` its effect is noted, `noted` before the commit, or `committed` after it. Whatever
the number, it dies when it is `admitted`, `beginning` before that commit, `begun` after it,
`worked` at the end of the last batch, or `finishing`, its place complete, before the last commit.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from services import telemetry
from services.bus import History
from services.ledger.store import Store
from services.replay import Place, StreamSink, find, opened, run
from services.replay.running import Run
from services.replay.sink import Sink
from services.replay.store import plans
from services.settings import Settings

BATCH = 7


async def main(settings: Settings) -> None:
    """Run the plan until it is done, or dead."""
    telemetry.configure(agency=settings.agency, process="replay", level="WARNING")
    _die_at(sys.argv[3], int(sys.argv[4]))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await Store.open(settings.database_url_required))
        plan = await find(store, sys.argv[2])
        sink: Sink | None = None
        if plan.target.stream is not None:
            url = settings.redis_url_required
            history = await stack.enter_async_context(History.open(url, settings=settings.bus))
            sink = StreamSink(history, plan.target.stream)
        elif plan.target.place is Place.FILE:
            sink = stack.enter_context(opened(plan.target))
        await run(
            store,
            settings.agency,
            plan,
            actor="operator",
            reason="drill",
            confirm=plan.changes,
            sink=sink,
            batch_max=BATCH,
        )


# Steps of a run, each with whether it dies once the step is done.
STEPS: dict[str, tuple[Any, str, bool]] = {
    "admitted": (Run, "admit", True),
    "beginning": (plans, "begin", True),
    "begun": (Run, "work", False),
    "worked": (Run, "work", True),
    "finishing": (plans, "finish", True),
}


def _die_at(point: str, number: int) -> None:
    if point in STEPS:
        _die_in(*STEPS[point])
        return
    advance, take = plans.advance, Run._take
    left = [number]

    async def fatal_advance(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if point == "before" and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        asked = await advance(*given, **named)
        if point == "noted" and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return asked

    async def fatal_take(self: Run, *given: Any) -> Any:
        if point == "committed" and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return await take(self, *given)

    setattr(plans, "advance", fatal_advance)  # noqa: B010 - the fault
    setattr(Run, "_take", fatal_take)  # noqa: B010 - the fault


def _die_in(where: Any, name: str, done: bool) -> None:  # noqa: FBT001 - as the table has it
    step = getattr(where, name)

    async def fatal(*given: Any, **named: Any) -> Any:
        if done:
            await step(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(where, name, fatal)


if __name__ == "__main__":
    asyncio.run(main(Settings(**json.loads(Path(sys.argv[1]).read_bytes()))))
