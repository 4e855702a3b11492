"""New files that appear complete, under their name, readable by their owner alone, or not at all.

What is being written has another name and a lock. One that was killed leaves a partial file behind,
encrypted like the whole; the next writer in that folder takes it away.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from schemas.errors import ConflictError, RejectedError

SUFFIX = ".partial"


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give out a file to write; it gets its name, on disk, when the block ends without an error.

    Raises `ConflictError` NB-7013 when the name is taken, NB-5048 while another writes it,
    `RejectedError` NB-5049 when the place cannot be written, the disk is full included.
    """
    with _told(path):
        if path.exists():
            raise ConflictError("NB-7013", path=path)
        _sweep(path.parent)
    partial = path.with_name(f".{path.name}{SUFFIX}")
    with _told(path):
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if not _lock(file.fileno()):
            raise ConflictError("NB-5048", path=path)
        try:
            with _told(path):
                file.truncate()
                yield file
                file.flush()
                os.fsync(file.fileno())
                # A link, because renaming would replace what is there.
                os.link(partial, path)
                _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what writers left that were killed."""
    for partial in folder.glob(f".*{SUFFIX}"):
        with partial.open("rb") as file:
            if _lock(file.fileno()):
                partial.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConflictError("NB-7013", path=path) from None
    except OSError as error:
        raise RejectedError("NB-5049", path=path, cause=error.strerror) from error
