"""One look at a whole file before it is loaded: its encoding, its lines, its digest.

The release comes in latin-1 or UTF-8, file by file, and nothing in it says which. A file is UTF-8
if all of it is; else latin-1, unless it holds both, as files that were glued together do: then each
value decides for itself. Empty lines and lone carriage returns are noted, because the loader skips
the first and splits at the second, and a reject must name the line that an editor shows.
"""

import codecs
import hashlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from schemas.errors import RejectedError

LINE_BYTES_MAX = 1 << 20
_CHUNK_BYTES = 1 << 20
_BOM = codecs.BOM_UTF8
# A line that a chunk boundary cannot hide, empty but for its end.
_EMPTY = re.compile(rb"(?<=\n)\r?\n")
_LONE_RETURN = re.compile(rb"\r(?=[^\n])")
_UTF_8_LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}")


class Encoding(StrEnum):
    """How the text of a file was written; every byte of `LATIN_1` is a letter of its own."""

    UTF_8 = "utf-8"
    LATIN_1 = "latin-1"
    MIXED = "mixed"

    def text(self, value: str) -> str:
        """Return a value that was read as latin-1 as it was meant."""
        if self is Encoding.LATIN_1 or value.isascii():
            return value
        try:
            return value.encode("latin-1").decode("utf-8")
        except UnicodeError:
            return value


@dataclass(slots=True)
class _Breaks:
    """Places where the loader's row numbers and an editor's line numbers part."""

    rows: "array[int]" = field(default_factory=lambda: array("q"))
    shifts: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, row: int, shift: int) -> None:
        self.rows.append(row)
        self.shifts.append(shift + (self.shifts[-1] if self.shifts else 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at a file found; `rows` are its lines that are not empty, headings left out."""

    encoding: Encoding
    rows: int
    headings: tuple[str, ...]
    sha256: bytes
    breaks: _Breaks

    def line(self, row: int) -> int:
        """Return the line on which the loader's row stands; row 1 is the first below the headings.

        Lines count from 1, as editors do, with the headings on line 1.
        """
        passed = bisect_right(self.breaks.rows, row)
        return row + 1 + (self.breaks.shifts[passed - 1] if passed else 0)


def look(
    path: Path, *, delimiter: str = "\t", progress: Callable[[int], None] | None = None
) -> Look:
    """Read a file once from end to end; `progress` is told of the bytes as they are read.

    Raises `RejectedError` NB-1040 where it cannot be read or a line has more than 1 MiB.
    """
    try:
        return _look(path, delimiter, progress)
    except OSError as error:
        rule = error.strerror or "it cannot be opened"
        raise RejectedError("NB-1040", file=path.name, rule=rule) from None


def _look(path: Path, delimiter: str, progress: Callable[[int], None] | None) -> Look:
    digest = hashlib.sha256()
    decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
    has_utf_8 = False
    breaks, rows = _Breaks(), 0
    # Enough of the chunk before to see an empty line across the boundary; bytes of the line so far.
    tail, line_bytes = b"", 0
    with path.open("rb") as file:
        headings, start = _headings(file.readline(LINE_BYTES_MAX), delimiter)
        digest.update(start)
        tail = b"\n"
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if not chunk.isascii():
                has_utf_8 = has_utf_8 or _UTF_8_LETTER.search(chunk) is not None
                decoder = _decoding(decoder, chunk)
            elif decoder is not None and decoder.getstate()[0]:
                decoder = None  # A letter was cut short by plain text.
            line_bytes = _measured(line_bytes, chunk, path.name)
            rows += _rows(tail, chunk, rows, breaks)
            tail = chunk[-2:] if len(chunk) > 1 else (tail + chunk)[-2:]
            if progress is not None:
                progress(len(chunk))
    if decoder is not None and not decoder.getstate()[0]:
        encoding = Encoding.UTF_8
    else:
        encoding = Encoding.MIXED if has_utf_8 else Encoding.LATIN_1
    if tail[-1:] != b"\n":
        rows += 1
    return Look(
        encoding=encoding, rows=rows, headings=headings, sha256=digest.digest(), breaks=breaks
    )


def _headings(line: bytes, delimiter: str) -> tuple[tuple[str, ...], bytes]:
    text = line.removeprefix(_BOM).replace(b"\0", b"").decode("latin-1").rstrip("\r\n")
    return tuple(text.split(delimiter)), line


def _decoding(
    decoder: codecs.IncrementalDecoder | None, chunk: bytes
) -> codecs.IncrementalDecoder | None:
    """Go on decoding as UTF-8; returns None once that has failed."""
    if decoder is not None:
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError:
            return None
    return decoder


def _measured(line_bytes: int, chunk: bytes, name: str) -> int:
    """Return the bytes of the line that the chunk ends in."""
    first = chunk.find(b"\n")
    if line_bytes + (len(chunk) if first < 0 else first) > LINE_BYTES_MAX:
        raise RejectedError("NB-1040", file=name, rule="a line has more than 1 MiB")
    return line_bytes + len(chunk) if first < 0 else len(chunk) - chunk.rfind(b"\n") - 1


def _rows(tail: bytes, chunk: bytes, before: int, breaks: _Breaks) -> int:
    """Count the rows that end in a chunk, and note where line numbers part."""
    if b"\n\n" not in chunk and b"\r" not in chunk and not chunk.startswith(b"\n"):
        return chunk.count(b"\n")
    # The tail gives the patterns what they look back at; it was counted with its own chunk.
    seen, start = tail + chunk, len(tail)
    marks = [(found.start(), 1) for found in _EMPTY.finditer(seen) if found.end() > start]
    marks += [
        (found.start(), -1) for found in _LONE_RETURN.finditer(seen) if found.start() >= start
    ]
    if tail[-1:] == b"\r" and not chunk.startswith(b"\n"):
        marks.append((start - 1, -1))
    rows, at = 0, start
    for position, shift in sorted(marks):
        rows += seen.count(b"\n", at, max(position, at))
        if shift > 0:
            # The next row stands one line further down.
            breaks.add(before + rows + 1, 1)
            at = seen.index(b"\n", max(position, start)) + 1
        else:
            # What follows the lone return is a row of its own on the same line.
            rows += 1
            breaks.add(before + rows + 1, -1)
            at = max(position + 1, start)
    return rows + seen.count(b"\n", at)
