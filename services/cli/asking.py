"""What people type, pipe in or name: JSON, bytes, or a value that must stand in no history.

Nothing is read beyond what it can be, and what cannot be read is told by its place, never by its
value.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from schemas.canonical import DEPTH_MAX, INTEGER_MAX
from schemas.errors import RejectedError

_STANDARD_INPUT = "standard input"
# Four times what an envelope can carry; keys and party files are smaller still.
_BYTES_MAX = 1_048_576
_LINE_BYTES_MAX = 1_000
_NAME_CHARACTERS_MAX = 40


def object_from_standard_input(what: str) -> dict[str, Any]:
    """Return the JSON object on standard input.

    Raises `RejectedError` NB-7007 when there is none, and what `json_of` raises.
    """
    if sys.stdin.isatty():
        raise RejectedError("NB-7007", what=what)
    text = bytes_of(Path("-"))
    if not text.strip():
        raise RejectedError("NB-7007", what=what)
    said = _parsed(text, _STANDARD_INPUT, what)
    if not isinstance(said, dict):
        raise RejectedError(
            "NB-7005", value=_STANDARD_INPUT, what=what, rule="Write one JSON object."
        )
    return said


def json_of(file: Path, what: str) -> Any:
    """Return the value of JSON that a person wrote into a file, or to standard input for `-`.

    Numbers in it are whole and of at most 53 bits, no name stands twice in an object, and it is at
    most `DEPTH_MAX` levels deep, because no message could carry anything else. Raises
    `RejectedError`: NB-7005 for what is no JSON, NB-7091 (depth), NB-7092 (a number), NB-7093 (a
    name that stands twice), and what `bytes_of` raises.
    """
    return _parsed(bytes_of(file), _name_of(file), what)


def _parsed(text: bytes, source: str, what: str) -> Any:
    try:
        said = json.loads(
            text.decode("utf-8-sig"),
            parse_int=_whole_number,
            parse_float=_no_number,
            parse_constant=_no_number,
            object_pairs_hook=_each_once,
        )
    except UnicodeDecodeError:
        raise RejectedError(
            "NB-7005", value=source, what=what, rule="It is not UTF-8: save it as UTF-8."
        ) from None
    except json.JSONDecodeError as error:
        rule = f"It is not JSON at line {error.lineno}, column {error.colno}."
        raise RejectedError("NB-7005", value=source, what=what, rule=rule) from None
    except RecursionError:
        raise RejectedError("NB-7091", value=source, what=what, limit=DEPTH_MAX) from None
    _refuse(said, (), source, what)
    return said


@dataclass(frozen=True, slots=True)
class _NoNumber:
    """Stands where a number stood that no message can carry, until its field is known."""

    rule: str


def _whole_number(digits: str) -> int | _NoNumber:
    # Counted first: reading a number takes longer than its digits grow.
    if len(digits) <= len(str(-INTEGER_MAX)) and abs(number := int(digits)) <= INTEGER_MAX:
        return number
    return _NoNumber("it has more than 53 bits")


def _no_number(_: str) -> _NoNumber:
    return _NoNumber("it is not whole")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, value in pairs:
        if name in said:
            raise RejectedError("NB-7093", field=_shown([name]))
        said[name] = value
    return said


def _refuse(value: Any, place: tuple[str | int, ...], source: str, what: str) -> None:
    """Raise for a number that no message can carry, by its field, and for too many levels."""
    if isinstance(value, _NoNumber):
        raise RejectedError("NB-7092", field=_shown(place), rule=value.rule)
    if not isinstance(value, dict | list):
        return
    if len(place) >= DEPTH_MAX:
        raise RejectedError("NB-7091", value=source, what=what, limit=DEPTH_MAX)
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in parts:
        _refuse(part, (*place, name), source, what)


def _shown(place: Sequence[str | int]) -> str:
    """Return how a place in JSON is named; a name that is none may be a value that lost its own."""
    names = [
        str(part)
        if isinstance(part, int) or (part.isidentifier() and len(part) <= _NAME_CHARACTERS_MAX)
        else "(unreadable)"
        for part in place
    ]
    return ".".join(names) or "(the whole)"


def bytes_of(file: Path) -> bytes:
    """Return a file's bytes, or those of standard input for `-`.

    Raises `RejectedError` NB-7006 for what cannot be read, and NB-7090 for what is larger than
    anything that is read so: of that no more than the first mebibyte was.
    """
    try:
        if str(file) == "-":
            found = sys.stdin.buffer.read(_BYTES_MAX + 1)
        else:
            with file.open("rb") as opened:
                found = opened.read(_BYTES_MAX + 1)
    except OSError as error:
        raise RejectedError("NB-7006", what=file, cause=error.strerror) from error
    if len(found) > _BYTES_MAX:
        raise RejectedError("NB-7090", value=_name_of(file), limit=f"{_BYTES_MAX:,}")
    return found


def _name_of(file: Path) -> str:
    return _STANDARD_INPUT if str(file) == "-" else str(file)


def unseen(what: str) -> str:
    """Return a value that must stand in no history: typed unseen, or a line of standard input."""
    if sys.stdin.isatty():
        typed: str = typer.prompt(what, hide_input=True, err=True)
        return typed
    # What is not UTF-8 becomes a character that no such value has, and is refused as one.
    return sys.stdin.buffer.readline(_LINE_BYTES_MAX).decode("utf-8", "replace").strip()
