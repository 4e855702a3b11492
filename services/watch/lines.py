"""Lines: what one record says in the words of people, and the cursor that names its place.

A line holds ids, codes, counts and the office; who acted and what was written are left out, as is
everything about the child. A record of receipts becomes one line for each message it discharged.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from schemas.errors import RejectedError
from services.ledger.records import read_record
from services.watch.store import Told, Watched

_CURSOR = re.compile(
    r"(?P<agency>ice|hhs)\.(?P<generation>[1-9]\d{0,8})"
    r"\.(?P<behind>0|[1-9]\d{0,17})(?:\.(?P<part>[1-9]\d{0,8}))?",
    re.ASCII,
)
_STREAM = re.compile(r"\{[^.{}]+\.[^.{}]+\.(?P<lane>[^.{}]+)\.\d+\}:out", re.ASCII)


class Direction(StrEnum):
    """Which way something went, seen from this agency; `here` for what crossed no border."""

    IN = "in"
    OUT = "out"
    HERE = "here"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come: `behind` records of one generation of an agency's log.

    `part` counts lines of the next record that were seen too, where one record makes several.
    """

    agency: str
    generation: int
    behind: int
    part: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that `str` wrote. Raises `RejectedError` NB-7030."""
        found = _CURSOR.fullmatch(text.strip())
        if found is None:
            raise RejectedError("NB-7030", value=text)
        return cls(
            found["agency"], int(found["generation"]), int(found["behind"]), int(found["part"] or 0)
        )

    def __str__(self) -> str:
        part = f".{self.part}" if self.part else ""
        return f"{self.agency}.{self.generation}.{self.behind}{part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened. `cursor` is what to go on after; `index` its record's place.

    `at` is when it happened, by the record; `state` the word for it; `action` the record's own.
    `count` is there where one record speaks of several messages.
    """

    cursor: Cursor
    at: datetime
    direction: Direction
    state: str
    kind: str | None
    notice_id: UUID | None
    revision: int | None
    office: str | None
    lane: str | None
    reason: str | None
    count: int | None
    action: str
    message_id: UUID | None
    stream: str | None
    sequence: int | None
    index: int


# Action of a record -> what people call it, and which way it went. What is not listed here is
# shown by its own words, so that no act on record is ever left out.
_WORDS = {
    "notice.recorded": ("accepted", Direction.HERE),
    "message.sent": ("sent", Direction.OUT),
    "message.republished": ("sent again", Direction.OUT),
    "answer.overdue": ("overdue", Direction.OUT),
    "receipts.verified": ("receipted", Direction.IN),
    "refusal.received": ("dead", Direction.IN),
    "message.received": ("received", Direction.IN),
    "message.applied": ("applied", Direction.IN),
    "message.refused": ("refused", Direction.IN),
    "entries.refused": ("refused", Direction.IN),
    "resend.asked": ("asked again", Direction.IN),
    "gap.found": ("missing", Direction.IN),
    "gap.voided": ("void", Direction.IN),
    "notice.acknowledged": ("taken", Direction.IN),
    "notice.disposition": ("disposition", Direction.IN),
    "notice.action": ("action", Direction.IN),
    "notice.closed": ("closed", Direction.IN),
}
_HELD = "held"
_NOT_ALLOWED = "not allowed"


def lines_of(row: Watched, receipts: Sequence[Told], *, cursor: Cursor) -> Iterator[Line]:
    """Yield what a record says, one line or, for receipts, one each; `cursor` stands before it.

    Lines that the cursor counts as seen are left out.
    """
    said = read_record(row.record, index=row.record_index)
    done = Cursor(cursor.agency, cursor.generation, row.record_index + 1)
    if not receipts:
        yield _line(row, said, cursor=done)
        return
    for number, told in enumerate(receipts, start=1):
        if number > cursor.part:
            partly = Cursor(cursor.agency, cursor.generation, row.record_index, number)
            yield _receipted(row, told, cursor=done if number == len(receipts) else partly)


def _line(row: Watched, said: Mapping[str, Any], *, cursor: Cursor) -> Line:
    state, direction = _words(row.action, said.get("result"))
    detail = said.get("detail", {})
    stream = said.get("stream")
    return Line(
        cursor=cursor,
        at=row.recorded_at,
        direction=direction,
        state=state,
        kind=row.kind,
        notice_id=row.notice_id,
        revision=row.revision,
        office=row.office,
        lane=lane_of(stream) or row.lane,
        reason=said.get("reason"),
        count=_count(detail),
        action=row.action,
        message_id=row.message_id,
        stream=stream,
        sequence=said.get("sequence"),
        index=row.record_index,
    )


def _receipted(row: Watched, told: Told, *, cursor: Cursor) -> Line:
    state, direction = _WORDS[row.action]
    return Line(
        cursor=cursor,
        at=row.recorded_at,
        direction=direction,
        state=state,
        kind=told.kind,
        notice_id=told.notice_id,
        revision=told.revision,
        office=told.office,
        lane=lane_of(told.stream),
        reason=None,
        count=None,
        action=row.action,
        message_id=told.message_id,
        stream=told.stream,
        sequence=told.sequence,
        index=row.record_index,
    )


def _words(action: str, result: object) -> tuple[str, Direction]:
    own = action.removeprefix("notice.").removeprefix("case.")
    own = own.replace(".", " ").replace("_", " ")
    state, direction = _WORDS.get(action, (own, Direction.HERE))
    if action == "message.received" and result == _HELD:
        return _HELD, direction
    if result == "refused" and not action.startswith(("message.", "entries.")):
        # Somebody was told no; the record of it is an attempt, not the act.
        return _NOT_ALLOWED, Direction.HERE
    return state, direction


def _count(detail: object) -> int | None:
    count = detail.get("count") if isinstance(detail, Mapping) else None
    return count if isinstance(count, int) else None


def lane_of(stream: str | None) -> str | None:
    """Return the lane that a stream's name says, None for no stream."""
    found = _STREAM.fullmatch(stream) if stream else None
    return found["lane"] if found else None
