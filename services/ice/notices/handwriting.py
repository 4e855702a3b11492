"""Read a notice that a person writes by hand: few things are asked, the rest is said to be unknown.

Fields have the notice's own names; `hearing`, `court`, `office`, `given_name` and `family_name` are
short for five of them. Every error names the field, the rule and what to do, and never the value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from schemas import codes
from schemas.canonical import b64, canonical
from schemas.errors import RejectedError
from schemas.fields import clean
from schemas.notice import Notice, Priority, normalise_a_number
from services.ice.revisions import NAMING_FIELDS

HAND = "hand"

# Short names that people type, and the field that each stands for.
SHORT_NAMES = {
    "hearing": "hearing_local",
    "court": "base_city_code",
    "office": "aor_code",
    "given_name": "name_given",
    "family_name": "name_family",
}
# What is worked out here and cannot be given.
_OURS = NAMING_FIELDS | {
    "a_number_raw",
    "detected_at",
    "hearing_zone",
    "prior_missed",
    "source_release",
    "source_row_hash",
}
FIELDS = frozenset(Notice.model_fields) - _OURS
REQUIRED = ("a_number", "hearing_local", "base_city_code", "aor_code", "birth_date")

# Nothing is guessed: what a person did not say is unknown, and HHS can read that it is.
_UNLESS_GIVEN: Mapping[str, Any] = {
    "uac_basis": "DHS_DESIGNATION",
    "hearing_type": "OTHER",
    "hearing_medium": "UNKNOWN",
    "outcome": "MISSED_NO_ORDER",
    "nta_served": "UNKNOWN",
    "notice_defect_known": False,
    "counsel_of_record": "UNKNOWN",
    "custody_flag": "UNKNOWN",
    "reporting_role": "ERO",
}

_ADULT_YEARS = 18
_YOUNG_YEARS = 13
# No docket of children that this bus carries is older; a year before it is a slip of the pen.
_FIRST_YEAR = 1990


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a person wrote, as a notice says it; `given` are the fields that they gave."""

    a_number: str
    base_city: str
    hearing_on: date
    content: Mapping[str, Any]
    given: frozenset[str]


def read(written: Mapping[str, Any], *, now: datetime) -> Written:
    """Return what a hand-written notice says.

    Raises `RejectedError`: NB-1070 for a field that is missing, NB-1071 for one that is none,
    NB-1001 (A-number), NB-1003 (a code that is not in its list), NB-1072 (hearing cannot be read),
    NB-1073 (it is in the future), NB-1074 (a date that cannot be), NB-1075 (not text), NB-1000 (no
    message can carry it). The schema has the last word, when the notice is made.
    """
    said = _named(written)
    for name in REQUIRED:
        if said.get(name) in (None, ""):
            raise RejectedError("NB-1070", field=name)
    text = _text(said, "a_number")
    a_number = normalise_a_number(text)
    court = _text(said, "base_city_code").strip().upper()
    zone = _zone_of(court)
    local = _hearing(_text(said, "hearing_local"), zone, now=now)
    birth = _text(said, "birth_date").strip()
    hearing_on = local if not isinstance(local, datetime) else local.date()
    office = codes.office_code(_text(said, "aor_code"))
    content: dict[str, Any] = {
        **_UNLESS_GIVEN,
        "outcome_at": hearing_on.isoformat(),
        "reporting_office": office,
        "address_quality": "UNVERIFIED" if said.get("address_last_known") else "BLANK",
        "priority": str(_priority(birth, hearing_on)),
        **said,
        "a_number": a_number,
        "base_city_code": court,
        "aor_code": office,
        "birth_date": birth,
        "hearing_local": (
            local.isoformat(timespec="minutes")
            if isinstance(local, datetime)
            else local.isoformat()
        ),
        "hearing_zone": zone,
        "source_release": HAND,
    }
    if text != a_number:
        content["a_number_raw"] = clean(text)
    turns_18_on = _birthday(birth, _ADULT_YEARS)
    if turns_18_on is not None:
        content.setdefault("turns_18_on", turns_18_on.isoformat())
    content["source_row_hash"] = b64(sha256(_sayable(content)).digest())
    return Written(
        a_number=a_number,
        base_city=court,
        hearing_on=hearing_on,
        content=content,
        given=frozenset(said),
    )


def _sayable(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of what a message can carry; names the field of what it cannot."""
    try:
        return canonical(content)
    except RejectedError:
        for name, value in content.items():
            try:
                canonical({name: value})
            except RejectedError as error:
                rule = f"cannot be said in a message: {error.where['rule']}"
                raise RejectedError("NB-1000", field=name, rule=rule) from None
        raise


def field_named(short: str) -> str:
    """Return the field that a name which people type stands for. Raises `RejectedError` NB-1071."""
    name = SHORT_NAMES.get(short, short)
    if name not in FIELDS:
        # A mistyped name is shown; anything longer may be a value that lost its name.
        shown = short if short.isidentifier() and len(short) <= 40 else "(unreadable)"
        raise RejectedError("NB-1071", field=shown)
    return name


def _named(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given under the notice's own names; empty values were not given."""
    said: dict[str, Any] = {}
    for short, value in written.items():
        name = field_named(short)
        if value is None or value == "":
            continue
        said[name] = clean(value) if isinstance(value, str) and name != "a_number" else value
    return said


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said[name]
    if not isinstance(value, str):
        raise RejectedError("NB-1075", field=name)
    return value


def _zone_of(court: str) -> str:
    listed = codes.base_cities()
    city = listed.of(court, field="base_city_code")
    if not city.court:
        raise RejectedError("NB-1003", field="base_city_code", list=listed.name, as_of=listed.as_of)
    return city.zone


def _hearing(text: str, zone: str, *, now: datetime) -> datetime | date:
    """Return when the hearing was in the court's own clock, without a zone; a date if no time."""
    here = ZoneInfo(zone)
    try:
        if len(text) == len("2026-03-03"):
            day = date.fromisoformat(text)
            late = day > now.astimezone(here).date()
            moment: datetime | date = day
        else:
            at = datetime.fromisoformat(text)
            # With an offset it is an instant: the court's clock showed something for it.
            local = at if at.tzinfo is None else at.astimezone(here).replace(tzinfo=None)
            moment = day_time = local.replace(second=0, microsecond=0)
            late = day_time.replace(tzinfo=here).astimezone(UTC) > now
    except (ValueError, OverflowError):
        # The first and the last day of the calendar have no neighbours for another zone.
        raise RejectedError("NB-1072", field="hearing_local") from None
    if late:
        raise RejectedError("NB-1073", field="hearing_local")
    if moment.year < _FIRST_YEAR:
        raise RejectedError("NB-1074", field="hearing_local", rule=f"it is before {_FIRST_YEAR}")
    return moment


def _priority(birth: str, hearing_on: date) -> Priority:
    """Return URGENT for a child under 13 at the hearing. Raises `RejectedError` NB-1074."""
    try:
        born = date.fromisoformat(birth if len(birth) > len("2010-05") else f"{birth}-01")
    except ValueError:
        raise RejectedError("NB-1074", field="birth_date", rule="it is no date or month") from None
    if born > hearing_on:
        raise RejectedError("NB-1074", field="birth_date", rule="it is after the hearing")
    turned = _anniversary(born, _YOUNG_YEARS)
    return Priority.URGENT if hearing_on < turned else Priority.ROUTINE


def _birthday(birth: str, years: int) -> date | None:
    """Return the birthday of that many years, or None where only the month is known."""
    return None if len(birth) <= len("2010-05") else _anniversary(date.fromisoformat(birth), years)


def _anniversary(born: date, years: int) -> date:
    try:
        return born.replace(year=born.year + years)
    except ValueError:
        # Born on 29 February: in other years the birthday is 1 March.
        return date(born.year + years, 3, 1)
