"""A command of ICE's as a process of its own that kills itself (SIGKILL) while it imports a docket.

`python -m tests.faults.importing POINT NUMBER LINE...`: at its NUMBER-th batch it dies at POINT:
`reading`, before it is written; `writing`, in its transaction; `committed`, after it. `rejects`:
once all is committed, before rejects are written. `never`: it lives.
"""

import os
import signal
import sys
from typing import Any, NoReturn

from services.cli import main
from services.ice import obligations, releases


def _die_at(point: str, number: int) -> None:
    batches, meet, open_batch = obligations._batches, obligations._meet, obligations._open_batch
    left = [number]

    def due(here: str) -> bool:
        left[0] -= here == point
        return here == point and not left[0]

    def fatal_batches(findings: Any) -> Any:
        for batch in batches(findings):
            if due("reading"):
                _die()
            yield batch

    async def fatal_meet(*given: Any) -> Any:
        found = await meet(*given)
        if due("writing"):
            _die()
        return found

    async def fatal_open_batch(*given: Any) -> Any:
        opened = await open_batch(*given)
        if due("committed"):
            _die()
        return opened

    def fatal_write_rejects(*_: object) -> NoReturn:
        _die()

    faulty: Any = obligations
    faulty._batches, faulty._meet = fatal_batches, fatal_meet
    faulty._open_batch = fatal_open_batch
    if point == "rejects":
        faulty = releases
        faulty.write_rejects = fatal_write_rejects


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead processes do not go on")


if __name__ == "__main__":
    _die_at(sys.argv[1], int(sys.argv[2]))
    sys.argv = ["noticebus", *sys.argv[3:]]
    main()
