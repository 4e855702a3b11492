"""The stories that an invented docket tells of its children, each with the answer that is right.

A story overrides columns of an otherwise plain case: one proceeding, a schedule row of the decisive
day, a row of the case, one of the crosswalk. `expected` is what reading it must come to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from schemas import codes
from schemas.codes import Treatment
from schemas.notice import HearingOutcome
from services.ice.docket.layout import CASES, CROSSWALK, PROCEEDINGS, SCHEDULE, Table
from services.ice.docket.rules import candidates, traps


class Expected(StrEnum):
    """What reading a row must come to."""

    SEND = "send"
    CONFIRM = "confirm"
    NONE = "none"
    REJECT = "reject"


class Spoil(StrEnum):
    """What was done to a line after it was written."""

    # A stray tab in the middle, so that each later value stands under the wrong heading.
    TAB = "tab"
    # A stray tab before the empty last column: nothing but the count of fields tells.
    TAB_AT_END = "tab_at_end"
    CUT_SHORT = "cut_short"
    TWICE = "twice"
    OPEN_QUOTE = "open_quote"
    # Another row, of a case that is nowhere else.
    STRANGER = "stranger"


Values = Mapping[str, str]
NOTHING: Values = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One child's case.

    Values may name the decisive date ({day}), one to come ({future}) and one before 1900 ({old}).
    `spoil` says which table's line is broken and how. Without `hearing` the decisive day has no
    schedule row; without `crosswalk` the case is left out of it.
    """

    name: str
    expected: Expected
    code: str = ""
    outcome: str = ""
    proceeding: Values = field(default_factory=dict)
    hearing: Values | None = field(default_factory=dict)
    case: Values = field(default_factory=dict)
    crosswalk: Values | None = field(default_factory=dict)
    juvenile: str = "4"
    priority: str = "UC"
    spoil: tuple[Table, Spoil] | None = None
    # Which line of the answers carries the answer: the schedule row, or the case by itself.
    at_case: bool = False


ORDER: Values = MappingProxyType(
    {"ABSENTIA": "Y", "DEC_CODE": "X", "DEC_TYPE": "O", "COMP_DATE": "{day}", "CASE_TYPE": "RMV"}
)
CLOSING: Values = MappingProxyType({"OTHER_COMP": "B", "COMP_DATE": "{day}", "ABSENTIA": ""})
NO_SHOW: Values = MappingProxyType({"ADJ_RSN": "11"})

_ORDERED = str(HearingOutcome.IN_ABSENTIA_ORDER)
_CLOSED = str(HearingOutcome.ADMIN_CLOSED_FTA)
_MISSED = str(HearingOutcome.MISSED_NO_ORDER)


def _sent(
    name: str,
    outcome: str,
    proceeding: Values,
    *,
    hearing: Values = NOTHING,
    case: Values = NOTHING,
    crosswalk: Values = NOTHING,
) -> Story:
    return Story(
        name=name,
        expected=Expected.SEND,
        outcome=outcome,
        proceeding=proceeding,
        hearing=hearing,
        case=case,
        crosswalk=crosswalk,
    )


def _asked(name: str, outcome: str, proceeding: Values, hearing: Values = NOTHING) -> Story:
    return Story(
        name=name,
        expected=Expected.CONFIRM,
        outcome=outcome,
        proceeding=proceeding,
        hearing=hearing,
    )


# Told over and over until the wanted number of missed hearings is reached; the quirks in them
# change how a value is written, never what it says.
SENT = (
    _sent("order", _ORDERED, ORDER),
    _sent("order with NUL bytes", _ORDERED, {**ORDER, "ABSENTIA": "Y\0", "DEC_CODE": "\0X"}),
    _sent("administrative closing", _CLOSED, CLOSING),
    _sent("order, asylum only", _ORDERED, {**ORDER, "CASE_TYPE": "AOC"}),
    _sent("order, case type in the case", _ORDERED, {**ORDER, "CASE_TYPE": ""}),
    _sent("order, lost zero", _ORDERED, ORDER, hearing={"ADJ_TIME_START": "830"}),
    _sent("order, no time", _ORDERED, ORDER, hearing={"ADJ_TIME_START": "0000"}),
    _sent("order, blanks", _ORDERED, {**ORDER, "ABSENTIA": " Y ", "VENUE_CHG_GRANTED": "N/A"}),
    _sent("order, NA is a value", _ORDERED, ORDER, hearing={"SCHEDULE_TYPE": "NA"}),
    _sent("order, latin-1", _ORDERED, ORDER, case={"UPDATED_CITY": "CAÑON CITY"}),
    _sent("order, written A-number", _ORDERED, ORDER, crosswalk={"a_number": "a {number}"}),
    _sent("order, court's month", _ORDERED, ORDER, crosswalk={"birth_date": ""}),
    _sent("order, no address", _ORDERED, ORDER, crosswalk={"address_line1": "N/A"}),
    _sent("order, quoted address", _ORDERED, ORDER, crosswalk={"address_line1": '"1 Via A, B"'}),
    _sent("order, unknown nationality", _ORDERED, ORDER, case={"NAT": "Q7"}),
    _sent("order, unknown language", _ORDERED, ORDER, case={"LANG": "Q7Z"}),
    _sent("order, no office", _ORDERED, ORDER, crosswalk={"aor_code": ""}),
)
ASKED = (
    _asked("no-show", _MISSED, NOTHING, hearing=NO_SHOW),
    _asked("order, venue changed", _ORDERED, {**ORDER, "VENUE_CHG_GRANTED": "{day}"}),
    _asked("order, transferred", _ORDERED, {**ORDER, "TRANSFER_TO": "HOU"}),
    _asked("order, change of venue", _ORDERED, {**ORDER, "OTHER_COMP": "C"}),
    _asked("order, transfer", _ORDERED, {**ORDER, "OTHER_COMP": "T"}),
    _asked("closing, venue changed", _CLOSED, {**CLOSING, "VENUE_CHG_GRANTED": "{day}"}),
    _asked("order, bond case", _ORDERED, {**ORDER, "CASE_TYPE": "BND"}),
    _asked("order, trap beside it", _ORDERED, ORDER, hearing={"ADJ_RSN": "46"}),
)


def _none(
    name: str,
    *,
    proceeding: Values = NOTHING,
    hearing: Values = NOTHING,
    crosswalk: Values | None = NOTHING,
    juvenile: str = "4",
    priority: str = "UC",
) -> Story:
    return Story(
        name=name,
        expected=Expected.NONE,
        proceeding=proceeding,
        hearing=hearing,
        crosswalk=crosswalk,
        juvenile=juvenile,
        priority=priority,
    )


def _rejected(
    name: str,
    code: str,
    *,
    proceeding: Values = NOTHING,
    hearing: Values | None = NOTHING,
    case: Values = NOTHING,
    crosswalk: Values | None = NOTHING,
    juvenile: str = "4",
    priority: str = "UC",
    spoil: tuple[Table, Spoil] | None = None,
    at_case: bool = False,
) -> Story:
    return Story(
        name=name,
        expected=Expected.REJECT,
        code=code,
        proceeding=proceeding,
        hearing=hearing,
        case=case,
        crosswalk=crosswalk,
        juvenile=juvenile,
        priority=priority,
        spoil=spoil,
        at_case=at_case,
    )


def _unflagged(story: Story) -> Story:
    """Return a story in which the court does not flag the case."""
    return replace(story, juvenile="5", priority="NA")


def _traps() -> tuple[Story, ...]:
    return tuple(_none(f"trap {code}", hearing={"ADJ_RSN": code}) for code in sorted(traps()))


def _record_types() -> tuple[Story, ...]:
    others = sorted(set(codes.record_types()) - set(candidates()))
    return tuple(
        _none(f"record type {code}", hearing={**NO_SHOW, "REC_TYPE": code}) for code in others
    )


def _adjournments() -> tuple[Story, ...]:
    plain = [
        code
        for code, said in codes.adjournments().codes.items()
        if said.treatment is Treatment.NONE and not said.trap
    ]
    return tuple(_none(f"adjournment {code}", hearing={"ADJ_RSN": code}) for code in plain)


# What looks like a missed hearing in scope and is none.
NONE = (
    *_traps(),
    *_record_types(),
    _none("no hearing held", hearing={**NO_SHOW, "ADJ_MEDIUM": "H"}),
    _none("order not in absentia", proceeding={**ORDER, "ABSENTIA": "N"}),
    _none("removed, flag empty", proceeding={**ORDER, "ABSENTIA": ""}),
    _none("venue changed", proceeding={"OTHER_COMP": "C", "COMP_DATE": "{day}"}),
    _none("future hearing", hearing={"ADJ_DATE": "{future}", "ADJ_RSN": ""}),
    _none("not unaccompanied", proceeding=ORDER, crosswalk={"uac": "N"}),
    _none("bad date that matters to nobody", hearing={"ADJ_DATE": "b6", "ADJ_RSN": "17"}),
    _unflagged(_none("adult", proceeding=ORDER, crosswalk=None)),
    _none("accompanied", proceeding=ORDER, crosswalk=None, juvenile="6", priority="NA"),
    _none("juvenile", proceeding=ORDER, crosswalk=None, juvenile="1", priority=""),
    *_adjournments(),
)

# Rows that cannot be read or matched, one reject each (but two for rows that contradict).
REJECTED = (
    _rejected("tab in proceeding", "NB-1012", spoil=(PROCEEDINGS, Spoil.TAB), at_case=True),
    _rejected("tab at end", "NB-1012", spoil=(PROCEEDINGS, Spoil.TAB_AT_END), at_case=True),
    _rejected("short proceeding", "NB-1013", spoil=(PROCEEDINGS, Spoil.CUT_SHORT), at_case=True),
    _rejected("tab in schedule", "NB-1012", hearing=NO_SHOW, spoil=(SCHEDULE, Spoil.TAB)),
    _rejected(
        "schedule tab at end", "NB-1012", hearing=NO_SHOW, spoil=(SCHEDULE, Spoil.TAB_AT_END)
    ),
    _rejected("short schedule", "NB-1013", hearing=NO_SHOW, spoil=(SCHEDULE, Spoil.CUT_SHORT)),
    _rejected("tab in case", "NB-1012", spoil=(CASES, Spoil.TAB), at_case=True),
    _rejected("case tab at end", "NB-1012", spoil=(CASES, Spoil.TAB_AT_END), at_case=True),
    _rejected("no key of the case", "NB-1014", hearing={**NO_SHOW, "IDNCASE": "b6"}),
    _rejected("no key of the proceeding", "NB-1014", hearing={**NO_SHOW, "IDNPROCEEDING": ""}),
    _rejected("unreadable decision date", "NB-1015", proceeding={**ORDER, "COMP_DATE": "31/12"}),
    _rejected("unreadable hearing date", "NB-1015", hearing={**NO_SHOW, "ADJ_DATE": "soon"}),
    _rejected("decision before 1900", "NB-1016", proceeding={**ORDER, "COMP_DATE": "{old}"}),
    _rejected("no-show in the future", "NB-1016", hearing={**NO_SHOW, "ADJ_DATE": "{future}"}),
    _rejected("order without a date", "NB-1017", proceeding={**ORDER, "COMP_DATE": ""}),
    _rejected("not a time", "NB-1018", proceeding=ORDER, hearing={"ADJ_TIME_START": "9 AM"}),
    _rejected("no such hour", "NB-1018", proceeding=ORDER, hearing={"ADJ_TIME_START": "2460"}),
    _rejected("no schedule row", "NB-1020", proceeding=ORDER, hearing=None, at_case=True),
    _rejected("only a bond hearing", "NB-1020", proceeding=ORDER, hearing={"REC_TYPE": "B"}),
    _rejected("not a court", "NB-1021", proceeding=ORDER, hearing={"BASE_CITY_CODE": "BIA"}),
    _rejected("unknown court", "NB-1037", proceeding=ORDER, hearing={"BASE_CITY_CODE": "Q7Z"}),
    _rejected("unknown adjournment", "NB-1037", hearing={"ADJ_RSN": "Q7"}),
    _rejected("unknown record type", "NB-1037", hearing={**NO_SHOW, "REC_TYPE": "Q"}),
    _rejected("unknown completion", "NB-1037", proceeding={"OTHER_COMP": "7"}),
    _rejected("unknown flag", "NB-1037", proceeding={**ORDER, "ABSENTIA": "Q"}),
    _rejected("unknown case type", "NB-1037", proceeding={**ORDER, "CASE_TYPE": "QQQ"}),
    _rejected(
        "no case type", "NB-1022", proceeding={**ORDER, "CASE_TYPE": ""}, case={"CASE_TYPE": ""}
    ),
    _rejected("UC, no crosswalk", "NB-1030", proceeding=ORDER, crosswalk=None, juvenile="5"),
    _rejected("UJ, no crosswalk", "NB-1030", proceeding=ORDER, crosswalk=None, priority=""),
    _rejected(
        "J2, no crosswalk", "NB-1030", hearing=NO_SHOW, crosswalk=None, juvenile="3", priority=""
    ),
    _rejected("bad A-number", "NB-1001", proceeding=ORDER, crosswalk={"a_number": "A12"}),
    _rejected("A-number of zeros", "NB-1001", proceeding=ORDER, crosswalk={"a_number": "0000000"}),
    _rejected("no uac", "NB-1032", proceeding=ORDER, crosswalk={"uac": "?"}),
    _rejected("birth date", "NB-1033", proceeding=ORDER, crosswalk={"birth_date": "2012-02-31"}),
    _rejected(
        "nameless", "NB-1034", proceeding=ORDER, crosswalk={"given_name": "", "family_name": " "}
    ),
    _rejected("long name", "NB-1035", proceeding=ORDER, crosswalk={"family_name": "Ñ" * 65}),
    _rejected("unknown office", "NB-1037", proceeding=ORDER, crosswalk={"aor_code": "Q7Z"}),
    _rejected("two children", "NB-1031", spoil=(CROSSWALK, Spoil.TWICE), at_case=True),
    _rejected("stranger", "NB-1036", spoil=(CROSSWALK, Spoil.STRANGER), at_case=True),
    _unflagged(_rejected("no key", "NB-1014", crosswalk={"IDNCASE": "A.2.a"}, at_case=True)),
    _unflagged(_rejected("comma", "NB-1012", spoil=(CROSSWALK, Spoil.TAB), at_case=True)),
    _unflagged(_rejected("cut off", "NB-1013", spoil=(CROSSWALK, Spoil.CUT_SHORT), at_case=True)),
    _unflagged(_rejected("quote", "NB-1019", spoil=(CROSSWALK, Spoil.OPEN_QUOTE), at_case=True)),
)
