"""What stands on the outside of a message: CloudEvents attributes, their names and their rules.

Attributes are read strictly: exactly the known names, each value in its one spelling. Nothing is
refused for its time, however long ago. Source: CloudEvents 1.0.2, JSON format.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any
from uuid import UUID

from schemas.canonical import b64, format_time, parse_time, unb64
from schemas.errors import RejectedError

HASH_BYTES = 32
SEQUENCE_MAX = 2**53 - 1
# CloudEvents integers are of 32 bits with sign.
INTEGER_MAX = 2**31 - 1
SPEC_VERSION = "1.0"
ENCRYPTED, PLAIN = "application/jose", "application/json"


class Lane(StrEnum):
    """Separate streams, so that a backlog never delays today's children."""

    LIVE = "live"
    BACKLOG = "backlog"
    CONTROL = "control"


class Kind(StrEnum):
    """What a message is; on the wire `gov.noticebus.<kind>.v<major>`."""

    FTA = "fta"
    NILRETURN = "nilreturn"
    ACKNOWLEDGEMENT = "acknowledgement"
    DISPOSITION = "disposition"
    ACTION = "action"
    OUTCOME = "outcome"
    RECEIPTS = "receipts"
    REFUSAL = "refusal"
    VOID = "void"
    RESEND = "resend"
    HEAD = "head"


# In `control`, and nowhere else; signed, in clear, owed no answer.
CONTROL_KINDS = frozenset({Kind.RECEIPTS, Kind.REFUSAL, Kind.VOID, Kind.RESEND, Kind.HEAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What stands on the outside of a message, under its CloudEvents names.

    `subject` is the notice id, `version` the schema's major version, `sequence` gapless from 1 for
    each stream and generation, `revision` gapless from 1 for each notice. `time` is when the
    message was made; nothing is decided by it. Makers use UUIDv7 for `id`; readers take any UUID.
    """

    id: UUID
    kind: Kind
    version: int
    source: str
    subject: UUID | None = None
    time: datetime
    sequence: int
    correlationid: UUID
    causationid: UUID | None = None
    recipient: str
    lane: Lane
    partition: int
    generation: int
    revision: int | None = None
    commitment: bytes | None = None
    casetag: bytes | None = None
    dataschema: str

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return f"gov.noticebus.{self.kind}.v{self.version}"

    @property
    def sender(self) -> str:
        """The short name of the agency in `source`."""
        return agency_of(self.source)

    @property
    def stream(self) -> str:
        """The name of the one stream this message belongs on."""
        return stream_name(self.sender, self.recipient, self.lane, self.partition)


def source_of(domain: str, agency: str) -> str:
    """Return what stands as `source` in an agency's envelopes."""
    return f"//{domain}/noticebus/{agency}"


def agency_of(source: str) -> str:
    """Return the short name of the agency that `source_of` named."""
    return source.rpartition("/")[2]


def stream_name(sender: str, recipient: str, lane: str, partition: int) -> str:
    """Return a stream's name; the braces keep it in one slot of a Redis Cluster."""
    return f"{{{sender}.{recipient}.{lane}.{partition}}}:out"


def partition_of(notice_id: UUID, partitions: int) -> int:
    """Return where all messages of a notice go, so that they stay in order: 0 to partitions - 1."""
    return int.from_bytes(sha256(notice_id.bytes).digest()[:8], "big") % partitions


_SOURCE = re.compile(r"//[a-z0-9][a-z0-9.-]{0,119}/noticebus/[a-z0-9-]{1,32}", re.ASCII)
_AGENCY = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_TYPE = re.compile(r"gov\.noticebus\.([a-z]{1,32})\.v([1-9][0-9]{0,3})", re.ASCII)
_SEQUENCE = re.compile(r"[0-9]{20}", re.ASCII)
_SCHEMA = re.compile(r"[!-~]{1,256}", re.ASCII)

_REQUIRED = frozenset(
    {
        "correlationid",
        "data",
        "datacontenttype",
        "dataschema",
        "generation",
        "id",
        "lane",
        "partition",
        "recipient",
        "sequence",
        "source",
        "specversion",
        "time",
        "type",
    }
)
_OPTIONAL = frozenset({"casetag", "causationid", "commitment", "revision", "subject"})
_KNOWN = _REQUIRED | _OPTIONAL
_LANES = {str(lane): lane for lane in Lane}
_KINDS = {str(kind): kind for kind in Kind}
_ADDRESS = ("type", "source", "recipient", "lane", "dataschema")


def members_of(attributes: Attributes) -> dict[str, Any]:
    """Return attributes as they stand in JSON; what is None is left out."""
    members: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": str(attributes.id),
        "type": attributes.type,
        "source": attributes.source,
        "time": format_time(attributes.time),
        "sequence": f"{attributes.sequence:020d}",
        "correlationid": str(attributes.correlationid),
        "recipient": attributes.recipient,
        "lane": str(attributes.lane),
        "partition": attributes.partition,
        "generation": attributes.generation,
        "dataschema": attributes.dataschema,
    }
    if attributes.subject is not None:
        members["subject"] = str(attributes.subject)
    if attributes.causationid is not None:
        members["causationid"] = str(attributes.causationid)
    if attributes.revision is not None:
        members["revision"] = attributes.revision
    if attributes.commitment is not None:
        members["commitment"] = b64(attributes.commitment)
    if attributes.casetag is not None:
        members["casetag"] = b64(attributes.casetag)
    return members


def attributes_of(members: object) -> Attributes:
    """Read attributes strictly. Raises `RejectedError` NB-2006 with `field`, or NB-2008."""
    if not isinstance(members, dict):
        raise RejectedError("NB-2006", field="(envelope)", rule="is not an object")
    names = members.keys()
    if not names >= _REQUIRED:
        missing = min(_REQUIRED - names)
        raise RejectedError("NB-2006", field=missing, rule="is missing")
    if not names <= _KNOWN:
        raise RejectedError("NB-2006", field="(envelope)", rule="has an attribute not known here")
    data = members["data"]
    if isinstance(data, str):
        _must(members["datacontenttype"] == ENCRYPTED, "datacontenttype")
    else:
        _must(isinstance(data, dict), "data")
        _must(members["datacontenttype"] == PLAIN, "datacontenttype")
    _must(members["specversion"] == SPEC_VERSION, "specversion")
    for field in _ADDRESS:
        _must(isinstance(members[field], str), field)
    kind, version, lane = _address(*[members[field] for field in _ADDRESS])
    return Attributes(
        id=_uuid(members["id"], "id"),
        kind=kind,
        version=version,
        source=members["source"],
        subject=_uuid(members["subject"], "subject") if "subject" in names else None,
        time=_time(members["time"]),
        sequence=_sequence(members["sequence"]),
        correlationid=_uuid(members["correlationid"], "correlationid"),
        causationid=(
            _uuid(members["causationid"], "causationid") if "causationid" in names else None
        ),
        recipient=members["recipient"],
        lane=lane,
        partition=_integer(members["partition"], "partition", 0),
        generation=_integer(members["generation"], "generation", 1),
        revision=_integer(members["revision"], "revision", 1) if "revision" in names else None,
        commitment=_hash(members, "commitment") if "commitment" in names else None,
        casetag=_hash(members, "casetag") if "casetag" in names else None,
        dataschema=members["dataschema"],
    )


# What is the same in all messages of a stream and kind is checked once, not for each of them.
@lru_cache(maxsize=256)
def _address(
    type_: str, source: str, recipient: str, lane: str, dataschema: str
) -> tuple[Kind, int, Lane]:
    """Check these attributes; return kind, major version and lane."""
    kind = _match(_TYPE, type_, "type")
    if kind[1] not in _KINDS:
        raise RejectedError("NB-2008", field="type")
    _match(_SOURCE, source, "source")
    _match(_AGENCY, recipient, "recipient")
    _must(lane in _LANES, "lane")
    _match(_SCHEMA, dataschema, "dataschema")
    return _KINDS[kind[1]], int(kind[2]), _LANES[lane]


def contradiction(attributes: Attributes, *, encrypted: bool) -> str | None:
    """Return the rule that attributes and content break between them, or None."""
    control = attributes.lane is Lane.CONTROL
    if control != (attributes.kind in CONTROL_KINDS):
        return "this kind does not belong in this lane"
    if control == encrypted:
        return "control stands in clear, all else is encrypted"
    if encrypted != (attributes.commitment is not None):
        return "a commitment goes with encrypted content, and with it alone"
    if control and attributes.partition != 0:
        return "control is not partitioned"
    if attributes.casetag is not None and attributes.kind is not Kind.FTA:
        return "the tag of a case goes with notices alone"
    if attributes.revision is not None and attributes.subject is None:
        return "a revision needs a subject"
    return None


def _must(holds: bool, field: str) -> None:  # noqa: FBT001 - it reads as a sentence
    if not holds:
        raise RejectedError("NB-2006", field=field, rule="has a value that is not allowed")


def _match(pattern: re.Pattern[str], value: object, field: str) -> re.Match[str]:
    found = pattern.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise RejectedError("NB-2006", field=field, rule="has a value that is not allowed")
    return found


def _uuid(value: object, field: str) -> UUID:
    return UUID(_match(_UUID, value, field)[0])


def _time(value: object) -> datetime:
    try:
        return parse_time(value if isinstance(value, str) else "")
    except RejectedError:
        raise RejectedError("NB-2006", field="time", rule="is not a UTC time") from None


def _sequence(value: object) -> int:
    sequence = int(_match(_SEQUENCE, value, "sequence")[0])
    _must(1 <= sequence <= SEQUENCE_MAX, "sequence")
    return sequence


def _integer(value: object, field: str, least: int) -> int:
    # `True` is an int to Python and not to anyone else.
    if type(value) is not int or not least <= value <= INTEGER_MAX:
        raise RejectedError("NB-2006", field=field, rule="is not an integer in its range")
    return value


def _hash(members: dict[str, Any], field: str) -> bytes:
    value = members[field]
    try:
        raw = unb64(value if isinstance(value, str) else "")
    except RejectedError:
        raw = b""
    _must(len(raw) == HASH_BYTES, field)
    return raw
