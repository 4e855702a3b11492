"""Where the lines of a replay go that writes stored envelopes: standard output, or a new file.

A file appears under its name when it is complete, readable by its owner alone, and never in the
place of another.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from schemas.errors import ConflictError, RejectedError
from services.replay.selection import Target


class Sink(Protocol):
    """A place that takes lines, one event each."""

    def write(self, line: bytes) -> None:
        """Take one line without its end."""
        ...

    def finish(self) -> None:
        """Make what was written complete; nothing is written afterwards."""
        ...


@contextmanager
def opened(target: Target) -> Iterator[Sink]:
    """Open the place a target names while the block runs; an unfinished file is removed.

    Raises `ConflictError` NB-7013 for a file that is there, `RejectedError` NB-6018 for one that
    cannot be written.
    """
    if target.path is None:
        yield _Stdout()
        return
    path = target.path
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with _cannot(path):
            if path.exists():
                raise ConflictError("NB-7013", path=path)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            yield _File(path, partial, stream)
    finally:
        partial.unlink(missing_ok=True)


class _Stdout:
    """Standard output."""

    def write(self, line: bytes) -> None:
        """Take one line."""
        sys.stdout.write(f"{line.decode()}\n")

    def finish(self) -> None:
        """Hand everything on; who reads may have gone."""
        sys.stdout.flush()


class _File:
    """A file under another name, until it is complete."""

    def __init__(self, path: Path, partial: Path, stream: BinaryIO) -> None:
        self._path, self._partial, self._stream = path, partial, stream

    def write(self, line: bytes) -> None:
        """Take one line."""
        with _cannot(self._path):
            self._stream.write(line + b"\n")

    def finish(self) -> None:
        """Give the file its name. Raises `ConflictError` NB-7013 if another took it meanwhile."""
        with _cannot(self._path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            # A link, because renaming would replace what is there.
            os.link(self._partial, self._path)


@contextmanager
def _cannot(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConflictError("NB-7013", path=path) from None
    except OSError as error:
        raise RejectedError("NB-6018", path=path, cause=error.strerror) from error
