"""Keys and dates are taken where they look like one; what only can be cast to one is a reject.

Each docket has one child beside the broken row whose missed hearing must be found all the same.
"""

from pathlib import Path
from typing import Any

import pytest

from services.ice.docket import layout
from services.ice.docket.findings import CourtKeys
from tests.docket_made import NO_SHOW, ORDER, DocketMade, an_order, open_docket, rejected

OTHER = 502
CROSSWALK, PROCEEDINGS, SCHEDULE = "crosswalk.csv", "B_TblProceeding.csv", "tbl_schedule.csv"

NO_KEYS = [
    "12.5",
    "501.7",
    "1e3",
    "0x10",
    "1_000",
    "+5",
    "-5",
    "5 6",
    "٣",
    str(2**53),
    str(2**63 - 1),
    "9" * 5_000,
]
NO_DAYS = [
    "0000-01-01 00:00:00.000",
    "99999-01-01 00:00:00.000",
    "infinity",
    "-infinity",
    "epoch",
    "-2026-05-04",
    "26-05-04",
    "2026-05-04 noon",
    "2026-05-04 25:00:00.000",
]


def beside(folder: Path) -> DocketMade:
    """Return a docket of one child with an order, and another child with a case."""
    return an_order(folder).case(OTHER).child(OTHER, number=2)


def no_show(docket: DocketMade, **values: Any) -> DocketMade:
    """Give the other child a schedule row that tells of a no-show."""
    docket.proceeding(701, IDNCASE=OTHER)
    return docket.hearing(901, **{"IDNCASE": OTHER, "IDNPROCEEDING": 701, **NO_SHOW, **values})


def only_the_first(docket: DocketMade) -> list[tuple[str, int, str]]:
    """Read a docket in which the first child's hearing alone can be found; returns its rejects."""
    with open_docket(docket.write()) as opened:
        assert [finding.keys.case_key for finding in opened.findings()] == [500]
        return [(each.file, each.line, each.code) for each in sorted(opened.rejects)]


@pytest.mark.parametrize("key", NO_KEYS)
@pytest.mark.parametrize("column", ["IDNCASE", "IDNPROCEEDING", "IDNSCHEDULE"])
def test_what_is_no_key_rejects_the_hearing(tmp_path: Path, column: str, key: str) -> None:
    docket = no_show(beside(tmp_path / "docket"), **{column: key})

    assert only_the_first(docket) == [(SCHEDULE, 3, "NB-1014")]


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_key_rejects_the_order(tmp_path: Path, key: str) -> None:
    docket = beside(tmp_path / "docket").proceeding(key, IDNCASE=OTHER, **ORDER)
    docket.hearing(901, IDNCASE=OTHER, IDNPROCEEDING=key)

    assert only_the_first(docket) == [(PROCEEDINGS, 3, "NB-1014")]


@pytest.mark.parametrize("key", ["501.7", "502.0"])
def test_a_case_is_never_rounded_to_another_childs(tmp_path: Path, key: str) -> None:
    docket = beside(tmp_path / "docket").proceeding(701, IDNCASE=key, **ORDER)
    docket.hearing(901, IDNCASE=key, IDNPROCEEDING=701)

    assert only_the_first(docket) == [(PROCEEDINGS, 3, "NB-1014"), (SCHEDULE, 3, "NB-1014")]


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_key_rejects_the_row_of_the_crosswalk(tmp_path: Path, key: str) -> None:
    docket = an_order(tmp_path / "docket").child(number=2, IDNCASE=key)

    assert only_the_first(docket) == [(CROSSWALK, 3, "NB-1014")]


def test_an_order_is_rejected_at_the_schedule_row_whose_key_is_none(tmp_path: Path) -> None:
    docket = beside(tmp_path / "docket").proceeding(701, IDNCASE=OTHER, **ORDER)
    docket.hearing("-5", IDNCASE=OTHER, IDNPROCEEDING=701)

    assert only_the_first(docket) == [(SCHEDULE, 3, "NB-1014")]


def test_an_order_is_told_by_the_row_whose_key_is_one(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket").hearing("9e2", ADJ_RSN="8B")

    with open_docket(docket.write()) as opened:
        (finding,) = opened.findings()
        assert finding.keys == CourtKeys(500, 700, 900)
        assert list(opened.rejects) == []


@pytest.mark.parametrize("key", [" 502 ", "0502", "5\x0002"])
def test_a_key_may_be_padded(tmp_path: Path, key: str) -> None:
    docket = no_show(beside(tmp_path / "docket"), IDNCASE=key)

    with open_docket(docket.write()) as opened:
        assert [finding.keys.case_key for finding in opened.findings()] == [500, OTHER]


def test_a_hearing_without_a_key_of_its_own_is_found(tmp_path: Path) -> None:
    docket = no_show(beside(tmp_path / "docket"), IDNSCHEDULE="")

    with open_docket(docket.write()) as opened:
        assert [finding.keys.schedule_key for finding in opened.findings()] == [900, 0]


def test_the_largest_key_is_one(tmp_path: Path) -> None:
    docket = no_show(beside(tmp_path / "docket"), IDNSCHEDULE=2**53 - 1)

    with open_docket(docket.write()) as opened:
        assert [finding.keys.schedule_key for finding in opened.findings()] == [900, 2**53 - 1]


@pytest.mark.parametrize("day", NO_DAYS)
def test_what_is_no_day_rejects_the_hearing(tmp_path: Path, day: str) -> None:
    docket = no_show(beside(tmp_path / "docket"), ADJ_DATE=day)

    assert only_the_first(docket) == [(SCHEDULE, 3, "NB-1015")]


@pytest.mark.parametrize("day", NO_DAYS)
def test_what_is_no_day_rejects_the_order(tmp_path: Path, day: str) -> None:
    docket = beside(tmp_path / "docket")
    docket.proceeding(701, IDNCASE=OTHER, **{**ORDER, "COMP_DATE": day})
    docket.hearing(901, IDNCASE=OTHER, IDNPROCEEDING=701, ADJ_DATE=day)

    assert only_the_first(docket) == [(PROCEEDINGS, 3, "NB-1015")]


@pytest.mark.parametrize("day", NO_DAYS)
def test_what_is_no_day_is_no_next_hearing(tmp_path: Path, day: str) -> None:
    docket = an_order(tmp_path / "docket").hearing(902, ADJ_DATE=day, ADJ_RSN="")

    with open_docket(docket.write()) as opened:
        (finding,) = opened.findings()
        assert "next_hearing_local" not in finding.content
        assert list(opened.rejects) == []


@pytest.mark.parametrize("day", ["2026-05-04", " 2026-05-04 00:00:00 ", "2026-5-4"])
def test_a_day_may_be_written_short(tmp_path: Path, day: str) -> None:
    docket = no_show(beside(tmp_path / "docket"), ADJ_DATE=day)

    with open_docket(docket.write()) as opened:
        days = {finding.hearing_on.isoformat() for finding in opened.findings()}
    assert days == {"2026-05-04"}


def test_a_crosswalk_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    docket = an_order(tmp_path / "docket", given_name="Ñandú")
    docket.encodings[layout.CROSSWALK.name] = "utf-8-sig"

    folder = docket.write()

    assert (folder / CROSSWALK).read_bytes().startswith(b"\xef\xbb\xbfIDNCASE,")
    with open_docket(folder) as opened:
        (finding,) = opened.findings()
        assert rejected(opened) == []
    assert finding.content["name_given"] == "Ñandú"
