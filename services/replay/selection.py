"""What is replayed, where to, and the plan that holds both to what a person saw."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Self
from uuid import UUID

from schemas.canonical import format_time
from schemas.errors import RejectedError
from services.exchange.recorded import Standing


class Place(StrEnum):
    """Where a replay writes to: the first two get stored envelopes, one a line."""

    STDOUT = "stdout"
    FILE = "file"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Target:
    """A place, and for a file its absolute path."""

    place: Place
    path: Path | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what `stdout`, `file:PATH` or `store` names. Raises `RejectedError` NB-6017."""
        name, _, path = text.partition(":")
        if name == Place.FILE and path:
            return cls(Place.FILE, Path(path).absolute())
        if name in (Place.STDOUT, Place.STORE) and name == text:
            return cls(Place(name))
        raise RejectedError("NB-6017", value=text)

    def __str__(self) -> str:
        return str(self.place) if self.path is None else f"{self.place}:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Messages taken or numbered from `since` on and before `until`, of one notice or of all."""

    since: datetime | None = None
    until: datetime | None = None
    notice_id: UUID | None = None

    def before(self, now: datetime) -> Self:
        """Return the same selection with an end, because a plan must not grow after it was made.

        Raises `RejectedError` NB-6011 for a range that ends before it begins.
        """
        until = now if self.until is None else self.until
        if self.since is not None and self.since > until:
            raise RejectedError("NB-6011", since=format_time(self.since), until=format_time(until))
        return type(self)(since=self.since, until=min(until, now), notice_id=self.notice_id)


@dataclass(slots=True)
class Counts:
    """How many events stand how; in a run, how many stood so when their turn came."""

    new: int = 0
    same: int = 0
    changed: int = 0
    blocked: int = 0

    def add(self, standing: Standing) -> None:
        """Count one event."""
        setattr(self, standing.value, getattr(self, standing.value) + 1)

    @property
    def events(self) -> int:
        """All of them."""
        return self.new + self.same + self.changed + self.blocked


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A replay as it was looked at; it holds while messages and projection stay so."""

    plan_id: UUID
    state: str
    target: Target
    selection: Selection
    source_digest: bytes
    target_digest: bytes
    counts: Counts
    made_at: datetime
    expires_at: datetime
    made_by: str
    ran_at: datetime | None = None

    @property
    def changes(self) -> int:
        """How many events would change the store; none where it is not written to."""
        if self.target.place is not Place.STORE:
            return 0
        return self.counts.new + self.counts.changed
