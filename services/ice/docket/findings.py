"""What reading a docket yields: missed hearings of unaccompanied children, and hearings taken back.

A finding says who, where and when, what to do about it, and in `content` all that a notice can say
of it: the JSON values of `schemas.notice.Notice` by its field names, absent where nothing is known.
Whoever opens the obligation adds what the docket cannot know: `detected_at`, `reporting_office`
when it is not the child's own office, `prior_missed`, and `priority` where a repeated failure makes
it URGENT.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from schemas.codes import Treatment
from schemas.notice import ReasonCode


class ConfirmCode(StrEnum):
    """Why a person has to decide before a notice goes out."""

    # Adjournment code 11: the child was absent, or only the lawyer.
    WHO_WAS_ABSENT = "WHO_WAS_ABSENT"
    # The proceeding moved to another court: the hearing may have been vacated.
    VENUE_CHANGED = "VENUE_CHANGED"
    # A decision in absentia in a kind of case where it need not mean a missed hearing.
    CASE_TYPE = "CASE_TYPE"
    # The court decided in absentia, yet its schedule says that no hearing was missed that day.
    CODES_DISAGREE = "CODES_DISAGREE"


class CourtKeys(NamedTuple):
    """The court's names of one hearing; 0 where it gave none."""

    case_key: int
    proceeding_key: int
    schedule_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One missed hearing of one unaccompanied child, as this release tells it.

    Natural key: `a_number`, `base_city`, `hearing_on`; a release yields one finding for each, and
    a child's findings stand together, earliest first. Where several rows tell of the hearing, the
    one that says most of what the court did speaks, and the keys of the others are `aliases`.
    `file` and `line` name the row, for a reject when no valid notice can be made of it.
    """

    a_number: str
    base_city: str
    hearing_on: date
    # SEND, or CONFIRM with the reason why a person is asked; never NONE.
    decision: Treatment
    confirm_code: ConfirmCode | None
    content: Mapping[str, Any]
    keys: CourtKeys
    file: str
    line: int
    aliases: tuple[CourtKeys, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """A hearing known as missed, of which this release says otherwise; `code` is what it says.

    A release that no longer mentions the hearing takes nothing back. Neither does one in which any
    row still has it as missed, with one exception: a hearing that was sent, and whose proceeding
    has moved to another court since, is taken back with VENUE_CHANGED. So a person who sends a
    notice in spite of VENUE_CHANGED must not be asked again for that reason. `file` and `line` name
    the row that says so.
    """

    a_number: str
    base_city: str
    hearing_on: date
    code: ReasonCode
    file: str
    line: int


class Known(Protocol):
    """What comparing with a later release needs of a hearing that was found before."""

    @property
    def a_number(self) -> str: ...
    @property
    def base_city(self) -> str: ...
    @property
    def hearing_on(self) -> date: ...
    @property
    def outcome(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def eoir_proceeding_key(self) -> int | None: ...
