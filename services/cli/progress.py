"""How far long work has come: a bar on a terminal, else one line every five seconds.

Always on standard error, so that data stays clean; a terminal is what `isatty` says and nothing
else, because CI systems force colours and would be flooded with redrawn bars.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LINE_SECONDS = 5.0


class Progress:
    """One piece of long work; `update` as often as you like, from one thread."""

    def __init__(
        self,
        what: str,
        *,
        unit: str,
        total: int | None = None,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.what, self.unit, self.total = what, unit, total
        self.done = 0
        self._note = ""
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._bar: tuple[Bar, TaskID] | None = None
        self._started = self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._started = self._said = time.monotonic()
        if self._quiet or not self._stream.isatty():
            return self
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=Console(file=self._stream),
            transient=False,
        )
        self._bar = bar, bar.add_task(self.what, total=self.total, rate="", note="")
        bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._draw(*self._bar)
            self._bar[0].stop()
        elif not self._quiet and kind is None and time.monotonic() - self._started >= LINE_SECONDS:
            self._say()

    def update(
        self,
        done: int,
        *,
        total: int | None = None,
        what: str | None = None,
        unit: str | None = None,
        note: str | None = None,
    ) -> None:
        """Say how far the work has come, in units from the start."""
        self.done = done
        self.total = total if total is not None else self.total
        self.what = what if what is not None else self.what
        self.unit = unit if unit is not None else self.unit
        self._note = note if note is not None else self._note
        if self._bar is not None:
            self._draw(*self._bar)
        elif not self._quiet and time.monotonic() - self._said >= LINE_SECONDS:
            self._say()

    def advance(self, count: int = 1, *, note: str | None = None) -> None:
        """Say that `count` more units are done."""
        self.update(self.done + count, note=note)

    @property
    def finished(self) -> str:
        """What was finished so far, for the last words of interrupted work."""
        of_all = f" of {self.total:,}" if self.total else ""
        return f"{self.what}: {self.done:,}{of_all} {self.unit}"

    def _rate(self) -> str:
        seconds = time.monotonic() - self._started
        return f"{self.done / seconds:,.0f}/s" if seconds > 0.2 else ""

    def _draw(self, bar: "Bar", task: "TaskID") -> None:
        bar.update(
            task,
            completed=self.done,
            total=self.total,
            description=self.what,
            rate=self._rate(),
            note=self._note,
        )

    def _say(self) -> None:
        self._said = time.monotonic()
        share = f" {100 * self.done // self.total} %" if self.total else ""
        rate = f" {self._rate()}" if self._rate() else ""
        note = f" {self._note}" if self._note else ""
        print(f"{self.finished}{share}{rate}{note}", file=self._stream, flush=True)
