"""Rows that cannot be read or matched: each class on its line, with its code, and the rest goes on.

Each docket has one child beside the broken row whose missed hearing must be found all the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.codes import Treatment
from schemas.errors import wordings
from services.ice.docket import layout
from services.ice.docket.rejects import Reject
from tests.docket_made import (
    NO_SHOW,
    ORDER,
    DocketMade,
    an_order,
    open_docket,
    rejected,
)

OTHER = 501

CASES, PROCEEDINGS, SCHEDULE = "A_TblCase.csv", "B_TblProceeding.csv", "tbl_schedule.csv"
CROSSWALK = "crosswalk.csv"


def beside(folder: Path) -> DocketMade:
    """Return a docket of one child with an order, and the case of another child."""
    return an_order(folder).case(OTHER)


def other_order(docket: DocketMade, **crosswalk: Any) -> DocketMade:
    """Give the other child a row of the crosswalk and an order."""
    docket.child(OTHER, number=2, **crosswalk)
    docket.proceeding(701, IDNCASE=OTHER, **ORDER)
    return docket.hearing(901, IDNCASE=OTHER, IDNPROCEEDING=701)


def other_hearing(docket: DocketMade, **values: Any) -> DocketMade:
    """Give the other child a schedule row that tells of a no-show."""
    docket.child(OTHER, number=2).proceeding(701, IDNCASE=OTHER)
    return docket.hearing(901, **{"IDNCASE": OTHER, "IDNPROCEEDING": 701, **NO_SHOW, **values})


def other_proceeding(
    docket: DocketMade, hearing: dict[str, Any] | None = None, **values: Any
) -> DocketMade:
    """Give the other child an order, and the schedule row of its day."""
    docket.child(OTHER, number=2)
    docket.proceeding(701, **{"IDNCASE": OTHER, **ORDER, **values})
    return docket.hearing(901, **{"IDNCASE": OTHER, "IDNPROCEEDING": 701, **(hearing or {})})


def broken(docket: DocketMade, table: layout.Table, how: Callable[[str], str]) -> DocketMade:
    """Break the last line of a table."""
    docket.lines[table.name][-1] = how(docket.lines[table.name][-1])
    return docket


def with_tab(line: str) -> str:
    fields = line.split("\t")
    return "\t".join([*fields[:12], "", *fields[12:]])


def with_tab_before_the_empty_end(line: str) -> str:
    assert line.endswith("\t"), "the last column is empty"
    return line + "\t"


def with_eight_tabs(line: str) -> str:
    return line + "\t" * 8


def cut_short(line: str) -> str:
    return line.rsplit("\t", 1)[0]


Build = Callable[[DocketMade], DocketMade]

FAULTS: dict[str, tuple[Build, str, int, str]] = {
    "stray tab in a proceeding": (
        lambda d: broken(other_proceeding(d), layout.PROCEEDINGS, with_tab),
        PROCEEDINGS,
        3,
        "NB-1012",
    ),
    "stray tab before an empty last column": (
        lambda d: broken(other_proceeding(d), layout.PROCEEDINGS, with_tab_before_the_empty_end),
        PROCEEDINGS,
        3,
        "NB-1012",
    ),
    "more tabs than spare columns": (
        lambda d: broken(other_hearing(d), layout.SCHEDULE, with_eight_tabs),
        SCHEDULE,
        3,
        "NB-1012",
    ),
    "stray tab in a schedule row": (
        lambda d: broken(other_hearing(d), layout.SCHEDULE, with_tab),
        SCHEDULE,
        3,
        "NB-1012",
    ),
    "stray tab in a case": (
        lambda d: broken(d.child(OTHER, number=2), layout.CASES, with_tab),
        CASES,
        3,
        "NB-1012",
    ),
    "line that is cut short": (
        lambda d: broken(other_hearing(d), layout.SCHEDULE, cut_short),
        SCHEDULE,
        3,
        "NB-1013",
    ),
    "line of rubbish": (
        lambda d: d.line(layout.SCHEDULE, "\0\0"),
        SCHEDULE,
        3,
        "NB-1013",
    ),
    "schedule row without a case": (
        lambda d: other_hearing(d, IDNCASE="b6"),
        SCHEDULE,
        3,
        "NB-1014",
    ),
    "schedule row with a negative case": (
        lambda d: other_hearing(d, IDNCASE="-7"),
        SCHEDULE,
        3,
        "NB-1014",
    ),
    "no-show without a proceeding": (
        lambda d: other_hearing(d, IDNPROCEEDING="N/A"),
        SCHEDULE,
        3,
        "NB-1014",
    ),
    "decision date that is none": (
        lambda d: other_proceeding(d, COMP_DATE="31 December"),
        PROCEEDINGS,
        3,
        "NB-1015",
    ),
    "day that the calendar lacks": (
        lambda d: other_hearing(d, ADJ_DATE="2026-02-30 00:00:00.000"),
        SCHEDULE,
        3,
        "NB-1015",
    ),
    "hearing before 1900": (
        lambda d: other_hearing(d, ADJ_DATE="1825-05-04 00:00:00.000"),
        SCHEDULE,
        3,
        "NB-1016",
    ),
    "no-show in the future": (
        lambda d: other_hearing(d, ADJ_DATE="2027-05-04 00:00:00.000"),
        SCHEDULE,
        3,
        "NB-1016",
    ),
    "order without a date": (
        lambda d: other_proceeding(d, COMP_DATE="N/A"),
        PROCEEDINGS,
        3,
        "NB-1017",
    ),
    "time that is none": (
        lambda d: other_hearing(d, ADJ_TIME_START="9 AM"),
        SCHEDULE,
        3,
        "NB-1018",
    ),
    "minute that is none": (
        lambda d: other_hearing(d, ADJ_TIME_START="960"),
        SCHEDULE,
        3,
        "NB-1018",
    ),
    "order without a schedule row of its day": (
        lambda d: other_proceeding(d, {"ADJ_DATE": "2026-05-05 00:00:00.000"}),
        PROCEEDINGS,
        3,
        "NB-1020",
    ),
    "order on the day of a bond hearing": (
        lambda d: other_proceeding(d, {"REC_TYPE": "B"}),
        PROCEEDINGS,
        3,
        "NB-1020",
    ),
    "order with a bad time in its schedule row": (
        lambda d: other_proceeding(d, {"ADJ_TIME_START": "noon"}),
        SCHEDULE,
        3,
        "NB-1018",
    ),
    "order at a court that nobody knows": (
        lambda d: other_proceeding(d, {"BASE_CITY_CODE": "Q7Z"}),
        SCHEDULE,
        3,
        "NB-1037",
    ),
    "office that is no court": (
        lambda d: other_hearing(d, BASE_CITY_CODE="BIA"),
        SCHEDULE,
        3,
        "NB-1021",
    ),
    "unknown court": (
        lambda d: other_hearing(d, BASE_CITY_CODE="Q7Z"),
        SCHEDULE,
        3,
        "NB-1037",
    ),
    "unknown adjournment code": (
        lambda d: other_hearing(d, ADJ_RSN="Q7"),
        SCHEDULE,
        3,
        "NB-1037",
    ),
    "unknown completion": (
        lambda d: other_proceeding(d, ABSENTIA="N", OTHER_COMP="7"),
        PROCEEDINGS,
        3,
        "NB-1037",
    ),
    "unknown absentia flag": (
        lambda d: other_proceeding(d, ABSENTIA="Q"),
        PROCEEDINGS,
        3,
        "NB-1037",
    ),
    "order without a case type": (
        lambda d: other_proceeding(d, CASE_TYPE=""),
        PROCEEDINGS,
        3,
        "NB-1022",
    ),
    "schedule row and proceeding of different cases": (
        lambda d: other_hearing(d, IDNPROCEEDING=700),
        SCHEDULE,
        3,
        "NB-1023",
    ),
    "unreadable A-number": (lambda d: other_order(d, a_number="A12"), CROSSWALK, 3, "NB-1001"),
    "A-number of zeros": (lambda d: other_order(d, a_number="0000000"), CROSSWALK, 3, "NB-1001"),
    "uac that is neither Y nor N": (lambda d: other_order(d, uac="yes"), CROSSWALK, 3, "NB-1032"),
    "crosswalk row without a case": (
        lambda d: other_order(d, IDNCASE="x"),
        CROSSWALK,
        3,
        "NB-1014",
    ),
    "birth date that is none": (
        lambda d: other_order(d, birth_date="May 2012"),
        CROSSWALK,
        3,
        "NB-1033",
    ),
    "no birth date, and none at the court": (
        lambda d: other_order(d, birth_date=""),
        CROSSWALK,
        3,
        "NB-1033",
    ),
    "nobody's name": (
        lambda d: other_order(d, given_name="", family_name="N/A"),
        CROSSWALK,
        3,
        "NB-1034",
    ),
    "endless name": (lambda d: other_order(d, family_name="Ñ" * 65), CROSSWALK, 3, "NB-1035"),
    "unknown office": (lambda d: other_order(d, aor_code="Q7Z"), CROSSWALK, 3, "NB-1037"),
    "comma too many": (
        lambda d: broken(other_order(d), layout.CROSSWALK, lambda line: f"{line},"),
        CROSSWALK,
        3,
        "NB-1012",
    ),
    "comma too few": (
        lambda d: broken(other_order(d), layout.CROSSWALK, lambda line: line[:-1]),
        CROSSWALK,
        3,
        "NB-1013",
    ),
    "quote that never closes": (
        lambda d: other_order(d, address_line1='"12 Nonesuch St'),
        CROSSWALK,
        3,
        "NB-1019",
    ),
    "crosswalk row of a case that is nowhere": (
        lambda d: d.child(99_999, number=2),
        CROSSWALK,
        3,
        "NB-1036",
    ),
    "flagged UC without a crosswalk row": (
        lambda d: d.flag(OTHER, priority="UC"),
        CASES,
        3,
        "NB-1030",
    ),
    "flagged UJ without a crosswalk row": (
        lambda d: d.flag(OTHER, juvenile="4"),
        CASES,
        3,
        "NB-1030",
    ),
    "flagged J2 without a crosswalk row": (
        lambda d: d.flag(OTHER, juvenile="3"),
        CASES,
        3,
        "NB-1030",
    ),
    "flagged by identifier without a crosswalk row": (
        lambda d: d.add(layout.IDENTIFIERS, IDNCASEID=1, IDNCASE=OTHER, CASE_ID="UJ"),
        CASES,
        3,
        "NB-1030",
    ),
    "flagged in the case itself without a crosswalk row": (
        lambda d: d.case(502, CASEPRIORITY_CODE="UC"),
        CASES,
        4,
        "NB-1030",
    ),
    "flagged without any row of the case": (
        lambda d: d.flag(99_999, juvenile="4"),
        "tbl_JuvenileHistory.csv",
        2,
        "NB-1030",
    ),
    "flag without a case": (
        lambda d: d.add(layout.JUVENILES, idnJuvenileHistory=1, idnJuvenile="4"),
        "tbl_JuvenileHistory.csv",
        2,
        "NB-1014",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_on_its_line_and_the_rest_goes_on(tmp_path: Path, fault: str) -> None:
    build, file, line, code = FAULTS[fault]
    folder = build(beside(tmp_path / "docket")).write()

    with open_docket(folder) as docket:
        findings = list(docket.findings())
        rejects = [(reject.file, reject.line, reject.code) for reject in docket.rejects]

    assert rejects == [(file, line, code)]
    assert [finding.keys.case_key for finding in findings] == [500]
    assert findings[0].decision is Treatment.SEND


@pytest.mark.parametrize("code", sorted({code for _, _, _, code in FAULTS.values()}))
def test_fix_of_each_fault_needs_no_more_than_the_column(code: str) -> None:
    assert code in wordings()
    assert "{" not in Reject("tbl_schedule.csv", 3, code, "ADJ_DATE").fix


def test_nationality_and_language_that_nobody_knows_turn_no_child_away(tmp_path: Path) -> None:
    folder = an_order(tmp_path / "docket").case(OTHER, NAT="Q7", LANG="Q7Z")
    other_order(folder)

    with open_docket(folder.write()) as docket:
        findings = {finding.keys.case_key: finding.content for finding in docket.findings()}
        assert list(docket.rejects) == []

    told = findings[OTHER]
    assert (told["nationality_raw"], told["language_raw"]) == ("Q7", "Q7Z")
    assert not {"nationality", "language"} & told.keys()
    assert {"nationality", "language"} <= findings[500].keys()


def test_crosswalk_rows_that_name_two_children_are_both_rejected(tmp_path: Path) -> None:
    folder = other_order(beside(tmp_path / "docket")).child(OTHER, number=3).write()

    with open_docket(folder) as docket:
        assert rejected(docket) == [(CROSSWALK, 3, "NB-1031"), (CROSSWALK, 4, "NB-1031")]


def test_crosswalk_rows_that_say_yes_and_no_are_both_rejected(tmp_path: Path) -> None:
    folder = other_order(beside(tmp_path / "docket")).child(OTHER, number=2, uac="N").write()

    with open_docket(folder) as docket:
        assert [code for _, _, code in rejected(docket)] == ["NB-1031", "NB-1031"]


def test_crosswalk_rows_that_agree_are_one_and_the_newer_speaks(tmp_path: Path) -> None:
    folder = an_order(tmp_path / "docket", given_name="Older").child(given_name="Newer").write()

    with open_docket(folder) as docket:
        (finding,) = docket.findings()
        assert list(docket.rejects) == []

    assert finding.content["name_given"] == "Newer"


def test_fault_of_one_child_in_two_hearings_is_one_reject(tmp_path: Path) -> None:
    docket = other_order(beside(tmp_path / "docket"), birth_date="never")
    later = "2026-05-11 00:00:00.000"
    docket.hearing(902, IDNCASE=OTHER, IDNPROCEEDING=701, ADJ_DATE=later, **NO_SHOW)

    with open_docket(docket.write()) as opened:
        assert rejected(opened) == [(CROSSWALK, 3, "NB-1033")]


@pytest.mark.parametrize(
    "values",
    [
        {"ADJ_DATE": "b6"},
        {"ADJ_DATE": "0201-01-01 00:00:00.000"},
        {"ADJ_TIME_START": "noon"},
        {"BASE_CITY_CODE": "Q7Z"},
        {"IDNPROCEEDING": "A.2.a"},
        {"REC_TYPE": "Q", "ADJ_RSN": "17"},
    ],
)
def test_bad_value_on_which_no_missed_hearing_rests_is_no_reject(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    another_day = {"ADJ_DATE": "2026-06-01 00:00:00.000"}
    folder = an_order(tmp_path / "docket").hearing(902, **{**another_day, **values}).write()

    with open_docket(folder) as docket:
        assert rejected(docket) == []


def test_adults_bad_values_are_no_rejects(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket").case(OTHER, NAT="Q7")
    docket.proceeding(701, IDNCASE=OTHER, ABSENTIA="Q", COMP_DATE="b6", OTHER_COMP="7")
    docket.hearing(901, IDNCASE=OTHER, ADJ_RSN="Q7", ADJ_DATE="never")

    with open_docket(docket.write()) as opened:
        assert rejected(opened) == []


def test_lines_are_those_of_the_file_after_empty_ones(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket").line(layout.SCHEDULE, "").line(layout.SCHEDULE, "")
    docket.hearing(902, ADJ_RSN="Q7")

    with open_docket(docket.write()) as opened:
        assert rejected(opened) == [(SCHEDULE, 5, "NB-1037")]


def test_lone_carriage_return_breaks_one_line_only(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket").hearing(902, ADJ_RSN="17").hearing(903, ADJ_RSN="Q7")
    lines = docket.lines[layout.SCHEDULE.name]
    lines[1] = lines[1].replace("\tHOU\t", "\tHO\rU\t", 1)

    with open_docket(docket.write()) as opened:
        assert rejected(opened) == [(SCHEDULE, 3, "NB-1013"), (SCHEDULE, 4, "NB-1037")]
