"""One look at a whole file before it is loaded: its encoding, its lines, its digest.

The release comes in latin-1 or UTF-8, file by file, and nothing in it says which. A file is UTF-8
if all of it is; else latin-1, unless it holds both, as files that were glued together do: then
each value decides for itself, on its way into the loader, which refuses such a file. Empty lines
and lone carriage returns are noted, because the loader skips the first and splits at the second,
and a reject must name the line that an editor shows.
"""

import codecs
import hashlib
import os
import re
import threading
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
# What remains of a chunk without these is a byte that UTF-8 letters end in and few others have.
_PLAIN = bytes(byte for byte in range(256) if not 0x80 <= byte <= 0xBF)
# In a file that is not UTF-8: a letter that was UTF-8 after all, or a byte without a letter.
_NOT_LATIN_1 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\x80-\x9f]")


class Encoding(StrEnum):
    """How the text of a file was written."""

    UTF_8 = "utf-8"
    LATIN_1 = "latin-1"
    # Both in one file, or bytes that are letters in neither.
    MIXED = "mixed"

    def text(self, line: bytes, delimiter: str) -> str:
        """Return one line as it was meant; in a mixed file each value decides for itself."""
        if self is not Encoding.MIXED:
            return line.decode(self)
        return delimiter.join([_either(field) for field in line.split(delimiter.encode())])


def _either(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


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
    latin_1 = True
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
                if latin_1 and chunk.translate(None, _PLAIN):
                    latin_1 = _NOT_LATIN_1.search(chunk) is None
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
        encoding = Encoding.LATIN_1 if latin_1 else Encoding.MIXED
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
    at_boundary = tail.endswith(b"\r") or chunk.startswith(b"\n")
    if not at_boundary and b"\n\n" not in chunk and b"\r" not in chunk:
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


class Transcoded:
    """A mixed file as a pipe of UTF-8, for as long as the block lasts; nothing of it is stored.

    Leaving the block raises `RejectedError` NB-1040 if the file could not be read to its end.
    """

    def __init__(self, path: Path, pipe: Path, delimiter: str) -> None:
        self.path, self.pipe, self.delimiter = path, pipe, delimiter
        self._failure: OSError | None = None
        self._writer = threading.Thread(target=self._write, name="transcode", daemon=True)

    def __enter__(self) -> Path:
        os.mkfifo(self.pipe, 0o600)
        self._writer.start()
        return self.pipe

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A loader that gave up leaves the writer waiting: for a reader, or for room in the pipe.
        # Opening and closing the other end lets it go.
        while self._writer.is_alive():
            os.close(os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK))
            self._writer.join(0.05)
        self.pipe.unlink()
        if self._failure is not None and kind is None:
            rule = self._failure.strerror or "it broke off"
            raise RejectedError("NB-1040", file=self.path.name, rule=rule)

    def _write(self) -> None:
        try:
            with self.path.open("rb") as file, self.pipe.open("wb") as out:
                for line in file:
                    if line.isascii():
                        out.write(line)
                    else:
                        out.write(Encoding.MIXED.text(line, self.delimiter).encode())
        except OSError as error:
            self._failure = error
