"""Make a finding of a sighting: what a notice can say of one missed hearing.

Values of the court are translated by its own lists; what cannot be told is left out, never guessed.
A value that a notice cannot do without, and that cannot be read, is a fault of the row it is in.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from operator import itemgetter
from typing import Any
from uuid import UUID, uuid5

from schemas import codes
from schemas.errors import RejectedError
from schemas.fields import NAME_CHARACTERS_MAX, clean
from schemas.notice import (
    AddressQuality,
    Answer,
    CustodyFlag,
    HearingMedium,
    HearingType,
    OfficeBasis,
    Priority,
    ReportingRole,
    UacBasis,
)
from services.ice.docket.crosswalk import Crosswalk, Person
from services.ice.docket.files import Look
from services.ice.docket.findings import CourtKeys, Finding
from services.ice.docket.layout import CASES, CROSSWALK, SCHEDULE
from services.ice.docket.queries import Sighting
from services.ice.docket.rejects import Reject, RowFault
from services.ice.docket.rules import Decision

EARLIEST = date(1900, 1, 1)
_LINE_CHARACTERS_MAX = 128
_URGENT_BELOW_YEARS = 13
_ADULT_YEARS = 18
_STALE_DAYS = 548

# Names of groups of siblings: the same lead case has the same group in every release.
_GROUPS = UUID("6f7a2e0c-5d2b-5a1e-9a53-0d2c53b1c0de")

_NULL_LIKE = re.compile(r"(?:N/A|b6|A\.2\.a|\?+|0+)?", re.IGNORECASE)
_DAY = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d))?(?: 00:00:00(?:\.0+)?)?", re.ASCII)
_MONTH = re.compile(r"(\d{1,2})/(\d{4})", re.ASCII)
_RAW_CODE = re.compile(r"[!-~](?:[ -~]{0,2}[!-~])?", re.ASCII)
_PLACE_CODE = re.compile(r"[A-Z0-9]{3}", re.ASCII)
_UNIT_MISSING = re.compile(
    r"\b(?:apt|apartment|unit|ste|suite|bldg)\.?\s*#?\s*$|#\s*$", re.IGNORECASE
)

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Composed:
    """A finding with the decision that it rests on."""

    finding: Finding
    decision: Decision


class _PersonFault(RowFault):
    """The fault is in the crosswalk's row."""


class _CaseFault(RowFault):
    """The fault is in the row of the case."""


class _HearingFault(RowFault):
    """The fault is in the schedule row, which an order takes time and place from."""


@dataclass(slots=True, kw_only=True)
class Composer:
    """Makes the findings of one release; `latest` is the last day that can have been missed."""

    crosswalk: Crosswalk
    looks: Mapping[str, Look]
    release: str
    latest: date
    _last: tuple[int, Person] | None = field(default=None)

    def compose(self, row: Sighting, decision: Decision) -> Composed:
        """Return the finding of a sighting that was decided to be a missed hearing.

        Raises `RowFault`; `reject` tells which row it is about.
        """
        hearing_on = self._hearing_on(row)
        if row.proceeding_key is None:
            raise RowFault("NB-1014", "IDNPROCEEDING")
        if row.mismatch:
            raise _HearingFault("NB-1023", "IDNCASE")
        if row.unkeyed:
            raise _HearingFault("NB-1014", "IDNSCHEDULE")
        if row.is_order and row.rec_type is None:
            raise RowFault("NB-1020", "COMP_DATE")
        base_city, zone = _court(row.base_city)
        a_number = self.crosswalk.a_number(row.child)
        person = self._person(row.crosswalk_row)
        content = {
            **_identity(person, a_number, row.birth, hearing_on),
            **_case(row),
            **_address(person, row, hearing_on),
            **_office(person, row, base_city),
            **_hearing(row, hearing_on, base_city, zone),
            **_next_hearing(row),
            "outcome": str(decision.outcome),
            "outcome_at": hearing_on.isoformat(),
            "custody_flag": str(_custody(person, row, hearing_on)),
            "reporting_role": str(ReportingRole.BATCH),
            "source_release": self.release,
            "source_row_hash": _row_hash(row),
        }
        finding = Finding(
            a_number=a_number,
            base_city=base_city,
            hearing_on=hearing_on,
            decision=decision.treatment,
            confirm_code=decision.confirm,
            content=content,
            keys=CourtKeys(row.case_key, row.proceeding_key, row.schedule_key or 0),
            file=row.file,
            line=line_of(row, self.looks),
        )
        return Composed(finding, decision)

    def finished(self, made: Composed, aliases: tuple[CourtKeys, ...]) -> Finding:
        """Return the one finding of a hearing, with the keys of other rows that tell of it."""
        return replace(made.finding, aliases=aliases) if aliases else made.finding

    def reject(self, row: Sighting, fault: RowFault) -> Reject:
        """Return the reject of a fault, with the row that has to be mended."""
        if isinstance(fault, _PersonFault):
            line = self.crosswalk.line(row.crosswalk_row)
            return Reject(CROSSWALK.file, line, fault.code, fault.column)
        if isinstance(fault, _HearingFault) and row.schedule_line is not None:
            line = self.looks[SCHEDULE.name].line(row.schedule_line)
            return Reject(SCHEDULE.file, line, fault.code, fault.column)
        if isinstance(fault, _CaseFault) and row.case_line is not None:
            line = self.looks[CASES.name].line(row.case_line)
            return Reject(CASES.file, line, fault.code, fault.column)
        return Reject(row.file, line_of(row, self.looks), fault.code, fault.column)

    def _person(self, row: int) -> Person:
        # A child's findings come one after the other.
        if self._last is None or self._last[0] != row:
            self._last = row, self.crosswalk.person(row)
        return self._last[1]

    def _hearing_on(self, row: Sighting) -> date:
        column = "COMP_DATE" if row.is_order else "ADJ_DATE"
        if row.hearing_raw is None:
            raise RowFault("NB-1017", column)
        if row.hearing_on is None:
            raise RowFault("NB-1015", column)
        if not EARLIEST <= row.hearing_on <= self.latest:
            raise RowFault("NB-1016", column)
        return row.hearing_on


def line_of(row: Sighting, looks: Mapping[str, Look]) -> int:
    """Return the line of its file that a sighting stands on."""
    return looks[row.file.removesuffix(".csv")].line(row.line)


def _court(code: str | None) -> tuple[str, str]:
    """Return the base city and its zone. Raises `RowFault` NB-1021 or NB-1037."""
    if code is None:
        raise _HearingFault("NB-1021", "BASE_CITY_CODE")
    city = codes.base_cities().get(code)
    if city is None:
        raise _HearingFault("NB-1037", "BASE_CITY_CODE")
    if not city.court:
        raise _HearingFault("NB-1021", "BASE_CITY_CODE")
    return code, city.zone


def _identity(person: Person, a_number: str, court_birth: str | None, on: date) -> Content:
    content: Content = {"a_number": a_number, "uac_basis": str(UacBasis.DHS_DESIGNATION)}
    if person["a_number"] != a_number:
        content["a_number_raw"] = _text(person, "a_number")
    for column, name in (("given_name", "name_given"), ("family_name", "name_family")):
        text = _text(person, column, NAME_CHARACTERS_MAX)
        if text:
            content[name] = text
    if "name_given" not in content and "name_family" not in content:
        raise _PersonFault("NB-1034", "family_name")
    birth, full = _birth(person["birth_date"], court_birth)
    content["birth_date"] = birth
    if full is not None:
        content["turns_18_on"] = _years_after(full, _ADULT_YEARS).isoformat()
    youngest = full or date.fromisoformat(f"{birth}-01")
    urgent = on < _years_after(youngest, _URGENT_BELOW_YEARS)
    content["priority"] = str(Priority.URGENT if urgent else Priority.ROUTINE)
    served = {"Y": Answer.YES, "N": Answer.NO}.get(person["nta_served"][:1].upper())
    content["nta_served"] = str(served or Answer.UNKNOWN)
    return content


def _birth(told: str, court: str | None) -> tuple[str, date | None]:
    """Return birth date or month as a notice spells it, and the date where it is known."""
    day = _date(told)
    if day is not None:
        return day.isoformat(), day
    month = _DAY.fullmatch(told)
    if month and month[3] is None and 1 <= int(month[2]) <= 12 and int(month[1]) >= EARLIEST.year:
        return told[:7], None
    known = _MONTH.fullmatch(court or "")
    plain = known is not None and 1 <= int(known[1]) <= 12 and int(known[2]) >= EARLIEST.year
    if not _NULL_LIKE.fullmatch(told) or known is None or not plain:
        raise _PersonFault("NB-1033", "birth_date")
    return f"{known[2]}-{int(known[1]):02}", None


def _case(row: Sighting) -> Content:
    content: Content = {"counsel_of_record": str(_counsel(row.counsel))}
    content["notice_defect_known"] = bool(row.defect)
    if row.group_key is not None:
        content["group_id"] = str(uuid5(_GROUPS, str(row.group_key)))
    if row.nationality is not None:
        # A code that is new to us turns no child away: it travels as the court wrote it.
        nationality = codes.nationalities().get(row.nationality)
        if nationality is not None and nationality.genc is not None:
            content["nationality"] = nationality.genc
        _raw(content, "nationality_raw", row.nationality)
    if row.language is not None:
        language = codes.languages().get(row.language)
        if language is not None and language.iso is not None:
            content["language"] = language.iso
        _raw(content, "language_raw", row.language)
    return content


def _counsel(known: bool | None) -> Answer:  # noqa: FBT001 - a column
    if known is None:
        return Answer.UNKNOWN
    return Answer.YES if known else Answer.NO


def _address(person: Person, row: Sighting, on: date) -> Content:
    """Return the last known address, and what it is worth.

    Where DHS has none the court's city, state and ZIP code stand in, without a street.
    """
    columns = (
        ("line1", "address_line1"),
        ("unit", "address_unit"),
        ("city", "address_city"),
        ("state", "address_state"),
        ("zip", "address_zip"),
    )
    told = {name: _text(person, column) for name, column in columns}
    address: Content = {name: text for name, text in told.items() if text}
    as_of = _date(person["address_as_of"])
    if address:
        address["source"] = "crosswalk"
        if as_of is not None:
            address["as_of"] = as_of.isoformat()
    else:
        court = {"city": row.city, "state": row.state, "zip": row.zip}
        address = {name: text for name, value in court.items() if (text := clean(value or ""))}
        if any(len(text) > _LINE_CHARACTERS_MAX for text in address.values()):
            raise _CaseFault("NB-1035", "UPDATED_CITY")
        if address:
            address["source"] = CASES.name
    quality = _quality(address, as_of, on)
    content: Content = {"address_quality": str(quality)}
    if address:
        content["address_last_known"] = address
    return content


def _quality(address: Content, as_of: date | None, on: date) -> AddressQuality:
    line = address.get("line1")
    if line is None:
        return AddressQuality.BLANK
    placed = "zip" in address or ("city" in address and "state" in address)
    if not placed or not any(letter.isdigit() for letter in line):
        return AddressQuality.UNDELIVERABLE
    if "unit" not in address and _UNIT_MISSING.search(line):
        return AddressQuality.NO_UNIT
    if as_of is not None and (on - as_of).days > _STALE_DAYS:
        return AddressQuality.STALE
    return AddressQuality.UNVERIFIED


def _office(person: Person, row: Sighting, base_city: str) -> Content:
    told = person["aor_code"]
    if not _NULL_LIKE.fullmatch(told):
        try:
            office, basis = codes.office_code(told), OfficeBasis.GIVEN
        except RejectedError:
            raise _PersonFault("NB-1037", "aor_code") from None
    else:
        guess = codes.guess_office(person["address_state"] or row.state, base_city)
        office, basis = guess.aor_code, guess.basis
    return {"aor_code": office, "aor_basis": str(basis), "reporting_office": office}


def _hearing(row: Sighting, on: date, base_city: str, zone: str) -> Content:
    calendar = codes.calendar_types().get(row.cal_type or "")
    medium = codes.court_media().get(row.medium or "")
    content: Content = {
        "hearing_local": _local(on, _time(row.time)),
        "hearing_zone": zone,
        "hearing_type": str(calendar.hearing_type if calendar else HearingType.OTHER),
        "hearing_medium": str(medium.medium if medium else HearingMedium.UNKNOWN),
        "base_city_code": base_city,
        "eoir_case_key": row.case_key,
    }
    for name, key in (
        ("eoir_proceeding_key", row.proceeding_key),
        ("eoir_schedule_key", row.schedule_key),
    ):
        if key is not None:
            content[name] = key
    if row.hearing_loc is not None and _PLACE_CODE.fullmatch(row.hearing_loc):
        content["hearing_loc_code"] = row.hearing_loc
    for name, code in (
        ("cal_type_raw", row.cal_type),
        ("schedule_type_raw", row.schedule_type),
        ("adj_reason_raw", row.adj_rsn),
        ("dec_code_raw", row.dec_code),
        ("other_comp_raw", row.other_comp),
        ("absentia_raw", row.absentia),
    ):
        _raw(content, name, code)
    return content


def _next_hearing(row: Sighting) -> Content:
    """Return the next hearing of the case that the schedule knows; nothing where it is unclear."""
    court = codes.base_cities().get(row.next_city or row.base_city or "")
    if row.next_on is None or court is None or row.next_on < EARLIEST:
        return {}
    try:
        time = _time(row.next_time)
    except RowFault:
        time = None
    return {"next_hearing_local": _local(row.next_on, time), "next_hearing_zone": court.zone}


def _custody(person: Person, row: Sighting, on: date) -> CustodyFlag:
    """Return who held the child that day; before its release the child was in care of ORR."""
    released = _date(person["release_date"])
    if released is not None and on < released:
        return CustodyFlag.ORR
    known = codes.custody_statuses().get(row.custody or "")
    return CustodyFlag.UNKNOWN if known is None else known.custody_flag


def _time(text: str | None) -> tuple[int, int] | None:
    """Return hour and minute of `HHMM`, whose leading zeros get lost; None where no time is set.

    Raises `RowFault` NB-1018.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise _HearingFault("NB-1018", "ADJ_TIME_START")
    hour, minute = divmod(int(text), 100)
    if hour > 23 or minute > 59:
        raise _HearingFault("NB-1018", "ADJ_TIME_START")
    return hour, minute


def _local(on: date, time: tuple[int, int] | None) -> str:
    return on.isoformat() if time is None else f"{on.isoformat()}T{time[0]:02}:{time[1]:02}"


def _raw(content: Content, name: str, code: str | None) -> None:
    """Put the court's own code in, where it has the shape of one."""
    if code is not None and _RAW_CODE.fullmatch(code):
        content[name] = code


def _text(person: Person, column: str, characters_max: int = _LINE_CHARACTERS_MAX) -> str:
    """Return a value as it may travel, empty where nothing is said. Raises `RowFault` NB-1035."""
    text = person[column]
    # Nearly every value is plain already, and cleaning looks at each letter.
    if not (text.isascii() and text.isprintable() and "  " not in text):
        text = clean(text)
    if len(text) > characters_max:
        raise _PersonFault("NB-1035", column)
    return "" if _NULL_LIKE.fullmatch(text) else text


def _date(text: str) -> date | None:
    found = _DAY.fullmatch(text)
    if found is None or found[3] is None or int(found[1]) < EARLIEST.year:
        return None
    try:
        return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


def _years_after(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        # Born on 29 February: in other years the birthday counts from 1 March.
        return date(day.year + years, 3, 1)


def _row_hash(row: Sighting) -> str:
    """Return the hash of what the court's rows say of the hearing, unpadded base64url.

    Over the values that were read, joined by tabs, so that the hash of an unchanged row stays the
    same whichever spelling its file had.
    """
    said = "\t".join(["" if value is None else str(value) for value in _COURTS(row)])
    return urlsafe_b64encode(sha256(said.encode()).digest()).rstrip(b"=").decode("ascii")


# Where a row stands in this release's files is not what it says.
_COURTS = itemgetter(
    *(
        place
        for place, name in enumerate(Sighting._fields)
        if name not in {"line", "child", "crosswalk_row", "schedule_line", "case_line", "unkeyed"}
    )
)
