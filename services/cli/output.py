"""Data on standard output, in the format that was asked for; nothing else goes there.

`json` is one object, `{"schema": ..., "generated_at": ..., "items": [...]}`; `ndjson` one bare
object a line; `csv` UTF-8 and safe to open in a spreadsheet; `plain` one `key: value` a line for
screen readers. A table shows the columns worth reading, every other format all fields.
"""

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import TextIO, assert_never
from uuid import UUID

from services.cli.everywhere import Output
from services.cli.exits import say

Cell = object
Item = Mapping[str, Cell]

SCHEMA_PREFIX = "noticebus.v1/"
# A spreadsheet takes a cell that starts with one of these for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the item's field, and what stands above it."""

    field: str
    title: str | None = None
    right: bool = False

    @property
    def heading(self) -> str:
        """What stands above the column."""
        return self.title if self.title is not None else self.field.replace("_", " ").upper()


def chosen(output: Output | None) -> Output:
    """Return the format: as asked, else a table, or plain lines on a terminal that cannot draw."""
    if output is not None:
        return output
    return Output.PLAIN if os.environ.get("TERM") == "dumb" else Output.TABLE


def emit(
    items: Iterable[Item],
    *,
    schema: str,
    columns: Sequence[Column],
    output: Output | None,
    empty: str = "",
    stream: TextIO | None = None,
) -> int:
    """Write a list; returns the number of items. `empty` is said on standard error when none."""
    out = stream or sys.stdout
    count = 0
    match chosen(output):
        case Output.JSON:
            rows = [plain_value(item) for item in items]
            count = len(rows)
            document = {
                "schema": SCHEMA_PREFIX + schema,
                "generated_at": plain_value(datetime.now(UTC)),
                "items": rows,
            }
            out.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        case Output.NDJSON:
            for item in items:
                out.write(json.dumps(plain_value(item), ensure_ascii=False) + "\n")
                count += 1
        case Output.CSV:
            count = _emit_csv(items, columns, out)
        case Output.PLAIN:
            for item in items:
                if count:
                    out.write("\n")
                _emit_lines(item, out)
                count += 1
        case Output.TABLE:
            listed = list(items)
            count = len(listed)
            if listed:
                _emit_table(listed, columns, out)
        case never:
            assert_never(never)
    if not count and empty:
        say(empty)
    return count


def emit_one(
    item: Item,
    *,
    schema: str,
    output: Output | None,
    people: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Write one object; `people` are the lines of a table's place, else `key: value` lines."""
    out = stream or sys.stdout
    match chosen(output):
        case Output.JSON:
            document = {"schema": SCHEMA_PREFIX + schema, **_object(item)}
            out.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        case Output.NDJSON:
            out.write(json.dumps(plain_value(item), ensure_ascii=False) + "\n")
        case Output.CSV:
            _emit_csv([item], [Column(name) for name in item], out)
        case Output.PLAIN:
            _emit_lines(item, out)
        case Output.TABLE:
            if people:
                out.write("".join(f"{printable(line)}\n" for line in people))
            else:
                _emit_lines(item, out)
        case never:
            assert_never(never)


def emit_text(text: str, *, stream: TextIO | None = None) -> None:
    """Write text as it is: a schema, a key, a party file."""
    out = stream or sys.stdout
    out.write(text if text.endswith("\n") else text + "\n")


def plain_value(value: Cell) -> object:
    """Return a value as JSON has it: times in UTC with `Z`, ids as text."""
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return plain_value(value.value)
        case str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case UUID() | Path():
            return str(value)
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain_value(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain_value(each) for each in value]
        case _:
            raise TypeError(f"{type(value).__qualname__} has no place in output")


def readable(value: Cell) -> str:
    """Return a value as people read it in a cell; unknown or absent is a dash."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}" if abs(value) >= 10_000 else str(value)
        case float():
            return f"{value:,.2f}"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case list() | tuple():
            return ", ".join(readable(each) for each in value) or "-"
        case Mapping():
            return ", ".join(f"{key} {readable(each)}" for key, each in value.items()) or "-"
        case _:
            return printable(str(plain_value(value)))


def printable(text: str) -> str:
    """Return text with control characters made visible, so that no data can drive a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def safe_cell(value: Cell) -> str:
    """Return a CSV cell that no spreadsheet runs: text that starts like a formula is quoted."""
    plain = plain_value(value)
    if plain is None:
        return ""
    if isinstance(plain, bool | int | float):
        return str(plain).lower() if isinstance(plain, bool) else str(plain)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _object(item: Item) -> dict[str, object]:
    return {str(key): plain_value(each) for key, each in item.items()}


def _emit_csv(items: Iterable[Item], columns: Sequence[Column], out: TextIO) -> int:
    writer = csv.writer(out, lineterminator="\r\n")
    count = 0
    names: list[str] = []
    for item in items:
        if not count:
            names = list(item)
            writer.writerow(names)
        writer.writerow([safe_cell(item.get(name)) for name in names])
        count += 1
    if not count:
        writer.writerow([column.field for column in columns])
    return count


def _emit_lines(item: Item, out: TextIO) -> None:
    for key, value in item.items():
        out.write(f"{printable(str(key))}: {readable(value)}\n")


def _emit_table(items: Sequence[Item], columns: Sequence[Column], out: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=False,
        )
    for item in items:
        # Text, never markup: a bracket in data is a bracket.
        table.add_row(*(Text(readable(item.get(column.field))) for column in columns))
    terminal = out.isatty()
    # Drawn first and written then, because Rich ends the program when a reader has gone.
    drawn = io.StringIO()
    console = Console(
        file=drawn,
        force_terminal=terminal,
        no_color=not terminal or bool(os.environ.get("NO_COLOR")),
        # What is not a terminal has no width to fold at.
        width=shutil.get_terminal_size().columns if terminal else 100_000,
        highlight=False,
    )
    console.print(table)
    out.write(drawn.getvalue())
