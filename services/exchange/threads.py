"""Signing and checking off the event loop, where there is enough of it to be worth a thread."""

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# How long whoever has the interpreter keeps it when another thread wants it. With the usual 5 ms a
# checkpoint that is written in a thread may wait for a busy loop after each system call: the median
# from commit to receipt was 1 to 4 ms higher.
_SHARE_SECONDS = 0.000_5
# Up to so many messages take less time than the loop may well be busy for (about 2 ms).
_INLINE_MAX = 8


def share_often() -> None:
    """Let threads and the loop wait for each other briefly; for the whole process."""
    sys.setswitchinterval(_SHARE_SECONDS)


async def off_the_loop(work: Callable[..., T], *arguments: object, rows: int) -> T:
    """Return `work(*arguments)`, done in a thread when it is about many rows."""
    if rows <= _INLINE_MAX:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
