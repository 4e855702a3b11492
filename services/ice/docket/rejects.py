"""Rows that cannot be read or matched: which line, which fault, what to do about it.

A reject never holds a value of the row, because a shifted column may have put a name anywhere. One
row is one reject for each kind of fault, however many hearings it spoils.
"""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import wordings

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

    @property
    def fix(self) -> str:
        """What a person can do about it."""
        return wordings()[self.code].fix.format_map(
            {"file": self.file, "line": self.line, "field": self.column}
        )


def write_rejects(path: Path, rejects: Iterable[Reject]) -> int:
    """Write rejects in order of file and line; returns how many. An older file is replaced whole.

    Line numbers and codes say nothing of a child, so the file may be shown to anybody who may
    correct the tables; it is readable by its owner alone all the same.
    """
    ordered = sorted(set(rejects))
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((r.file, r.line, r.code, r.fix) for r in ordered)
    draft.replace(path)
    return len(ordered)
