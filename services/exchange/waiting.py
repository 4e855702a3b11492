"""Waits that end: each returns when its event comes, when told to stop, or after some seconds."""

import asyncio
import contextlib
from collections.abc import Awaitable


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Return after `seconds`, or at once when told to stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def unless_stopped(work: Awaitable[None], stop: asyncio.Event) -> None:
    """Do `work` to its end, or leave it when told to stop; raises what it raises."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait([working])


async def until_set(
    event: asyncio.Event, stop: asyncio.Event, *, seconds: float | None = None
) -> None:
    """Return when `event` is set, when told to stop, or after `seconds`."""
    if event.is_set() or stop.is_set():
        return
    waiters = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
