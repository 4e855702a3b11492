"""Where envelopes go that a replay writes: standard output, a new file, or a stream of replays.

A file appears under its name when it is complete, readable by its owner alone, and never in the
place of another. Until then it stands beside that name under one that its plan decides, and is on
disk before it is noted how far the run has come: a run that was paused or killed goes on behind the
last line that was noted. Standard output keeps nothing, so a run to it begins anew. An entry of a
stream has an id that follows from its plan and its number in it, so that a run which was killed
between writing and noting writes it once all the same.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import UUID

from schemas.canonical import canonical, format_time
from schemas.errors import ConflictError, RejectedError
from services.bus import History
from services.replay.places import Target
from services.replay.plans import Plan
from services.replay.survey import Examined

ENTRIES_MAX = 1_000_000


class Sink(Protocol):
    """A place that takes whole envelopes, in order."""

    async def ready(self, plan: Plan) -> None:
        """Raise `ConflictError` if the run of this plan cannot write here."""
        ...

    async def write(self, events: Sequence[Examined], *, before: int) -> int:
        """Take events of which `before` were taken earlier; returns how many these are."""
        ...

    async def finish(self) -> None:
        """Make what was written complete; nothing is written afterwards."""
        ...


@contextmanager
def opened(target: Target) -> Iterator[Sink]:
    """Give out standard output or a file while the block runs.

    A file that is not finished stays beside its name, for the run that goes on. Whether it can be
    written is found out by the run, which puts a refusal on record.
    """
    if target.path is None:
        yield _Stdout()
        return
    file = _File(target.path)
    try:
        yield file
    finally:
        file.close()


def forget(plan: Plan) -> None:
    """Remove what stands beside a file: it is whole and has its name, or its run was cancelled."""
    if plan.target.path is not None:
        _partial(plan.target.path, plan).unlink(missing_ok=True)


def _partial(path: Path, plan: Plan) -> Path:
    return path.with_name(f".{path.name}.{plan.plan_id}.partial")


@dataclass(slots=True)
class StreamSink:
    """A stream of replays, written through `history`; keeps about `entries_max` entries."""

    history: History
    stream: str
    entries_max: int = ENTRIES_MAX
    _milliseconds: int = 0
    _plan_id: UUID | None = None

    async def ready(self, plan: Plan) -> None:
        """Raise `ConflictError` if the stream has entries that are newer than the plan.

        NB-6042 before anything was written, NB-6103 for a run that began.
        """
        self._milliseconds, self._plan_id = int(plan.made_at.timestamp() * 1000), plan.plan_id
        newest = await self._newest()
        if newest > self._milliseconds and plan.begun:
            raise self._overtaken(plan.written)
        if newest > self._milliseconds or (newest == self._milliseconds and not plan.begun):
            raise ConflictError("NB-6042", stream=self.stream, plan_id=plan.plan_id)

    async def write(self, events: Sequence[Examined], *, before: int) -> int:
        """Put envelopes on the stream, each once.

        Raises `ConflictError` NB-6103 if somebody else put newer entries there meanwhile.
        """
        entries = [
            (f"{self._milliseconds}-{number}", event.envelope or b"")
            for number, event in enumerate(events, before + 1)
        ]
        absent = await self.history.append(self.stream, entries, entries_max=self.entries_max)
        # A batch that was written before it was noted may have been trimmed since: the newest entry
        # is ours then. Else it is somebody's who wrote beside us, and ours cannot follow.
        if absent and await self._newest() != self._milliseconds:
            raise self._overtaken(before)
        return len(entries)

    async def finish(self) -> None:
        """Nothing is left to do."""

    async def _newest(self) -> int:
        """Return the milliseconds of the newest entry that the stream ever had, 0 for none."""
        last = await self.history.last_id(self.stream)
        return 0 if last is None else int(last.partition("-")[0])

    def _overtaken(self, written: int) -> ConflictError:
        return ConflictError("NB-6103", stream=self.stream, plan_id=self._plan_id, written=written)


class _Stdout:
    """Standard output."""

    async def ready(self, plan: Plan) -> None:
        """Anything can be written here."""

    async def write(self, events: Sequence[Examined], *, before: int) -> int:
        """Write a line each."""
        for event in events:
            sys.stdout.write(f"{line_of(event).decode()}\n")
        return len(events)

    async def finish(self) -> None:
        """Hand everything on; who reads may have gone."""
        sys.stdout.flush()


class _File:
    """A file under another name, until it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial: Path | None = None
        self._stream: BinaryIO | None = None

    async def ready(self, plan: Plan) -> None:
        """Open what the plan began, cut off behind the last line that was noted.

        Raises `ConflictError` NB-7013 for another file of that name, NB-6090 when lines that were
        noted are gone.
        """
        self._partial = partial = _partial(self._path, plan)
        with _cannot(self._path):
            if self._path.exists() and not (partial.exists() and self._path.samefile(partial)):
                raise ConflictError("NB-7013", path=self._path)
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o600)
            self._stream = stream = os.fdopen(descriptor, "r+b")
            for _ in range(plan.written):
                if not stream.readline().endswith(b"\n"):
                    raise ConflictError("NB-6090", path=partial, written=plan.written)
            stream.truncate()

    async def write(self, events: Sequence[Examined], *, before: int) -> int:
        """Write a line each; they are on disk when this returns."""
        assert self._stream is not None, "a run is ready before it writes"
        with _cannot(self._path):
            for event in events:
                self._stream.write(line_of(event) + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        return len(events)

    async def finish(self) -> None:
        """Give the file its name. Raises `ConflictError` NB-7013 if another took it meanwhile."""
        assert self._partial is not None, "a run is ready before it ends"
        with _cannot(self._path):
            # A link, because renaming would replace what is there.
            if not (self._path.exists() and self._path.samefile(self._partial)):
                os.link(self._partial, self._path)

    def close(self) -> None:
        """Close the file, finished or not."""
        if self._stream is not None:
            self._stream.close()


def line_of(event: Examined) -> bytes:
    """Return a whole event as a line of NDJSON, without its end."""
    message = event.message
    assert event.envelope is not None
    return canonical(
        {
            "message_id": str(message.message_id),
            "kind": str(message.kind),
            "notice_id": None if message.notice_id is None else str(message.notice_id),
            "revision": message.revision,
            "stream": message.stream,
            "sequence": message.sequence,
            "direction": str(message.direction),
            "at": format_time(message.at),
            "envelope": event.envelope.decode("ascii"),
        }
    )


@contextmanager
def _cannot(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConflictError("NB-7013", path=path) from None
    except OSError as error:
        raise RejectedError("NB-6018", path=path, cause=error.strerror) from error
