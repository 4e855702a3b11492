"""Signing and checking off the event loop, where there is enough of it to be worth a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Up to so many messages take less time than the loop may well be busy for (about 2 ms).
_INLINE_MAX = 8


async def off_the_loop(work: Callable[..., T], *arguments: object, rows: int) -> T:
    """Return `work(*arguments)`, done in a thread when it is about many rows."""
    if rows <= _INLINE_MAX:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
