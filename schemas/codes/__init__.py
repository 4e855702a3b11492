"""Code lists as data: what the codes of courts, agencies and people mean, with source and date.

Each list is one JSON file `{"source", "as_of", "codes": {code: {...}}}` in this folder, read once.
A code that is not in its list raises `RejectedError` NB-1003, which names the list and the field
and never shows the value, because a shifted column may have put a name where a code belongs.
Lists grow with each release of the court: a new code is a new line in a file, not in a program.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from schemas.codes.entries import (
    AbsentiaFlag,
    Adjournment,
    BaseCity,
    CalendarType,
    CaseType,
    CourtMedium,
    CustodyStatus,
    DetailedOutcome,
    DispositionReason,
    HearingLocation,
    Juvenile,
    Language,
    Meaning,
    Nationality,
    Office,
    OfficeGuess,
    OtherCompletion,
    Policy,
    Reason,
    RecordType,
    Scope,
    State,
    Treatment,
)
from schemas.errors import RejectedError
from schemas.notice import OfficeBasis

__all__ = [
    "UNKNOWN_OFFICE",
    "AbsentiaFlag",
    "Adjournment",
    "BaseCity",
    "CalendarType",
    "CaseType",
    "CodeList",
    "CourtMedium",
    "CustodyStatus",
    "DetailedOutcome",
    "DispositionReason",
    "HearingLocation",
    "Juvenile",
    "Language",
    "Meaning",
    "Nationality",
    "Office",
    "OfficeBasis",
    "OfficeGuess",
    "OtherCompletion",
    "Policy",
    "Reason",
    "RecordType",
    "Scope",
    "State",
    "Treatment",
    "absentia_flags",
    "actions",
    "adjournments",
    "base_cities",
    "calendar_types",
    "case_identifiers",
    "case_priorities",
    "case_types",
    "court_media",
    "custody_statuses",
    "detailed_outcomes",
    "discards",
    "dispositions",
    "guess_office",
    "hearing_locations",
    "juveniles",
    "languages",
    "nationalities",
    "office_code",
    "offices",
    "other_completions",
    "outcomes",
    "policies",
    "policy",
    "reasons",
    "record_types",
    "schedule_types",
    "states",
    "uac_bases",
]

UNKNOWN_OFFICE = "UNK"

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class CodeList(Generic[E]):
    """One list: where it is from, of which day, and what each code means."""

    name: str
    source: str
    as_of: str
    codes: Mapping[str, E]

    def get(self, code: str) -> E | None:
        """Return what a code means, or None."""
        return self.codes.get(code)

    def of(self, code: str, *, field: str) -> E:
        """Return what a code means; raises `RejectedError` NB-1003 naming list and `field`."""
        entry = self.codes.get(code)
        if entry is None:
            raise RejectedError("NB-1003", field=field, list=self.name, as_of=self.as_of)
        return entry

    def __contains__(self, code: object) -> bool:
        return code in self.codes

    def __iter__(self) -> Iterator[str]:
        return iter(self.codes)

    def __len__(self) -> int:
        return len(self.codes)


def _load(name: str, entry: type[E]) -> CodeList[E]:
    text = files("schemas.codes").joinpath(f"{name}.json").read_text(encoding="utf-8")
    said = json.loads(text)
    line = TypeAdapter(entry)
    codes = {code: line.validate_python(about) for code, about in said["codes"].items()}
    return CodeList(name, said["source"], said["as_of"], MappingProxyType(codes))


# The court's lists.


@cache
def base_cities() -> CodeList[BaseCity]:
    """Return the courts (BASE_CITY_CODE), and the offices that only look like one."""
    return _load("base_cities", BaseCity)


@cache
def hearing_locations() -> CodeList[HearingLocation]:
    """Return the hearing locations (HEARING_LOC_CODE) of children; other places are not listed."""
    return _load("hearing_locations", HearingLocation)


@cache
def adjournments() -> CodeList[Adjournment]:
    """Return why hearings were put off (ADJ_RSN), and which of it is a missed hearing."""
    return _load("adjournments", Adjournment)


@cache
def other_completions() -> CodeList[OtherCompletion]:
    """Return how a proceeding ended without a decision (OTHER_COMP)."""
    return _load("other_completions", OtherCompletion)


@cache
def absentia_flags() -> CodeList[AbsentiaFlag]:
    """Return the values of ABSENTIA; an empty field means N."""
    return _load("absentia_flags", AbsentiaFlag)


@cache
def court_media() -> CodeList[CourtMedium]:
    """Return how a hearing was held (ADJ_MEDIUM)."""
    return _load("court_media", CourtMedium)


@cache
def calendar_types() -> CodeList[CalendarType]:
    """Return what a hearing was for (CAL_TYPE)."""
    return _load("calendar_types", CalendarType)


@cache
def schedule_types() -> CodeList[Meaning]:
    """Return the kinds of schedule (SCHEDULE_TYPE); `NA` is one of them."""
    return _load("schedule_types", Meaning)


@cache
def record_types() -> CodeList[RecordType]:
    """Return the kinds of schedule rows (REC_TYPE); only candidates can be a missed hearing."""
    return _load("record_types", RecordType)


@cache
def case_types() -> CodeList[CaseType]:
    """Return the kinds of cases (CASE_TYPE), and what an absence means in each."""
    return _load("case_types", CaseType)


@cache
def custody_statuses() -> CodeList[CustodyStatus]:
    """Return the custody of a case (CUSTODY)."""
    return _load("custody_statuses", CustodyStatus)


@cache
def juveniles() -> CodeList[Juvenile]:
    """Return the juvenile codes by their number (idnJuvenile)."""
    return _load("juveniles", Juvenile)


@cache
def case_identifiers() -> CodeList[Juvenile]:
    """Return the case identifiers (CASE_ID) that say something of age or family."""
    return _load("case_identifiers", Juvenile)


@cache
def case_priorities() -> CodeList[Juvenile]:
    """Return the priorities of cases (CASEPRIORITY_CODE); UC is an unaccompanied child."""
    return _load("case_priorities", Juvenile)


@cache
def nationalities() -> CodeList[Nationality]:
    """Return the court's nationality codes, which are not ISO codes, with GENC alpha-3."""
    return _load("nationalities", Nationality)


@cache
def languages() -> CodeList[Language]:
    """Return the court's language codes, with ISO 639-3 where one language is meant."""
    return _load("languages", Language)


# The agencies' lists.


@cache
def offices() -> CodeList[Office]:
    """Return ICE's areas of responsibility, and UNK."""
    return _load("offices", Office)


@cache
def states() -> CodeList[State]:
    """Return the states and territories with the area of responsibility they lie in."""
    return _load("states", State)


@cache
def uac_bases() -> CodeList[Meaning]:
    """Return on whose word a child counts as unaccompanied."""
    return _load("uac_bases", Meaning)


@cache
def reasons() -> CodeList[Reason]:
    """Return why a notice is corrected, withdrawn or updated."""
    return _load("reasons", Reason)


@cache
def outcomes() -> CodeList[Meaning]:
    """Return the coarse outcomes that go back to ICE."""
    return _load("outcomes", Meaning)


@cache
def detailed_outcomes() -> CodeList[DetailedOutcome]:
    """Return the outcomes that a person at HHS chooses from; they stay at HHS."""
    return _load("detailed_outcomes", DetailedOutcome)


@cache
def discards() -> CodeList[Meaning]:
    """Return why a dead letter is given up."""
    return _load("discards", Meaning)


@cache
def dispositions() -> CodeList[DispositionReason]:
    """Return why HHS rejects or holds a notice."""
    return _load("dispositions", DispositionReason)


@cache
def actions() -> CodeList[Meaning]:
    """Return what HHS can begin to do."""
    return _load("actions", Meaning)


@cache
def policies() -> CodeList[Policy]:
    """Return the policies by version: clocks, and which codes may go back to ICE."""
    return _load("policies", Policy)


def policy() -> Policy:
    """Return the newest policy."""
    return list(policies().codes.values())[-1]


# What the lists say together.


def office_code(text: str) -> str:
    """Return the area of responsibility that a code or one of its other spellings means.

    Raises `RejectedError` NB-1003.
    """
    code = text.strip().upper()
    for known, office in offices().codes.items():
        if code == known or code in office.aliases:
            return known
    listed = offices()
    raise RejectedError("NB-1003", field="aor_code", list=listed.name, as_of=listed.as_of)


def guess_office(state: str | None, base_city: str | None) -> OfficeGuess:
    """Return the office that most likely answers for an address, and what the guess rests on.

    The child's county decides, and nobody gives it. A state that lies in one area decides as well
    (`STATE`). In a divided state, or without a state, the court's own area stands in (`COURT`): a
    fallback, to be shown as such. Without either it is UNK.
    """
    place = states().get(state.strip().upper()) if state else None
    if place is not None and place.aor_code is not None:
        return OfficeGuess(place.aor_code, OfficeBasis.STATE)
    court = base_cities().get(base_city) if base_city else None
    fallback = None if court is None else court.fallback_aor
    # A court elsewhere says nothing about which part of a divided state it is.
    if fallback is not None and (place is None or fallback in place.divided):
        return OfficeGuess(fallback, OfficeBasis.COURT)
    return OfficeGuess(UNKNOWN_OFFICE, OfficeBasis.UNKNOWN)
