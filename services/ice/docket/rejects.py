"""Rows that cannot be read or matched: which line, which fault, what to do about it.

A reject never holds a value of the row, because a shifted column may have put a name anywhere. One
row is one reject for each kind of fault, however many hearings it spoils.
"""

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from schemas.errors import NoticeBusError, UnavailableError, wordings

log = structlog.get_logger()

HEADER = ("file", "line", "code", "fix")


class RowFault(Exception):  # noqa: N818 - a fault of the row, never an error of the program
    """One row cannot be used; caught in this package, where its file and line are known."""

    def __init__(self, code: str, column: str = "") -> None:
        self.code, self.column = code, column
        super().__init__(code)


@dataclass(frozen=True, slots=True, order=True)
class Reject:
    """One row that was left out; `line` is 1-based with the heading as line 1."""

    file: str
    line: int
    code: str
    # The column at fault, where one is.
    column: str = field(default="", compare=False)
    # What to do, where more than file, line and column stands in its words.
    said: str | None = field(default=None, compare=False)

    @property
    def fix(self) -> str:
        """What a person can do about it."""
        if self.said is not None:
            return self.said
        return wordings()[self.code].fix.format_map(
            {"file": self.file, "line": self.line, "field": self.column}
        )


def unforeseen(error: Exception) -> RowFault:
    """Return the fault of a row over which this program stumbled; its words name the class alone.

    What no row is to blame for goes on as it is: an outage, and memory that ran out.
    """
    if isinstance(error, (UnavailableError, MemoryError, OSError)):
        raise error
    log.warning("row set aside", exc_info=error)
    return RowFault("NB-1090", type(error).__name__)


def write_rejects(path: Path, rejects: Iterable[Reject]) -> int:
    """Write rejects in the order they come in; returns how many. An older file is replaced whole.

    Line numbers and codes say nothing of a child, so the file may be shown to anybody who may
    correct the tables; it is readable by its owner alone all the same. Raises `UnavailableError`
    NB-1091 where the file cannot be written.
    """
    draft = path.with_name(f"{path.name}.new")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for reject in rejects:
                writer.writerow((reject.file, reject.line, reject.code, reject.fix))
                count += 1
        draft.replace(path)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise UnavailableError("NB-1091", path=path, reason=reason) from None
    return count


@contextmanager
def kept_at(path: Path | None, rejects: Iterable[Reject]) -> Iterator[None]:
    """Write what was rejected so far to `path` if the block ends by an error, which goes on."""
    try:
        yield
    except BaseException:
        try:
            if path is not None:
                write_rejects(path, rejects)
        except NoticeBusError as second:
            # Whoever called hears of the first; the file that is there stays as it was.
            log.exception("rejects not written", code=second.code)
        raise
