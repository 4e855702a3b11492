"""The failure-to-appear notice: one unaccompanied child, one missed hearing.

A notice is named by `notice_id` for life; each revision says all that is known, so the newest one
stands alone. The hearing is told in the court's own clock (`hearing_local`) with its IANA zone
(`hearing_zone`), because offsets change between scheduling and hearing; `hearing_at` derives the
instant. Courts, areas of responsibility, nationalities and languages are checked for shape here
and against the code lists where a notice is made: lists grow, and a recipient with an older list
must not turn a child away. Fields: design of the messages, FTA_NOTICE.
"""

import re
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.errors import RejectedError
from schemas.fields import (
    Body,
    CodeOfThree,
    Count,
    Day,
    DayOrMonth,
    Hash,
    Id,
    Line,
    LocalMoment,
    Name,
    Ordinal,
    RawCode,
    Time,
    Zone,
    broken,
    zone_of,
)

A_NUMBER_PATTERN = r"^A[0-9]{9}$"

# Fields of a notice that say who the child is or where; telemetry drops them by name.
PERSONAL_FIELDS = frozenset(
    {
        "a_number",
        "a_number_raw",
        "address_last_known",
        "birth_date",
        "city",
        "given_name",
        "family_name",
        "line1",
        "match_key",
        "name_family",
        "name_given",
        "state",
        "turns_18_on",
        "unit",
        "zip",
    }
)


class NoticeKind(StrEnum):
    """What a revision does to the notice."""

    NEW = "NEW"
    CORRECTION = "CORRECTION"
    WITHDRAWAL = "WITHDRAWAL"
    STATUS_UPDATE = "STATUS_UPDATE"


class ReasonCode(StrEnum):
    """Why a revision after the first was made; `codes/reasons.json` has the words."""

    WRONG_CHILD = "WRONG_CHILD"
    WRONG_HEARING = "WRONG_HEARING"
    APPEARED_LATE = "APPEARED_LATE"
    NOTICE_DEFECT = "NOTICE_DEFECT"
    IN_CUSTODY = "IN_CUSTODY"
    HEARING_VACATED = "HEARING_VACATED"
    ORDER_RESCINDED = "ORDER_RESCINDED"
    ORDER_STAYED = "ORDER_STAYED"
    VENUE_CHANGED = "VENUE_CHANGED"
    RESET_GRANTED = "RESET_GRANTED"
    APPEARED_SINCE = "APPEARED_SINCE"
    AGE_OUT = "AGE_OUT"
    DATA_ENTRY = "DATA_ENTRY"
    DUPLICATE = "DUPLICATE"
    KEYS_ATTACHED = "KEYS_ATTACHED"
    OTHER = "OTHER"


class UacBasis(StrEnum):
    """On whose word the child counts as unaccompanied."""

    DHS_DESIGNATION = "DHS_DESIGNATION"
    EOIR_PRIORITY_UC = "EOIR_PRIORITY_UC"
    EOIR_JUV_UJ = "EOIR_JUV_UJ"
    EOIR_JUV_J2 = "EOIR_JUV_J2"


class HearingType(StrEnum):
    """What was to be heard."""

    MASTER = "MASTER"
    INDIVIDUAL = "INDIVIDUAL"
    CUSTODY = "CUSTODY"
    OTHER = "OTHER"


class HearingMedium(StrEnum):
    """How the child was to attend."""

    IN_PERSON = "IN_PERSON"
    VIDEO = "VIDEO"
    PHONE = "PHONE"
    INTERNET = "INTERNET"
    NONE = "NONE"
    UNKNOWN = "UNKNOWN"


class HearingOutcome(StrEnum):
    """What the court did when the child was not there. A missed hearing is not yet an order."""

    MISSED_NO_ORDER = "MISSED_NO_ORDER"
    IN_ABSENTIA_ORDER = "IN_ABSENTIA_ORDER"
    ADMIN_CLOSED_FTA = "ADMIN_CLOSED_FTA"


class Answer(StrEnum):
    """Yes, no, or nobody knows; never guessed."""

    YES = "YES"
    NO = "NO"
    UNKNOWN = "UNKNOWN"


class NtaMethod(StrEnum):
    """How the Notice to Appear was served."""

    IN_PERSON = "IN_PERSON"
    MAIL = "MAIL"


class CustodyFlag(StrEnum):
    """Who held the child on the day of the hearing."""

    NOT_DETAINED = "NOT_DETAINED"
    DHS = "DHS"
    STATE_LOCAL = "STATE_LOCAL"
    ORR = "ORR"
    UNKNOWN = "UNKNOWN"


class ReportingRole(StrEnum):
    """Who noticed: trial lawyers, removal officers, juvenile coordinators, or the docket import."""

    OPLA = "OPLA"
    ERO = "ERO"
    FOJC = "FOJC"
    BATCH = "BATCH"


class AddressQuality(StrEnum):
    """What the last known address is worth. A bad address never holds a notice back."""

    OK = "OK"
    BLANK = "BLANK"
    NO_UNIT = "NO_UNIT"
    UNDELIVERABLE = "UNDELIVERABLE"
    RETURNED = "RETURNED"
    STALE = "STALE"
    UNVERIFIED = "UNVERIFIED"


class OfficeBasis(StrEnum):
    """What the area of responsibility rests on: told, or derived from the state or the court."""

    GIVEN = "GIVEN"
    STATE = "STATE"
    COURT = "COURT"
    UNKNOWN = "UNKNOWN"


class Priority(StrEnum):
    """URGENT: a sign of trafficking, a child under 13, or a repeated failure to appear."""

    ROUTINE = "ROUTINE"
    URGENT = "URGENT"


ANumber = Annotated[str, StringConstraints(pattern=A_NUMBER_PATTERN)]
CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")]


class Address(Body):
    """An address as ICE last knew it, as dirty as it was; what is unknown is absent."""

    line1: Line | None = None
    unit: Line | None = None
    city: Line | None = None
    state: Line | None = None
    zip: Line | None = None
    source: Line
    as_of: Day | None = None


class Notice(Body):
    """FTA_NOTICE: a child did not appear. ICE to HHS."""

    versions: ClassVar[tuple[str, ...]] = ("fta/1.0",)
    schema_rules: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"notice_kind": {"const": "NEW"}}},
        "then": {
            "properties": {"revision": {"const": 1}, "supersedes": False, "reason_code": False}
        },
        "else": {
            "properties": {"revision": {"minimum": 2}},
            "required": ["supersedes", "reason_code"],
        },
        "anyOf": [{"required": [name]} for name in ("match_key", "name_given", "name_family")],
        "dependentRequired": {
            "next_hearing_local": ["next_hearing_zone"],
            "next_hearing_zone": ["next_hearing_local"],
        },
    }

    schema_version: Literal["fta/1.0"] = "fta/1.0"
    notice_id: Id
    revision: Ordinal
    notice_kind: NoticeKind
    supersedes: Id | None = None
    reason_code: ReasonCode | None = None

    a_number: ANumber
    a_number_raw: Line | None = None
    match_key: Hash | None = None
    name_given: Name | None = None
    name_family: Name | None = None
    birth_date: DayOrMonth
    nationality: CountryCode | None = None
    nationality_raw: RawCode | None = None
    language: LanguageCode | None = None
    language_raw: RawCode | None = None
    uac_basis: UacBasis
    turns_18_on: Day | None = None

    eoir_case_key: Ordinal | None = None
    eoir_proceeding_key: Ordinal | None = None
    eoir_schedule_key: Ordinal | None = None
    hearing_local: LocalMoment
    hearing_zone: Zone
    hearing_type: HearingType
    cal_type_raw: RawCode | None = None
    schedule_type_raw: RawCode | None = None
    hearing_medium: HearingMedium
    base_city_code: CodeOfThree
    hearing_loc_code: CodeOfThree | None = None
    outcome: HearingOutcome
    outcome_at: Day
    adj_reason_raw: RawCode | None = None
    dec_code_raw: RawCode | None = None
    other_comp_raw: RawCode | None = None
    absentia_raw: RawCode | None = None
    next_hearing_local: LocalMoment | None = None
    next_hearing_zone: Zone | None = None

    nta_served: Answer
    nta_method: NtaMethod | None = None
    notice_defect_known: bool
    counsel_of_record: Answer
    custody_flag: CustodyFlag

    aor_code: CodeOfThree
    aor_basis: OfficeBasis | None = None
    reporting_office: Line
    reporting_role: ReportingRole
    address_last_known: Address | None = None
    address_quality: AddressQuality
    group_id: Id | None = None
    prior_missed: Count | None = None
    detected_at: Time
    source_release: Line
    source_row_hash: Hash
    priority: Priority

    @property
    def hearing_at(self) -> datetime:
        """The instant of the hearing, in the court's zone.

        Where the court set no time it is the first minute of that day. In the hour that a clock
        change repeats it is the first of the two.
        """
        zone = zone_of(self.hearing_zone)
        return datetime.fromisoformat(self.hearing_local).replace(tzinfo=zone)

    @property
    def hearing_on(self) -> date:
        """The local date of the hearing: with A-number and base city, its natural key."""
        return datetime.fromisoformat(self.hearing_local).date()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.a_number == "A000000000":
            raise broken("a_number", "must not be all zeros")
        if self.match_key is None and self.name_given is None and self.name_family is None:
            raise broken("name_family", "a name or a match key must be given beside the A-number")
        self._follows_its_kind()
        if (self.next_hearing_local is None) != (self.next_hearing_zone is None):
            raise broken("next_hearing_zone", "next hearing and its zone are given together")
        if self.nta_method is not None and self.nta_served is not Answer.YES:
            raise broken("nta_method", "a method of service needs nta_served YES")
        address = self.address_last_known
        if address is None or address.line1 is None:
            if self.address_quality in {AddressQuality.OK, AddressQuality.NO_UNIT}:
                raise broken("address_quality", "must not vouch for an address that is not there")
        elif self.address_quality is AddressQuality.BLANK:
            raise broken("address_quality", "must not be BLANK where an address is given")
        return self

    def _follows_its_kind(self) -> None:
        first = self.notice_kind is NoticeKind.NEW
        if first != (self.revision == 1):
            raise broken("revision", "NEW is revision 1, and revision 1 is NEW")
        if first != (self.supersedes is None):
            raise broken("supersedes", "names the message before, for every kind but NEW")
        if first != (self.reason_code is None):
            raise broken("reason_code", "is given for every kind but NEW")


class NilReturn(Body):
    """An office's signed statement that it had nothing to send in a span of days. ICE to HHS."""

    versions: ClassVar[tuple[str, ...]] = ("nilreturn/1.0",)

    schema_version: Literal["nilreturn/1.0"] = "nilreturn/1.0"
    aor_code: CodeOfThree
    first_day: Day
    last_day: Day
    reporting_role: ReportingRole
    hearings_checked: Count = Field(description="Hearings of the span that were looked at.")
    stated_at: Time

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.last_day < self.first_day:
            raise broken("last_day", "must not come before first_day")
        return self


_JOINTS = re.compile(r"[\s\-\u2010-\u2015\u2212]+")
_DIGITS_MIN, _DIGITS_MAX = 7, 9


def normalise_a_number(text: str) -> str:
    """Return an A-number as `A` and nine digits, from how people write it.

    Takes `A-`, `A`, lower case, blanks and hyphens anywhere; pads 7 and 8 digits with zeros on the
    left. Raises `RejectedError` NB-1001, whose words name the rule and never the value. There is
    no check digit: a slip of the pen gives another valid number, so a second identifier travels
    with it.
    """
    digits = _JOINTS.sub("", text)
    if digits[:1] in {"A", "a"}:
        digits = digits[1:]
    if not digits:
        raise RejectedError("NB-1001", field="a_number", rule="it is empty")
    if not (digits.isascii() and digits.isdigit()):
        raise RejectedError("NB-1001", field="a_number", rule="it holds more than A and digits")
    if len(digits) > _DIGITS_MAX:
        raise RejectedError("NB-1001", field="a_number", rule="it has more than 9 digits")
    if len(digits) < _DIGITS_MIN:
        raise RejectedError("NB-1001", field="a_number", rule="it has fewer than 7 digits")
    if not digits.strip("0"):
        raise RejectedError("NB-1001", field="a_number", rule="it is all zeros")
    return f"A{digits:0>9}"


def mask_a_number(a_number: str) -> str:
    """Return an A-number for people who need not see it: `A***-***-417`."""
    return f"A***-***-{a_number[-3:]}"
