"""Who the cases are: `crosswalk.csv`, the protected side of a release.

Names, A-numbers and addresses never enter the table engine, so they cannot be in what it spills:
it knows a child by a number that stands for the A-number, and a crosswalk row by its place. The row
itself is read again from the file when a notice is made of it. 24 bytes of memory a row.
"""

import csv
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from schemas.errors import RejectedError, UnavailableError
from schemas.notice import normalise_a_number
from services.ice.docket.files import Encoding, Look
from services.ice.docket.layout import CROSSWALK
from services.ice.docket.rejects import Reject, RowFault

# The largest key that a notice can tell: integers in JSON have 53 bits.
KEY_MAX = 2**53 - 1
_KEY_DIGITS = len(str(KEY_MAX))


class Entry(NamedTuple):
    """What the table engine may know of a crosswalk row; `child` is 0 where it is unreadable."""

    case_key: int
    row: int
    child: int
    uac: bool


@dataclass(frozen=True, slots=True)
class Person:
    """One row of the crosswalk, by its headings; values as they stand, blanks around them gone."""

    line: int
    values: dict[str, str]

    def __getitem__(self, heading: str) -> str:
        return self.values[heading]


@dataclass(slots=True)
class Crosswalk:
    """The crosswalk of a release, open for reading single rows."""

    path: Path
    encoding: Encoding
    columns: tuple[str, ...]
    _file: BinaryIO | None = None
    _offsets: "array[int]" = field(default_factory=lambda: array("q"))
    _lines: "array[int]" = field(default_factory=lambda: array("L"))
    _a_numbers: "array[int]" = field(default_factory=lambda: array("L"))
    _children: "array[int]" = field(default_factory=lambda: array("L"))
    _cases: "array[int]" = field(default_factory=lambda: array("q"))
    _uac: bytearray = field(default_factory=bytearray)

    @classmethod
    def open(cls, path: Path, seen: Look, reject: Callable[[Reject], None]) -> "Crosswalk":
        """Read the keys of all rows; `reject` is told of each that cannot be read.

        Raises `RejectedError` NB-1011 for unknown headings, `UnavailableError` NB-1040 when the
        file cannot be read any more.
        """
        crosswalk = cls(path, seen.encoding, CROSSWALK.columns(seen.headings))
        try:
            crosswalk._read_keys(reject)
        except OSError as error:
            raise _gone(path, error) from None
        return crosswalk

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def entries(self) -> Iterator[Entry]:
        """Return what the table engine may know, in order of rows."""
        for row, (case_key, a_number, uac) in enumerate(
            zip(self._cases, self._a_numbers, self._uac, strict=True)
        ):
            yield Entry(case_key, row, self._child(a_number), bool(uac))

    def a_number(self, child: int) -> str:
        """Return the A-number that a child's number stands for."""
        return f"A{self._children[child - 1]:09}"

    def child(self, a_number: str) -> int:
        """Return the number that stands for an A-number here; 0 where the release lacks it."""
        return self._child(int(a_number[1:]))

    def line(self, row: int) -> int:
        """Return the line of a row."""
        return self._lines[row]

    def person(self, row: int) -> Person:
        """Return one row of the file.

        Raises `UnavailableError` NB-1040 when the file cannot be read any more: no row is to blame.
        """
        try:
            if self._file is None:
                self._file = self.path.open("rb")
            self._file.seek(self._offsets[row])
            raw = self._file.readline()
        except OSError as error:
            raise _gone(self.path, error) from None
        fields = self._fields(raw)
        values = (value.strip() for value in fields)
        return Person(self._lines[row], dict(zip(self.columns, values, strict=True)))

    def _child(self, a_number: int) -> int:
        if a_number == 0:
            return 0
        place = bisect_left(self._children, a_number)
        known = place < len(self._children) and self._children[place] == a_number
        return place + 1 if known else 0

    def _read_keys(self, reject: Callable[[Reject], None]) -> None:
        places = [self.columns.index(name) for name in ("IDNCASE", "a_number", "uac")]
        with self.path.open("rb") as file:
            offset = len(file.readline())
            for line, raw in enumerate(file, start=2):
                if raw.strip():
                    self._read_key(raw, line, offset, places, reject)
                offset += len(raw)
        self._children.extend(sorted(set(self._a_numbers) - {0}))

    def _read_key(
        self,
        raw: bytes,
        line: int,
        offset: int,
        places: list[int],
        reject: Callable[[Reject], None],
    ) -> None:
        case_key, a_number, uac = 0, 0, False
        try:
            fields = self._fields(raw)
            case, number, scope = (fields[place].strip() for place in places)
            case_key = _key(case)
            uac = _in_scope(scope)
            a_number = int(normalise_a_number(number)[1:])
        except (RowFault, RejectedError) as fault:
            reject(Reject(CROSSWALK.file, line, fault.code, "IDNCASE"))
        if not case_key:
            return
        # A row with a fault stays: the case is not without one, and nothing is made of it.
        self._cases.append(case_key)
        self._a_numbers.append(a_number)
        self._uac.append(uac)
        self._offsets.append(offset)
        self._lines.append(line)

    def _fields(self, raw: bytes) -> list[str]:
        """Cut one line into fields. Raises `RowFault` NB-1012, NB-1013 or NB-1019.

        Each line stands alone, so that a quote that never closes spoils one row, not the file.
        """
        text = self.encoding.text(raw, ",").replace("\0", "").rstrip("\r\n")
        if '"' in text:
            try:
                fields = next(csv.reader([text], strict=True))
            except csv.Error:
                raise RowFault("NB-1019") from None
        else:
            fields = text.split(",")
        if len(fields) != len(self.columns):
            raise RowFault("NB-1012" if len(fields) > len(self.columns) else "NB-1013")
        return fields


def _key(text: str) -> int:
    # Its length first: what has thousands of digits is refused by `int` itself.
    digits = text.lstrip("0")
    if digits.isascii() and digits.isdigit() and len(digits) <= _KEY_DIGITS:
        key = int(digits)
        if key <= KEY_MAX:
            return key
    raise RowFault("NB-1014", "IDNCASE")


def _gone(path: Path, error: OSError) -> UnavailableError:
    rule = error.strerror or "it broke off"
    return UnavailableError("NB-1040", file=path.name, rule=rule)


def _in_scope(text: str) -> bool:
    if text not in ("Y", "N"):
        raise RowFault("NB-1032", "uac")
    return text == "Y"
