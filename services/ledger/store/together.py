"""Ask several things of one pipelined transaction in one round trip."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar, overload

from psycopg.errors import PipelineAborted

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


@overload
async def together(a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
@overload
async def together(a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> tuple[A, B, C]: ...
@overload
async def together(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
) -> tuple[A, B, C, D]: ...
@overload
async def together(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
) -> tuple[A, B, C, D, E]: ...
async def together(*questions: Awaitable[object]) -> tuple[object, ...]:
    """Return the answers of functions that each execute one statement and fetch its rows.

    Statements reach the server in the order given, each with a snapshot of its own: what comes
    after a lock sees what was committed before it. Outside `Store.pipelined` they go one by one.
    Every question has ended when this returns or raises; it raises the first failure.
    """
    answers = await asyncio.gather(*questions, return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if failures:
        # What came behind a failure in the pipeline only says that it was not tried.
        raise next((f for f in failures if not isinstance(f, PipelineAborted)), failures[0])
    return tuple(answers)
