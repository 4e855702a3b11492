"""What a stream holds, and what the taker says of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique

JWS_FIELD = b"jws"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: the bytes that somebody put there, trusted in nothing.

    `delivered` is how often Redis has handed it out, this time included; it counts restarts and
    outages too, so it is no number of attempts.
    """

    stream: str
    entry_id: str
    jws: bytes
    delivered: int


@unique
class Verdict(StrEnum):
    """What becomes of an entry that was taken without an error."""

    ACKNOWLEDGE = "acknowledge"
    LEAVE_PENDING = "leave pending"


def entry_of(stream: str, entry_id: bytes, fields: Mapping[bytes, bytes], delivered: int) -> Entry:
    """Return an entry as Redis gave it; one without the field for the JWS has an empty one."""
    return Entry(stream, entry_id.decode("ascii"), fields.get(JWS_FIELD, b""), delivered)


def order(entry_id: str) -> tuple[int, int]:
    """Return what sorts entry ids as Redis does."""
    milliseconds, _, counter = entry_id.partition("-")
    return int(milliseconds), int(counter or 0)
