"""Keep personal data and secrets out of every line, whoever wrote it.

Two nets: fields named like personal data are dropped, and A-numbers and passwords in URLs are
masked inside any string. An exception is reduced to its class, its code and the places it passed:
messages of database and validation errors quote the values they reject.
"""

import re
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import cast

from structlog.typing import EventDict

from schemas import notice
from schemas.errors import NoticeBusError

REDACTED = "[redacted]"

# A notice's own fields come from the border. There `state` belongs to an address; in a line it is
# where a notice or a case stands, and the rest of an address is dropped anyway.
PERSONAL_FIELDS = (notice.PERSONAL_FIELDS - {"state"}) | frozenset(
    {
        "alien_number", "first_name", "last_name", "birthdate", "dob", "c_birthdate",
        "nationality", "phone", "email", "sponsor", "street", "address", "address_line1", "payload",
        "body", "content", "plaintext", "data", "opened", "salt", "note", "password", "passphrase",
        "secret", "token", "authorization", "cookie", "private_key", "database_url", "redis_url",
        "envelope", "jws", "jwe",
    }
)  # fmt: skip
PERSONAL_PREFIXES = ("address_", "name_", "a_number", "birth_")
FRAMES_MAX = 12

# "A" and 7 to 9 digits, in any of the spellings people use; or 8 or 9 bare digits that stand alone.
# A dash beside bare digits means the first group of a UUID, which has none of the child in it.
_A_NUMBER = re.compile(
    r"\b[Aa][-# ]{0,2}\d{2,3}[- ]?\d{3}[- ]?\d{2,3}\b"
    r"|(?<![\w-])\d{3}[- ]\d{3}[- ]\d{3}(?![\w-])"
    r"|(?<![\w.-])\d{8,9}(?![\w-])"
)
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@/\s]+@")


def mask(text: str) -> str:
    """Return `text` with A-numbers and passwords in URLs replaced."""
    return _A_NUMBER.sub(REDACTED, _PASSWORD.sub(r"\1:***@", text))


def redact(logger: object, method: str, line: EventDict) -> EventDict:
    """Drop personal fields and mask every string of a line, at any depth (structlog processor)."""
    return cast(EventDict, _clean(line))


def describe_error(logger: object, method: str, line: EventDict) -> EventDict:
    """Replace `exc_info` by class, code and places, without the message (structlog processor)."""
    given = line.pop("exc_info", None)
    if not given:
        return line
    if given is True:
        given = sys.exc_info()
    if isinstance(given, BaseException):
        given = (type(given), given, given.__traceback__)
    _, error, trace = cast(
        tuple[type[BaseException] | None, BaseException | None, TracebackType | None], given
    )
    if error is not None:
        line["error"] = chain(error)
        line["places"] = places(trace)
        # structlog would print the message after all.
        line.pop("exception", None)
    return line


def chain(error: BaseException) -> str:
    """Return the classes of an error and its causes; of our own, also code and sentence."""
    names: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(names) < FRAMES_MAX:
        name = type(seen).__qualname__
        if isinstance(seen, NoticeBusError):
            name = f"{name} {mask(str(seen))}"
        elif sqlstate := getattr(seen, "sqlstate", None):
            name = f"{name} {sqlstate}"
        elif isinstance(seen, BaseExceptionGroup):
            inner = "; ".join(chain(each) for each in seen.exceptions[:FRAMES_MAX])
            name = f"{name} ({inner})"
        names.append(name)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return " from ".join(names)


def places(trace: TracebackType | None) -> list[str]:
    """Return `file:line function` of the innermost frames, outermost first, without source text."""
    frames = traceback.extract_tb(trace)[-FRAMES_MAX:]
    return [f"{'/'.join(f.filename.rsplit('/', 3)[-3:])}:{f.lineno} {f.name}" for f in frames]


def _clean(value: object) -> object:
    match value:
        case str():
            return mask(value)
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"
        case Mapping():
            return {key: _field(str(key), each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(each) for each in value]
        case None | bool() | int() | float():
            return value
        case BaseException():
            return chain(value)
        case _ if type(value).__module__ in {"uuid", "datetime", "pathlib", "enum"}:
            return str(value)
        case _ if str(type(value)).startswith("<enum"):
            return str(value)
        case _:
            # A model's repr would print its fields.
            return mask(str(value)) if _is_plain(value) else f"[{type(value).__qualname__}]"


def _is_plain(value: object) -> bool:
    """Tell whether str() of a value is a name or number rather than a dump of fields."""
    return type(value).__module__ in {"uuid_utils", "decimal", "logging"}


def _field(name: str, value: object) -> object:
    lowered = name.lower()
    if lowered in PERSONAL_FIELDS or lowered.startswith(PERSONAL_PREFIXES):
        return REDACTED
    return _clean(value)
