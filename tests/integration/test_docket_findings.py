"""What a finding says of a missed hearing, and what a later release takes back."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from schemas.codes import Treatment
from schemas.notice import ReasonCode
from services.ice.docket import layout
from services.ice.docket.findings import ConfirmCode, CourtKeys, Finding, TakenBack
from tests.docket_made import (
    DAY,
    NO_SHOW,
    ORDER,
    DocketMade,
    a_docket,
    an_order,
    open_docket,
)

NOWHERE: dict[str, Any] = {
    "address_line1": "",
    "address_city": "",
    "address_state": "",
    "address_zip": "",
}


def only(docket: DocketMade) -> Finding:
    """Return the only finding of a docket."""
    with open_docket(docket.write()) as opened:
        (finding,) = opened.findings()
        assert list(opened.rejects) == []
    return finding


def none_in(docket: DocketMade) -> bool:
    with open_docket(docket.write()) as opened:
        return list(opened.findings()) == [] and list(opened.rejects) == []


def test_order_says_who_where_when_and_why(tmp_path: Path) -> None:
    finding = only(an_order(tmp_path / "docket"))

    content: dict[str, Any] = dict(finding.content)
    assert len(content.pop("source_row_hash")) == 43
    assert (finding.a_number, finding.base_city, finding.hearing_on) == (
        "A200000001",
        "HOU",
        date(2026, 5, 4),
    )
    assert finding.keys == CourtKeys(500, 700, 900)
    assert (finding.file, finding.line) == ("B_TblProceeding.csv", 2)
    assert finding.decision is Treatment.SEND
    assert content == {
        "a_number": "A200000001",
        "name_given": "Invented",
        "name_family": "Nosuchchild",
        "birth_date": "2012-05-04",
        "turns_18_on": "2030-05-04",
        "nationality": "GTM",
        "nationality_raw": "GT",
        "language": "spa",
        "language_raw": "SP",
        "uac_basis": "DHS_DESIGNATION",
        "eoir_case_key": 500,
        "eoir_proceeding_key": 700,
        "eoir_schedule_key": 900,
        "hearing_local": "2026-05-04T08:30",
        "hearing_zone": "America/Chicago",
        "hearing_type": "MASTER",
        "cal_type_raw": "M",
        "schedule_type_raw": "MR",
        "hearing_medium": "IN_PERSON",
        "base_city_code": "HOU",
        "hearing_loc_code": "HOU",
        "outcome": "IN_ABSENTIA_ORDER",
        "outcome_at": "2026-05-04",
        "adj_reason_raw": "8B",
        "dec_code_raw": "X",
        "absentia_raw": "Y",
        "nta_served": "YES",
        "notice_defect_known": False,
        "counsel_of_record": "NO",
        "custody_flag": "NOT_DETAINED",
        "aor_code": "HOU",
        "aor_basis": "GIVEN",
        "reporting_office": "HOU",
        "reporting_role": "BATCH",
        "address_last_known": {
            "line1": "12 Nonesuch St",
            "city": "Houston",
            "state": "TX",
            "zip": "77000",
            "source": "crosswalk",
            "as_of": "2026-01-02",
        },
        "address_quality": "UNVERIFIED",
        "source_release": "docket",
        "priority": "ROUTINE",
    }


@pytest.mark.parametrize(
    ("written", "local"),
    [
        ("0830", "2026-05-04T08:30"),
        ("830", "2026-05-04T08:30"),
        ("5", "2026-05-04T00:05"),
        ("1330", "2026-05-04T13:30"),
        ("0000", "2026-05-04"),
        ("", "2026-05-04"),
        (" 9\0" + "00 ", "2026-05-04T09:00"),
    ],
)
def test_time_is_read_as_the_court_writes_it(tmp_path: Path, written: str, local: str) -> None:
    docket = a_docket(tmp_path / "docket").proceeding(**ORDER).hearing(ADJ_TIME_START=written)

    assert only(docket).content["hearing_local"] == local


def test_na_is_a_value(tmp_path: Path) -> None:
    docket = a_docket(tmp_path / "docket").proceeding(**ORDER).hearing(SCHEDULE_TYPE="NA")

    assert only(docket).content["schedule_type_raw"] == "NA"


@pytest.mark.parametrize("nothing", ["", " ", "N/A", "n/a", "b6", "A.2.a", "???", "000"])
def test_what_only_looks_like_a_value_is_none(tmp_path: Path, nothing: str) -> None:
    docket = a_docket(tmp_path / "docket").hearing(ADJ_RSN="8B")
    docket.proceeding(**ORDER, VENUE_CHG_GRANTED=nothing, TRANSFER_TO=nothing, OTHER_COMP=nothing)

    assert only(docket).decision is Treatment.SEND


@pytest.mark.parametrize("column", ["VENUE_CHG_GRANTED", "TRANSFER_TO"])
def test_order_in_a_proceeding_that_moved_waits_for_a_person(tmp_path: Path, column: str) -> None:
    docket = a_docket(tmp_path / "docket").hearing(ADJ_RSN="8B")
    finding = only(docket.proceeding(**ORDER, **dict[str, Any]({column: DAY})))

    assert (finding.decision, finding.confirm_code) == (
        Treatment.CONFIRM,
        ConfirmCode.VENUE_CHANGED,
    )


def test_no_show_is_found_without_its_proceeding(tmp_path: Path) -> None:
    finding = only(a_docket(tmp_path / "docket").hearing(**NO_SHOW))

    assert (finding.decision, finding.confirm_code) == (
        Treatment.CONFIRM,
        ConfirmCode.WHO_WAS_ABSENT,
    )
    assert (finding.file, finding.line) == ("tbl_schedule.csv", 2)


def test_order_speaks_for_the_no_show_of_the_same_hearing(tmp_path: Path) -> None:
    finding = only(a_docket(tmp_path / "docket").proceeding(**ORDER).hearing(**NO_SHOW))

    assert finding.decision is Treatment.SEND
    assert finding.content["outcome"] == "IN_ABSENTIA_ORDER"
    assert finding.aliases == ()


def test_same_hearing_in_two_cases_is_one_finding_with_aliases(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket").case(501).child(501)
    docket.hearing(901, IDNCASE=501, IDNPROCEEDING=701, **NO_SHOW)
    docket.proceeding(701, IDNCASE=501)

    finding = only(docket)

    assert finding.keys == CourtKeys(500, 700, 900)
    assert finding.aliases == (CourtKeys(501, 701, 901),)


def test_newest_entry_that_is_no_trap_tells_of_an_order(tmp_path: Path) -> None:
    docket = a_docket(tmp_path / "docket").proceeding(**ORDER)
    docket.hearing(901, ADJ_RSN="8B", ADJ_TIME_START="0900")
    docket.hearing(902, ADJ_RSN="8B", ADJ_TIME_START="1000").hearing(903, ADJ_RSN="46")

    finding = only(docket)

    assert finding.keys.schedule_key == 902
    assert finding.decision is Treatment.SEND


def test_next_hearing_of_the_case_is_told(tmp_path: Path) -> None:
    docket = a_docket(tmp_path / "docket").hearing(**NO_SHOW)
    docket.hearing(901, ADJ_DATE="2027-02-01 00:00:00.000", ADJ_RSN="", BASE_CITY_CODE="SFR")
    docket.hearing(902, ADJ_DATE="2026-08-03 00:00:00.000", ADJ_RSN="", ADJ_TIME_START="900")

    content = only(docket).content

    assert content["next_hearing_local"] == "2026-08-03T09:00"
    assert content["next_hearing_zone"] == "America/Chicago"


def test_defect_of_the_notice_on_the_same_day_is_told(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket").hearing(899, ADJ_RSN="10")

    assert only(docket).content["notice_defect_known"] is True


def test_siblings_have_one_group(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket").sibling(500, 501, blnActive=1)
    docket.case(501).child(501, number=2).proceeding(701, IDNCASE=501, **ORDER)
    docket.hearing(901, IDNCASE=501, IDNPROCEEDING=701)

    with open_docket(docket.write()) as opened:
        groups = [finding.content["group_id"] for finding in opened.findings()]

    assert len(groups) == 2
    assert len(set(groups)) == 1


@pytest.mark.parametrize("severed", [{"blnActive": 0}, {"blnActive": 1, "datSeveredOn": DAY}])
def test_severed_siblings_have_none(tmp_path: Path, severed: dict[str, Any]) -> None:
    finding = only(an_order(tmp_path / "docket").sibling(500, 501, **severed))

    assert "group_id" not in finding.content


@pytest.mark.parametrize(
    ("crosswalk", "field", "said"),
    [
        ({"a_number": "a 12-345-678"}, "a_number", "A012345678"),
        ({"a_number": "a 12-345-678"}, "a_number_raw", "a 12-345-678"),
        ({"birth_date": "2012-05"}, "birth_date", "2012-05"),
        ({"birth_date": "2012-02-29"}, "turns_18_on", "2030-03-01"),
        ({"birth_date": "2014-05-04"}, "priority", "URGENT"),
        ({"nta_served": "N"}, "nta_served", "NO"),
        ({"nta_served": "?"}, "nta_served", "UNKNOWN"),
        ({"release_date": "2026-06-01"}, "custody_flag", "ORR"),
        ({"aor_code": "HAL"}, "aor_code", "HAR"),
        ({"aor_code": "", "address_state": "NJ"}, "aor_code", "NEW"),
        ({"aor_code": "", "address_state": "NJ"}, "aor_basis", "STATE"),
        ({"aor_code": "", "address_state": "TX"}, "aor_basis", "COURT"),
        ({"address_line1": ""}, "address_quality", "BLANK"),
        ({"address_line1": "UNKNOWN"}, "address_quality", "UNDELIVERABLE"),
        ({"address_line1": "12 Nonesuch St Apt"}, "address_quality", "NO_UNIT"),
        ({"address_as_of": "2020-01-01"}, "address_quality", "STALE"),
        ({"given_name": "Ñandú  Muestra"}, "name_given", "Ñandú Muestra"),
    ],
)
def test_crosswalk_is_told_as_a_notice_spells_it(
    tmp_path: Path, crosswalk: dict[str, Any], field: str, said: str
) -> None:
    assert only(an_order(tmp_path / "docket", **crosswalk)).content[field] == said


def test_quoted_value_may_hold_a_comma(tmp_path: Path) -> None:
    content = only(an_order(tmp_path / "docket", address_line1='"1 Via A, ""B"""')).content

    assert content["address_last_known"]["line1"] == '1 Via A, "B"'


def test_month_of_the_court_stands_in_for_a_birth_date(tmp_path: Path) -> None:
    docket = DocketMade(tmp_path / "docket").case(C_BIRTHDATE="5/2012").child(birth_date="")

    content = only(docket.proceeding(**ORDER).hearing()).content

    assert content["birth_date"] == "2012-05"
    assert "turns_18_on" not in content


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig"])
def test_city_of_the_court_stands_in_in_whichever_encoding(tmp_path: Path, encoding: str) -> None:
    docket = DocketMade(tmp_path / "docket").case(UPDATED_CITY="PEÑITAS", UPDATED_STATE="TX")
    docket.encodings[layout.CASES.name] = encoding

    content = only(docket.child(**NOWHERE).proceeding(**ORDER).hearing()).content

    assert content["address_last_known"] == {
        "city": "PEÑITAS",
        "state": "TX",
        "source": "A_TblCase",
    }
    assert content["address_quality"] == "BLANK"


def test_file_of_both_encodings_is_read_value_by_value(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket", **NOWHERE)
    other = docket.case(501).child(501, number=2, **NOWHERE)
    other.proceeding(701, IDNCASE=501, **ORDER).hearing(901, IDNCASE=501, IDNPROCEEDING=701)
    folder = docket.write()
    cases = folder / "A_TblCase.csv"
    heading, one, two = cases.read_bytes().splitlines(keepends=True)
    place = b"\t\t\t\t\t"
    cases.write_bytes(
        heading
        + one.replace(place, "\t\t\t\tPEÑITAS\t".encode(), 1).replace(b"\t\t", b"\t\t", 1)
        + two.replace(place, "\t\t\t\tCAÑON\x96 CITY\t".encode("latin-1"), 1)
    )

    with open_docket(folder) as opened:
        findings = list(opened.findings())
        assert list(opened.rejects) == []

    cities = [finding.content["address_last_known"]["zip"] for finding in findings]
    assert cities == ["PEÑITAS", "CAÑON CITY"]


def test_counsel_is_known_from_the_case_or_from_who_was_assigned(tmp_path: Path) -> None:
    of_case = DocketMade(tmp_path / "one").case(E_28_DATE=DAY).child()
    unknown = DocketMade(tmp_path / "two").child()

    assert only(of_case.proceeding(**ORDER).hearing()).content["counsel_of_record"] == "YES"
    assert only(unknown.proceeding(**ORDER).hearing()).content["counsel_of_record"] == "UNKNOWN"


def test_child_whom_dhs_does_not_count_is_out_of_scope_whatever_the_court_says(
    tmp_path: Path,
) -> None:
    assert none_in(an_order(tmp_path / "docket", uac="N").flag(juvenile="4", priority="UC"))


def test_child_whom_dhs_counts_is_in_scope_whatever_the_court_says(tmp_path: Path) -> None:
    finding = only(an_order(tmp_path / "docket").flag(juvenile="6", priority="NA"))

    assert finding.content["uac_basis"] == "DHS_DESIGNATION"


@pytest.mark.parametrize("juvenile", ["1", "2", "5", "6", ""])
def test_case_without_a_flag_of_the_unaccompanied_and_without_crosswalk_is_none(
    tmp_path: Path, juvenile: str
) -> None:
    docket = DocketMade(tmp_path / "docket").case().proceeding(**ORDER).hearing()

    assert none_in(docket.flag(juvenile=juvenile, priority="NA"))


def test_file_with_returns_before_its_line_ends_is_read(tmp_path: Path) -> None:
    folder = an_order(tmp_path / "docket").write()
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    with open_docket(folder) as opened:
        (finding,) = opened.findings()

    assert finding.content["hearing_local"] == "2026-05-04T08:30"


def test_folder_may_have_a_name_like_a_pattern(tmp_path: Path) -> None:
    finding = only(an_order(tmp_path / "it's [2026]*?"))

    assert finding.content["source_release"] == "it's [2026]*?"


# What a later release takes back.


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A hearing as it is known from before."""

    a_number: str = "A200000001"
    base_city: str = "HOU"
    hearing_on: date = date(2026, 5, 4)
    outcome: str = "IN_ABSENTIA_ORDER"
    revision: int = 1
    eoir_proceeding_key: int | None = 700


NO_SHOW_KNOWN = Standing(outcome="MISSED_NO_ORDER")


def taken_back(docket: DocketMade, *known: Standing) -> Iterator[TakenBack]:
    with open_docket(docket.write()) as opened:
        list(opened.findings())
        yield from opened.taken_back(known)


@pytest.mark.parametrize(
    ("adj_rsn", "reason"),
    [
        ("10", ReasonCode.NOTICE_DEFECT),
        ("46", ReasonCode.HEARING_VACATED),
        ("09", ReasonCode.IN_CUSTODY),
        ("99", ReasonCode.DATA_ENTRY),
        ("17", ReasonCode.APPEARED_LATE),
    ],
)
def test_later_code_takes_a_no_show_back(tmp_path: Path, adj_rsn: str, reason: ReasonCode) -> None:
    docket = a_docket(tmp_path / "docket").proceeding().hearing(ADJ_RSN=adj_rsn)

    (back,) = taken_back(docket, NO_SHOW_KNOWN)

    assert back == TakenBack(
        a_number="A200000001",
        base_city="HOU",
        hearing_on=date(2026, 5, 4),
        code=reason,
        file="tbl_schedule.csv",
        line=2,
    )


def test_hearing_that_was_not_held_after_all_is_taken_back(tmp_path: Path) -> None:
    docket = a_docket(tmp_path / "docket").hearing(**NO_SHOW, ADJ_MEDIUM="H")

    (back,) = taken_back(docket, NO_SHOW_KNOWN)

    assert back.code is ReasonCode.HEARING_VACATED


@pytest.mark.parametrize(
    ("proceeding", "reason"),
    [
        ({"ABSENTIA": "N"}, ReasonCode.ORDER_RESCINDED),
        ({"ABSENTIA": "", "COMP_DATE": ""}, ReasonCode.ORDER_RESCINDED),
        ({"ABSENTIA": "", "OTHER_COMP": "C"}, ReasonCode.VENUE_CHANGED),
        ({"OTHER_COMP": "C"}, ReasonCode.VENUE_CHANGED),
        ({"VENUE_CHG_GRANTED": DAY}, ReasonCode.VENUE_CHANGED),
        ({"COMP_DATE": "2026-05-11 00:00:00.000"}, ReasonCode.WRONG_HEARING),
    ],
)
def test_later_decision_takes_an_order_back(
    tmp_path: Path, proceeding: dict[str, Any], reason: ReasonCode
) -> None:
    docket = a_docket(tmp_path / "docket").proceeding(**{**ORDER, **proceeding})
    docket.hearing(ADJ_RSN="8B").hearing(901, ADJ_DATE="2026-05-11 00:00:00.000", ADJ_RSN="8B")

    (back,) = taken_back(docket, Standing())

    assert back.code is reason


def test_child_whom_dhs_does_not_count_any_more_is_taken_back(tmp_path: Path) -> None:
    (back,) = taken_back(an_order(tmp_path / "docket", uac="N"), Standing())

    assert (back.code, back.file, back.line) == (ReasonCode.OTHER, "crosswalk.csv", 2)


@pytest.mark.parametrize(
    "known",
    [
        Standing(),
        NO_SHOW_KNOWN,
        Standing(a_number="A299999999"),
        Standing(hearing_on=date(2026, 5, 5), eoir_proceeding_key=None),
        Standing(base_city="SFR", eoir_proceeding_key=699),
    ],
)
def test_hearing_that_stands_or_is_not_mentioned_is_not_taken_back(
    tmp_path: Path, known: Standing
) -> None:
    assert list(taken_back(an_order(tmp_path / "docket"), known)) == []


def test_order_that_waits_because_of_the_move_is_not_taken_back_for_it(tmp_path: Path) -> None:
    docket = a_docket(tmp_path / "docket").proceeding(**ORDER, OTHER_COMP="C").hearing()

    assert list(taken_back(docket, Standing(revision=0))) == []


def test_other_proceeding_of_that_day_says_nothing_of_the_order(tmp_path: Path) -> None:
    docket = (
        a_docket(tmp_path / "docket")
        .proceeding(701, COMP_DATE=DAY)
        .hearing(IDNPROCEEDING=701, ADJ_RSN="8B")
    )

    assert list(taken_back(docket, Standing(eoir_proceeding_key=700))) == []


def test_row_that_cannot_be_read_takes_nothing_back(tmp_path: Path) -> None:
    docket = a_docket(tmp_path / "docket").hearing(ADJ_RSN="Q7")

    assert list(taken_back(docket, NO_SHOW_KNOWN)) == []


def test_hearing_by_hand_is_matched_by_child_court_and_day(tmp_path: Path) -> None:
    docket = a_docket(tmp_path / "docket").hearing(ADJ_RSN="46")

    (back,) = taken_back(docket, Standing(outcome="MISSED_NO_ORDER", eoir_proceeding_key=None))

    assert back.code is ReasonCode.HEARING_VACATED
