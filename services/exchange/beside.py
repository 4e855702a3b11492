"""Let a second process answer questions, so that long reading uses a second core.

It is told on its standard input, a line a question, and answers on its standard output in the same
order, all of it JSON objects. It ends when its input does: with whoever started it, whatever ended
that. What it did not answer is nobody's loss: whoever asked does that part as well.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

# An answer is one line, however much was found.
_LINE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Beside:
    """A process that answers one question after another."""

    process: Process

    async def ask(self, question: Mapping[str, object]) -> None:
        """Ask something; some questions may wait there while it works on another."""
        assert self.process.stdin is not None, "it was started with a pipe"
        # One that has ended says so by not answering.
        with suppress(ConnectionError):
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            await self.process.stdin.drain()

    async def answer(self, *, seconds: float) -> dict[str, Any] | None:
        """Return its next answer, None when it ended without or takes longer than `seconds`."""
        assert self.process.stdout is not None, "it was started with a pipe"
        with suppress(TimeoutError, ValueError):
            async with asyncio.timeout(seconds):
                said = json.loads(await self.process.stdout.readline())
                return said if isinstance(said, dict) else None
        return None


@asynccontextmanager
async def beside(entry: str) -> AsyncIterator[Beside]:
    """Start `entry` (`module:function`), which answers `questions`; it ends with the block."""
    module, _, function = entry.partition(":")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"from {module} import {function}; {function}()",
        stdin=PIPE,
        stdout=PIPE,
        limit=_LINE_BYTES_MAX,
        # Ctrl-C is for whoever started it.
        start_new_session=True,
    )
    try:
        yield Beside(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def questions() -> Iterator[dict[str, Any]]:
    """Yield what this process is asked, until there is nothing more to come."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(said: Mapping[str, object]) -> None:
    """Answer the oldest question that has no answer yet."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
