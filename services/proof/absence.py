"""Show that a log has no notice for a case in a time: all of its records are looked at.

Rests on a folder of C2SP tlog-tiles with entries, as `ledger export --cosigned` writes it. The
checkpoint fixes every record, the cosignature says until when this was the whole of the log, and
each record of a notice bears its case's tag. What it cannot show: a message that this log was never
given. A record without a tag in that time leaves the question open, and is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from schemas.canonical import b64, parse, parse_time
from schemas.casetag import casetag
from schemas.checkpoint import Verifier
from schemas.cosignature import Cosignature, cosignatures
from schemas.errors import EvidenceError, RejectedError
from services.ledger.exported import Progress, verify_exported

# What says that a notice was sent, received, refused, or given back after a restore; answers have
# other streams. Only the first two bear tags.
_OF_MESSAGES = frozenset(
    {"message.sent", "message.received", "message.refused", "message.recovered"}
)
_NOTICES = ("{ice.hhs.live.", "{ice.hhs.backlog.")


@dataclass(frozen=True, slots=True)
class Named:
    """A record that is told of: its index, what it says, and when by its maker's clock."""

    index: int
    action: str
    notice_id: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search found: records of the case in the time, and such without any tag.

    `elsewhere` counts records of the case at other times, `tagged` all records with a tag.
    """

    origin: str
    size: int
    records: int
    tagged: int
    found: tuple[Named, ...]
    untagged: tuple[Named, ...]
    elsewhere: int
    cosignatures: tuple[Cosignature, ...]

    @property
    def absent(self) -> bool:
        """Whether it is shown that there is none."""
        return not self.found and not self.untagged


@dataclass(slots=True)
class _Search:
    tag: str
    since: datetime
    until: datetime
    records: int = 0
    tagged: int = 0
    found: list[Named] = field(default_factory=list)
    untagged: dict[str, Named] = field(default_factory=dict)
    elsewhere: int = 0
    known: set[str] = field(default_factory=set)

    def look(self, index: int, record: bytes) -> None:
        """Look at one record of the log."""
        self.records += 1
        said: dict[str, Any] = parse(record)
        if said.get("action") not in _OF_MESSAGES or "notice_id" not in said:
            return
        if not str(said.get("stream", "")).startswith(_NOTICES):
            return
        time = parse_time(said["time"])
        inside = self.since <= time < self.until
        named = Named(index, said["action"], said["notice_id"], time)
        if "casetag" not in said:
            if inside:
                self.untagged[said["message_id"]] = named
            return
        self.tagged += 1
        self.known.add(said["message_id"])
        if said["casetag"] == self.tag:
            if inside:
                self.found.append(named)
            else:
                self.elsewhere += 1


def search(
    folder: Path,
    *,
    log_keys: Sequence[Verifier],
    witnesses: Sequence[Verifier],
    index_key: bytes,
    a_number: str,
    since: datetime,
    until: datetime,
    progress: Progress | None = None,
) -> Searched:
    """Look through a whole log for notices of a case from `since` to before `until`.

    Raises `EvidenceError` NB-3213 for a folder that does not hold, NB-3224 without a cosignature of
    one of `witnesses`, `RejectedError` NB-3225 when it was cosigned before `until`, NB-3226 for a
    folder of hashes alone.
    """
    looking = _Search(b64(casetag(index_key, a_number)), since, until)
    verified = verify_exported(folder, log_keys=log_keys, each=looking.look, progress=progress)
    if not verified.entries:
        raise RejectedError("NB-3226", folder=folder)
    seen = cosignatures(verified.note, witnesses)
    if not seen:
        raise EvidenceError("NB-3224", folder=folder)
    last = max(each.at for each in seen)
    if last < until:
        raise RejectedError("NB-3225", at=f"{last:%Y-%m-%dT%H:%M:%SZ}", until=until.isoformat())
    return Searched(
        origin=verified.origin,
        size=verified.size,
        records=looking.records,
        tagged=looking.tagged,
        found=tuple(looking.found),
        # A message that could not be taken at first bears its tag where it was.
        untagged=tuple(
            each for message, each in looking.untagged.items() if message not in looking.known
        ),
        elsewhere=looking.elsewhere,
        cosignatures=tuple(seen),
    )
