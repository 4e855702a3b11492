"""Let a second process do a part of a long reading, so that it uses a second core.

It is told what to read on its standard input, and answers on its standard output with JSON: how far
it came, a number a line, and at last an object with what it found. Whatever ends it earlier loses
nothing: whoever started it then reads that part as well.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

# One line holds what was found, however long.
_LINE_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class Beside:
    """A process that reads; `done` is how far it came."""

    process: Process
    done: int = 0

    async def found(self, *, seconds: float) -> dict[str, Any] | None:
        """Return what it found, None when it ended without or took longer than `seconds`."""
        assert self.process.stdout is not None, "it was started with a pipe"
        with suppress(TimeoutError, ValueError):
            async with asyncio.timeout(seconds):
                async for line in self.process.stdout:
                    said = json.loads(line)
                    if isinstance(said, dict):
                        return said
                    self.done = int(said)
        return None


@asynccontextmanager
async def beside(entry: str, asked: Mapping[str, object]) -> AsyncIterator[Beside]:
    """Start `entry` (`module:function`), which calls `asked_of`; it ends with the block at last."""
    module, _, function = entry.partition(":")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"from {module} import {function}; {function}()",
        stdin=PIPE,
        stdout=PIPE,
        limit=_LINE_BYTES_MAX,
    )
    try:
        assert process.stdin is not None, "it was started with a pipe"
        # An address may hold a password: it is never among the arguments, which all can see.
        with suppress(ConnectionError):
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            await process.stdin.drain()
            process.stdin.close()
        yield Beside(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def asked_of(stream: TextIO = sys.stdin) -> dict[str, Any]:
    """Return what this process is asked to read."""
    asked: dict[str, Any] = json.loads(stream.readline())
    return asked


def tell(said: int | Mapping[str, object]) -> None:
    """Say how far this process came, or what it found."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
