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


class Place(NamedTuple):
    """Where a finding stands in the order of all findings of a release: by the court's keys.

    The order is the same in every reading of the same files, so that an interrupted import can go
    on after the last place that it wrote.
    """

    case_key: int
    proceeding_key: int
    # 0 where the release has no schedule row of this hearing.
    schedule_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One missed hearing of one unaccompanied child, as one row of this release tells it.

    Natural key: `a_number`, `base_city`, `hearing_on`. Several findings of a release may share it
    (a second case, an order and the adjournment before it). `file` and `line` name the row, for a
    reject when no valid notice can be made of it.
    """

    a_number: str
    base_city: str
    hearing_on: date
    # SEND, or CONFIRM with the reason why a person is asked; never NONE.
    decision: Treatment
    confirm_code: ConfirmCode | None
    content: Mapping[str, Any]
    place: Place
    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """A hearing known as missed, of which this release says otherwise; `code` is what it says.

    A release that no longer mentions the hearing's proceeding takes nothing back. Neither does one
    in which any other row still has the hearing as missed.
    """

    a_number: str
    base_city: str
    hearing_on: date
    code: ReasonCode


class Known(Protocol):
    """What comparing with a later release needs of a hearing that was found before."""

    @property
    def a_number(self) -> str: ...
    @property
    def base_city(self) -> str: ...
    @property
    def hearing_on(self) -> date: ...
    @property
    def eoir_proceeding_key(self) -> int | None: ...
    @property
    def eoir_schedule_key(self) -> int | None: ...
