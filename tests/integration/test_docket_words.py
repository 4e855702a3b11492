"""What `rejects.csv` says of each fault: file, line, code, and what to do, by column, no value."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.ice.docket.rejects import write_rejects
from tests.docket_made import open_docket
from tests.integration.test_docket_faults import FAULTS, beside

# By code; `{}` is the column at fault.
WORDS: Mapping[str, str] = {
    "NB-1001": "Give 7 to 9 digits, with or without A, blanks and hyphens",
    "NB-1012": "A stray tab or comma shifted the columns: take it out of the line",
    "NB-1013": "The line is cut short or broken in two: make it whole",
    "NB-1014": "Give the court's number in {}; without it the row belongs to no case.",
    "NB-1015": "Write {} as YYYY-MM-DD 00:00:00.000, as the court does.",
    "NB-1016": "Check {} against the court's record",
    "NB-1017": "Give the date in {}.",
    "NB-1018": "Write {} as HHMM on a clock of 24 hours",
    "NB-1019": "Close the quotes, or double those inside a value",
    "NB-1020": "Look for the hearing's row among the rejects of tbl_schedule",
    "NB-1021": "Give the court that heard the case in {}",
    "NB-1022": "Give CASE_TYPE in B_TblProceeding or A_TblCase.",
    "NB-1023": "Compare IDNCASE of the row with that of its proceeding",
    "NB-1030": "Add a row with this line's IDNCASE to crosswalk.csv",
    "NB-1032": "Write Y or N: it says whether the child is in scope.",
    "NB-1033": "Write birth_date as YYYY-MM-DD, or YYYY-MM where only the month is known.",
    "NB-1034": "Give given_name or family_name",
    "NB-1035": "Shorten {}: names take 64 characters",
    "NB-1036": "Check IDNCASE for a slip: the hearings of this child are not looked at.",
    "NB-1037": "Check {} for a slip or a shifted column; if the code is new, add it to its list",
}
# The column of each fault whose words name it.
COLUMNS: Mapping[str, str] = {
    "schedule row without a case": "IDNCASE",
    "schedule row with a negative case": "IDNCASE",
    "no-show without a proceeding": "IDNPROCEEDING",
    "crosswalk row without a case": "IDNCASE",
    "flag without a case": "idnCase",
    "decision date that is none": "COMP_DATE",
    "day that the calendar lacks": "ADJ_DATE",
    "hearing before 1900": "ADJ_DATE",
    "no-show in the future": "ADJ_DATE",
    "order without a date": "COMP_DATE",
    "time that is none": "ADJ_TIME_START",
    "minute that is none": "ADJ_TIME_START",
    "order with a bad time in its schedule row": "ADJ_TIME_START",
    "order at a court that nobody knows": "BASE_CITY_CODE",
    "office that is no court": "BASE_CITY_CODE",
    "unknown court": "BASE_CITY_CODE",
    "unknown adjournment code": "ADJ_RSN",
    "unknown completion": "OTHER_COMP",
    "unknown absentia flag": "ABSENTIA",
    "unknown office": "aor_code",
    "endless name": "family_name",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reject_says_what_to_do_with_which_column(tmp_path: Path, fault: str) -> None:
    build, name, line, code = FAULTS[fault]
    rejects = tmp_path / "rejects.csv"
    with open_docket(build(beside(tmp_path / "docket")).write()) as docket:
        list(docket.findings())
        write_rejects(rejects, docket.rejects)

    with rejects.open(encoding="utf-8", newline="") as file:
        [heading, (in_file, at_line, with_code, fix)] = csv.reader(file)

    assert heading == ["file", "line", "code", "fix"]
    assert (in_file, at_line, with_code) == (name, str(line), code)
    assert ("{}" in WORDS[code]) == (fault in COLUMNS)
    assert fix.startswith(WORDS[code].format(COLUMNS.get(fault, "")))


def test_no_code_of_a_fault_is_without_words_here() -> None:
    assert {code for *_, code in FAULTS.values()} == WORDS.keys()
