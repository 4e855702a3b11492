"""What is replayed: which messages, by what they are and where they stood.

A selection is what all its parts have in common; within one part, any of its values. Without parts
it is everything that was taken or numbered here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from schemas import codes
from schemas.canonical import format_time, parse_time
from schemas.envelope import CONTROL_KINDS, Kind, Lane
from schemas.errors import RejectedError

SEQUENCE_MAX = 2**63 - 1
_RANGE = re.compile(r"(?P<stream>\{[^{}]+\}:out):(?P<first>[0-9]+)(?P<to>-(?P<last>[0-9]*))?")
_GROUP = re.compile(r"NB-[0-9]{4}(\.[A-Za-z0-9.-]{1,64})?")


@dataclass(frozen=True, slots=True, order=True)
class SequenceRange:
    """Messages of one stream from sequence `first` to `last`, both included."""

    stream: str
    first: int
    last: int = SEQUENCE_MAX

    @classmethod
    def of(cls, text: str) -> Self:
        """Read `STREAM:FIRST-LAST`, `STREAM:FIRST-` or `STREAM:ONE`.

        Raises `RejectedError` NB-7005 for other text, NB-6011 for a range that ends before it
        begins.
        """
        match = _RANGE.fullmatch(text.strip())
        if match is None or len(match["first"]) > 18 or len(match["last"] or "") > 18:
            rule = "Write it as {ice.hhs.live.0}:out:120-180; the last may be left out."
            raise RejectedError("NB-7005", value=text, what="sequence range", rule=rule)
        first = int(match["first"])
        last = first if match["to"] is None else int(match["last"] or SEQUENCE_MAX)
        if last < first:
            raise RejectedError("NB-6011", since=first, until=last)
        return cls(match["stream"], first, last)

    def __str__(self) -> str:
        return f"{self.stream}:{self.first}-{'' if self.last == SEQUENCE_MAX else self.last}"


@dataclass(frozen=True, slots=True, order=True)
class DeadGroup:
    """A group of dead letters as `dead list` names it, or all of one cause."""

    group_id: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a group's id or a cause. Raises `RejectedError` NB-7005 for other text."""
        if _GROUP.fullmatch(text.strip()) is None:
            rule = "Write it as `noticebus dead list` has it, or a cause alone: NB-nnnn."
            raise RejectedError("NB-7005", value=text, what="group of dead letters", rule=rule)
        return cls(text.strip())

    def __str__(self) -> str:
        return self.group_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Messages taken or numbered from `since` on and before `until`, and as the other parts say.

    An office has every message about a notice that any revision of it names the office in. With a
    dead-letter group come the messages that were set aside so, also those that never were taken.
    With `planned`, which a run of that plan sets, it is the messages that the run began with, in
    their order, whatever the other parts would select by now.
    """

    since: datetime | None = None
    until: datetime | None = None
    notices: tuple[UUID, ...] = ()
    sequences: tuple[SequenceRange, ...] = ()
    offices: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    lanes: tuple[Lane, ...] = ()
    dead: tuple[DeadGroup, ...] = ()
    planned: UUID | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing but an end narrows it."""
        return replace(self, until=None) == type(self)()

    def before(self, now: datetime) -> Self:
        """Return the same selection with an end, because a plan must not grow after it was made.

        Raises `RejectedError` NB-6011 for a range that ends before it begins, NB-6121 for one that
        has not begun.
        """
        until = now if self.until is None else self.until
        if self.since is not None and self.until is not None and self.since > until:
            raise RejectedError("NB-6011", since=format_time(self.since), until=format_time(until))
        if self.since is not None and self.since > now:
            raise RejectedError("NB-6121", since=format_time(self.since))
        return replace(self, until=min(until, now))

    def written(self) -> dict[str, Any]:
        """Return what it selects by as JSON; `read` takes it back."""
        said = {
            "since": None if self.since is None else format_time(self.since),
            "until": None if self.until is None else format_time(self.until),
            "notices": [str(each) for each in self.notices],
            "sequences": [str(each) for each in self.sequences],
            "offices": list(self.offices),
            "kinds": [str(each) for each in self.kinds],
            "lanes": [str(each) for each in self.lanes],
            "dead": [str(each) for each in self.dead],
        }
        return {name: value for name, value in said.items() if value}

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """Return what `written` wrote."""
        return cls(
            since=_time(said.get("since")),
            until=_time(said.get("until")),
            notices=tuple(UUID(each) for each in said.get("notices", ())),
            sequences=tuple(SequenceRange.of(each) for each in said.get("sequences", ())),
            offices=tuple(said.get("offices", ())),
            kinds=tuple(Kind(each) for each in said.get("kinds", ())),
            lanes=tuple(Lane(each) for each in said.get("lanes", ())),
            dead=tuple(DeadGroup.of(each) for each in said.get("dead", ())),
        )

    def __str__(self) -> str:
        return "; ".join(
            f"{name} {value if isinstance(value, str) else ', '.join(value)}"
            for name, value in self.written().items()
        )


def office_of(text: str) -> str:
    """Return the office a code names. Raises `RejectedError` NB-1003 for a code of none."""
    return codes.office_code(text)


def kind_of(text: str) -> Kind:
    """Return the kind a word names. Raises `RejectedError` NB-7005 for what is never replayed."""
    known = [str(kind) for kind in Kind if kind not in CONTROL_KINDS]
    if text not in known:
        rule = f"Use one of {', '.join(known)}."
        raise RejectedError("NB-7005", value=text, what="kind of message", rule=rule)
    return Kind(text)


def lane_of(text: str) -> Lane:
    """Return the lane a word names. Raises `RejectedError` NB-7005 for what is never replayed."""
    if text not in (Lane.LIVE, Lane.BACKLOG):
        raise RejectedError("NB-7005", value=text, what="lane", rule="Use live or backlog.")
    return Lane(text)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except RejectedError:
        # As an earlier build wrote it, by way of the database.
        return datetime.fromisoformat(text)
