"""One spelling for every value: canonical JSON, base64url and times as they stand on the wire.

JSON is written by RFC 8785 and, for what agencies sign, *read* by it too: `parse` takes bytes only
if writing their value again gives the same bytes. That one rule refuses what other rules would have
to name one by one: repeated keys, blanks, other escapes, `1.0` for `1`, text that is not UTF-8. It
holds for the payload and the headers of envelopes, for bodies, records and party files.

Numbers are integers of at most 53 bits, because floats do not survive every reader. Keys are ASCII,
because RFC 8785 sorts by UTF-16 units and only there that is the order of bytes.
"""

import binascii
import re
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from schemas.errors import RejectedError

INTEGER_MAX = 2**53 - 1
DEPTH_MAX = 32

_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d\.\d{6}Z", re.ASCII)

_TO_URL = bytes.maketrans(b"+/", b"-_")
# Pydantic decodes base64 five times as fast as the standard library, which counts here: every
# envelope is decoded twice. It refuses left-over bits by itself; `unb64` refuses what it tolerates.
_BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))


def canonical(value: Any, *, depth_max: int = DEPTH_MAX) -> bytes:
    """Return the RFC 8785 bytes of a JSON value: dict, list, tuple, str, int, bool or None.

    Raises `RejectedError` NB-2004 for floats, integers beyond 53 bits, keys that are not ASCII
    text, text that is not Unicode, other types, and nesting beyond `depth_max`.
    """
    _check(value, depth_max)
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except orjson.JSONEncodeError:
        raise RejectedError("NB-2004", rule="it holds text that is not Unicode") from None


def canonical_again(value: Any) -> bytes:
    """Return the canonical bytes of what `parse` returned, or of a part of it.

    It was checked then; looking at each part of it once more takes longer than to write it.
    """
    return orjson.dumps(value, option=_OPTIONS)


def parse(data: bytes, *, depth_max: int = DEPTH_MAX) -> Any:
    """Return the value of canonical JSON bytes.

    Raises `RejectedError` NB-2004 for anything but the one spelling that `canonical` writes.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise RejectedError("NB-2004", rule="it is not JSON") from None
    if canonical(value, depth_max=depth_max) != data:
        raise RejectedError("NB-2004", rule="it is spelled in another way than RFC 8785 says")
    return value


def _check(value: Any, depth_left: int) -> None:
    """Raise unless `value` is made of JSON types that have one spelling."""
    items: Any
    if isinstance(value, dict):
        try:
            # Joined, because one look at all keys costs less than one at each.
            ascii_keys = "".join(value).isascii()
        except TypeError:
            ascii_keys = False
        if not ascii_keys:
            raise RejectedError("NB-2004", rule="a key is not ASCII text")
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        items = (value,)
        depth_left += 1
    if depth_left < 1:
        raise RejectedError("NB-2004", rule="it is nested too deeply")
    for item in items:
        kind = type(item)
        # In the order of how often they are met; bool and None need no check.
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not -INTEGER_MAX <= item <= INTEGER_MAX:
                raise RejectedError("NB-2004", rule="an integer has more than 53 bits")
        elif kind is dict or kind is list or kind is tuple:
            _check(item, depth_left - 1)
        elif not isinstance(item, str):
            raise RejectedError("NB-2004", rule="it holds a value that is not of a JSON type here")


def b64(data: bytes) -> str:
    """Return unpadded base64url (RFC 4648, section 5)."""
    return b64_bytes(data).decode("ascii")


def b64_bytes(data: bytes) -> bytes:
    """Return unpadded base64url as ASCII bytes, for what is joined into larger bytes."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def unb64(text: str | bytes) -> bytes:
    """Return the bytes of unpadded base64url.

    Each byte string has one spelling: padding, the plain alphabet, blanks and left-over bits that
    are not zero raise `RejectedError` NB-2003.
    """
    # What is not ASCII turns into a question mark, which no alphabet has.
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    # The plain alphabet and padding are tolerated below; a backslash begins an escape of JSON.
    if b"+" in raw or b"/" in raw or b"=" in raw or b"\\" in raw:
        raise RejectedError("NB-2003")
    try:
        return _BASE64.validate_json(b'"%b"' % raw)
    except ValidationError:
        raise RejectedError("NB-2003") from None


def format_time(moment: datetime) -> str:
    """Return a time as on the wire: UTC, six digits, `2026-11-23T21:04:05.123456Z`.

    Raises `ValueError` for a time without a zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone has no place on the wire")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse_time(text: str) -> datetime:
    """Return the aware time that `format_time` wrote. Raises `RejectedError` NB-2009."""
    try:
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise RejectedError("NB-2009")
