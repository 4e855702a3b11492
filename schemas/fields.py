"""The field types that every body on the wire is made of, and the root of the body models.

A value has exactly one spelling: times in UTC with six digits, UUIDs in lower case with hyphens,
hashes as unpadded base64url, text in Unicode NFC. What is spelled otherwise is refused, so that a
body read and written again has the same bytes, and two bodies that mean the same hash the same.
"""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from typing import Annotated, Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from schemas.canonical import format_time, parse_time
from schemas.errors import RejectedError

INTEGER_MAX = 2**53 - 1
NAME_CHARACTERS_MAX = 64

_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
# The 43rd character of 32 bytes carries four bits; the two that are left must be zero.
_HASH = r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"

# Invisible characters that turn the direction of what follows: they make two names look alike.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Body(BaseModel):
    """What one kind of message says. Strict, frozen, and closed to unknown fields.

    Absent means absent: a field without a value is left out of the bytes, never `null`. Errors
    never show the value they refuse, because values may be personal.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        ser_json_bytes="base64",
        json_schema_extra=lambda schema, model: _complete(schema, model),
    )

    # Set by each body that can be on the wire: the versions that this build reads, newest last.
    versions: ClassVar[tuple[str, ...]] = ()
    # Rules that span fields, in the words of JSON Schema; the model checks them by itself.
    schema_rules: ClassVar[dict[str, Any]] = {}


def _complete(schema: dict[str, Any], model: type[Body]) -> None:
    # `schema_version` has a default for those who write Python; on the wire it is always there.
    version = schema.get("properties", {}).get("schema_version")
    if version is not None:
        del version["default"]
        schema["required"] = ["schema_version", *schema.get("required", [])]
    schema.update(model.schema_rules)


def broken(field: str, rule: str) -> PydanticCustomError:
    """Return the error of a rule that spans fields; `rule` is read by people and holds no value."""
    return PydanticCustomError("rule", "{rule}", {"field": field, "rule": rule})


def _shape(pattern: str, rule: str) -> Callable[[object], str]:
    matches = re.compile(pattern, re.ASCII).fullmatch

    def check(value: object) -> str:
        if isinstance(value, str) and matches(value):
            return value
        raise PydanticCustomError("rule", "{rule}", {"rule": rule})

    return check


_uuid_text = _shape(_UUID, "must be a UUID in lower case with hyphens")
_day_text = _shape(_DAY, "must be a date like 2026-03-03")


def _read_uuid(value: object) -> UUID:
    return value if isinstance(value, UUID) else UUID(_uuid_text(value))


def _read_time(value: object) -> datetime:
    if isinstance(value, str):
        try:
            return parse_time(value)
        except RejectedError:
            pass
    elif isinstance(value, datetime) and value.utcoffset() is not None:
        return value.astimezone(UTC)
    raise PydanticCustomError("rule", "must be a UTC time like 2026-11-23T21:04:05.123456Z")


def _read_day(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(_day_text(value))
    except ValueError:
        raise PydanticCustomError("rule", "must be a date of the calendar") from None


def is_clean(text: str) -> bool:
    """Tell whether text is NFC, without control characters and without blanks at its ends."""
    if text.isascii():
        return text.isprintable() and text == text.strip()
    return (
        unicodedata.is_normalized("NFC", text)
        and text == text.strip()
        and not any(
            character in _DIRECTIONS or unicodedata.category(character) in {"Cc", "Zl", "Zp"}
            for character in text
        )
    )


def clean(text: str) -> str:
    """Return text as it may travel: NFC, control characters gone, blanks made single.

    For what people typed or another system exported; an empty result means that nothing was there.
    """
    composed = unicodedata.normalize("NFC", text)
    spaced = "".join(
        " " if unicodedata.category(character) in {"Cc", "Zl", "Zp"} else character
        for character in composed
        if character not in _DIRECTIONS
    )
    return " ".join(spaced.split())


def _read_text(text: str) -> str:
    if not is_clean(text):
        raise PydanticCustomError(
            "rule", "must be Unicode NFC without control characters or blanks at its ends"
        )
    return text


@cache
def zone_of(name: str) -> ZoneInfo | None:
    """Return the IANA zone of this name, or None when there is none."""
    # The shape keeps a name from leaving the zone folder or naming a folder in it.
    if not re.fullmatch(r"[A-Za-z_]+(?:/[A-Za-z0-9_+-]+){1,2}", name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _read_zone(name: str) -> str:
    if zone_of(name) is None:
        raise PydanticCustomError("rule", "must be a time zone of the IANA list")
    return name


def _local_moment(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise PydanticCustomError("rule", "must be a date and time of the calendar") from None
    return text


def _year_month(text: str) -> str:
    try:
        date.fromisoformat(text if len(text) == len("2009-04-01") else f"{text}-01")
    except ValueError:
        raise PydanticCustomError("rule", "must be a date or month of the calendar") from None
    return text


Id = Annotated[
    UUID,
    PlainValidator(_read_uuid),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "format": "uuid", "pattern": _UUID}),
]
Time = Annotated[
    datetime,
    PlainValidator(_read_time),
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _TIME}),
]
Day = Annotated[
    date,
    PlainValidator(_read_day),
    PlainSerializer(date.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "format": "date", "pattern": _DAY}),
]
# A day, or where only that is known a month: 2009-04-17 or 2009-04.
DayOrMonth = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])(-[0-9]{2})?$"),
    AfterValidator(_year_month),
]
# A local date and time to the minute, or the date alone where the court set no time.
LocalMoment = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-2][0-9]:[0-5][0-9])?$"),
    AfterValidator(_local_moment),
]
Zone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_read_zone)]
# SHA-256, unpadded base64url.
Hash = Annotated[str, StringConstraints(pattern=_HASH)]
Count = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Ordinal = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=NAME_CHARACTERS_MAX),
    AfterValidator(_read_text),
]
Line = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_read_text)]
# A court's own code, as it stands in the docket.
RawCode = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,2}[!-~])?$")]
# Three letters or digits: courts, hearing locations, areas of responsibility.
CodeOfThree = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{3}$")]
ErrorCode = Annotated[str, StringConstraints(pattern=r"^NB-[0-9]{4}$")]
StreamName = Annotated[str, StringConstraints(pattern=r"^\{[a-z0-9-]+(\.[a-z0-9-]+){2,3}\}:out$")]
