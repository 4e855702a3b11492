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
from dataclasses import fields as fields_of
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
# Fields whose numbers name something.
NAMING = ("key", "_id", "index", "sequence", "seed")
# A spreadsheet takes a cell that starts with one of these for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the item's field, and what stands above it.

    `width` is for tables that are written before all of their rows are known. What is `drawn` is
    for eyes: it stands in a table and in no other format.
    """

    field: str
    title: str | None = None
    right: bool = False
    width: int = 0
    drawn: bool = False

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
    fields: Sequence[str] = (),
    also: Item | None = None,
    stream: TextIO | None = None,
) -> int:
    """Write a list; returns the number of items. `empty` is said on standard error when none.

    `fields` are all that an item may have, in order, where the columns do not name them all: a CSV
    has this header, with items and without. `also` are members of the JSON document beside its
    items.
    """
    out = stream or sys.stdout
    count = 0
    if chosen(output) is not Output.TABLE:
        items, columns = _undrawn(items, columns)
        items = (_known(item, fields) for item in items)
    match chosen(output):
        case Output.JSON:
            rows = [plain_value(item) for item in items]
            count = len(rows)
            document = {
                "schema": SCHEMA_PREFIX + schema,
                "generated_at": plain_value(datetime.now(UTC)),
                **_object(also or {}),
                "items": rows,
            }
            out.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        case Output.NDJSON:
            for item in items:
                out.write(json.dumps(plain_value(item), ensure_ascii=False) + "\n")
                count += 1
        case Output.CSV:
            count = _emit_csv(items, fields, [column.field for column in columns], out)
        case Output.PLAIN:
            for item in items:
                out.write(("\n" if count else "") + _lines(item))
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


class Flow:
    """A list that is written as it grows, each item at once and whole; `json` waits for `close`.

    A table's columns have the widths that were given; what is longer pushes the rest aside.
    `fields` are as for `emit`.
    """

    def __init__(
        self,
        *,
        schema: str,
        columns: Sequence[Column],
        output: Output | None,
        fields: Sequence[str] = (),
        stream: TextIO | None = None,
    ) -> None:
        self.count = 0
        self._schema, self._columns = schema, columns
        self._output = chosen(output)
        self._out = stream or sys.stdout
        self._fields, self._names = fields, list(fields)
        self._kept: list[Item] = []

    def write(self, item: Item) -> None:
        """Write one item; it has left this program when this returns, except as `json`."""
        item = _known(item, self._fields)
        if self._output is Output.JSON:
            self._kept.append(item)
        else:
            self._out.write(self._text(item))
            self._out.flush()
        self.count += 1

    def close(self, empty: str = "") -> None:
        """Write what had to wait; say `empty` on standard error when there was nothing."""
        if self._output is Output.JSON:
            emit(
                self._kept,
                schema=self._schema,
                columns=self._columns,
                output=self._output,
                stream=self._out,
            )
        elif self._output is Output.CSV and not self.count:
            self._out.write(_csv_row(self._names or [column.field for column in self._columns]))
        if not self.count and empty:
            say(empty)

    def _text(self, item: Item) -> str:
        match self._output:
            case Output.NDJSON | Output.JSON:
                return json.dumps(plain_value(item), ensure_ascii=False) + "\n"
            case Output.CSV:
                self._names = self._names or list(item)
                cells = _csv_row([safe_cell(item.get(name)) for name in self._names])
                return cells if self.count else _csv_row(self._names) + cells
            case Output.PLAIN:
                return ("\n" if self.count else "") + _lines(item)
            case Output.TABLE:
                cells = _fixed(
                    [(readable(item.get(c.field), name=c.field), c) for c in self._columns]
                )
                heading = _fixed([(column.heading, column) for column in self._columns])
                return cells if self.count else heading + cells
            case never:
                assert_never(never)


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
            _emit_csv([item], list(item), [], out)
        case Output.PLAIN:
            out.write(_lines(item))
        case Output.TABLE:
            if people:
                out.write("".join(f"{printable(line)}\n" for line in people))
            else:
                out.write(_lines(item))
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


def readable(value: Cell, *, name: str = "") -> str:
    """Return a value as people read it in a cell; unknown or absent is a dash.

    `name` is the field's: a number that names something, a key, is no amount.
    """
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            amount = abs(value) >= 10_000 and not name.endswith(NAMING)
            return f"{value:,}" if amount else str(value)
        case float():
            return f"{value:,.2f}"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case list() | tuple():
            return ", ".join(readable(each, name=name) for each in value) or "-"
        case Mapping():
            said = (f"{key} {readable(each, name=str(key))}" for key, each in value.items())
            return ", ".join(said) or "-"
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


def names_of(kind: type, *more: str) -> tuple[str, ...]:
    """Return the fields of a dataclass, and more."""
    return (*(each.name for each in fields_of(kind)), *more)


def _known(item: Item, fields: Sequence[str]) -> Item:
    # A field that is not in the header of a CSV would be lost without a word.
    assert not fields or set(item) <= set(fields), sorted(set(item) - set(fields))
    return item


def _undrawn(
    items: Iterable[Item], columns: Sequence[Column]
) -> tuple[Iterable[Item], Sequence[Column]]:
    """Return items and columns without what is for eyes alone."""
    drawn = {column.field for column in columns if column.drawn}
    if not drawn:
        return items, columns
    plain = ({name: item[name] for name in item if name not in drawn} for item in items)
    return plain, [column for column in columns if not column.drawn]


def _emit_csv(
    items: Iterable[Item], fields: Sequence[str], when_empty: Sequence[str], out: TextIO
) -> int:
    count = 0
    names = list(fields)
    for item in items:
        if not count:
            names = names or list(item)
            out.write(_csv_row(names))
        out.write(_csv_row([safe_cell(item.get(name)) for name in names]))
        count += 1
    if not count:
        out.write(_csv_row(names or when_empty))
    return count


def _csv_row(cells: Sequence[str]) -> str:
    row = io.StringIO()
    csv.writer(row, lineterminator="\r\n").writerow(cells)
    return row.getvalue()


def _fixed(cells: Sequence[tuple[str, Column]]) -> str:
    padded = [
        text.rjust(column.width) if column.right else text.ljust(column.width)
        for text, column in cells
    ]
    return "  ".join(padded).rstrip() + "\n"


def _lines(item: Item, above: str = "") -> str:
    """Return one `key: value` a line; what lies in an object has the object's name before it."""
    lines = []
    for key, value in item.items():
        name = above + printable(str(key))
        if isinstance(value, Mapping) and value:
            lines.append(_lines(value, f"{name}."))
        elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
            lines += [
                _lines(each, f"{name}.{number}.")
                for number, each in enumerate(value, start=1)
                if isinstance(each, Mapping)
            ]
        else:
            lines.append(f"{name}: {readable(value, name=str(key))}\n")
    return "".join(lines)


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
        table.add_row(
            *(Text(readable(item.get(column.field), name=column.field)) for column in columns)
        )
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
