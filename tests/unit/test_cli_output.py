"""Every output format: what machines read, and what no data can do to people's screens."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.everywhere import Output
from services.cli.output import Column, Flow, Item, emit, emit_one, safe_cell

NOTICE = UUID("01934567-1234-7890-8234-567890123456")
ITEM = {
    "notice_id": NOTICE,
    "state": "sent",
    "hearing_on": date(2026, 11, 20),
    "sent_at": datetime(2026, 11, 23, 14, 2, 7, 500_000, tzinfo=UTC),
    "receipt_at": None,
    "revision": 1,
}
COLUMNS = [Column("notice_id", "NOTICE"), Column("state"), Column("revision", right=True)]


def written(items: Sequence[Item], output: Output, empty: str = "") -> str:
    out = io.StringIO()
    emit(items, schema="notice.list", columns=COLUMNS, output=output, empty=empty, stream=out)
    return out.getvalue()


def test_json_is_one_envelope_with_a_schema() -> None:
    document = json.loads(written([ITEM], Output.JSON))

    assert document["schema"] == "noticebus.v1/notice.list"
    assert document["generated_at"].endswith("Z")
    assert document["items"] == [
        {
            "notice_id": str(NOTICE),
            "state": "sent",
            "hearing_on": "2026-11-20",
            "sent_at": "2026-11-23T14:02:07.500Z",
            "receipt_at": None,
            "revision": 1,
        }
    ]


def test_ndjson_is_one_bare_object_a_line() -> None:
    lines = written([ITEM, ITEM], Output.NDJSON).splitlines()

    assert [json.loads(line)["notice_id"] for line in lines] == [str(NOTICE)] * 2


def test_csv_has_all_fields_and_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(written([ITEM], Output.CSV), newline="")))

    assert rows[0]["sent_at"] == "2026-11-23T14:02:07.500Z"
    assert rows[0]["receipt_at"] == ""
    assert list(rows[0]) == list(ITEM)


def test_a_csv_has_the_same_header_with_and_without_rows() -> None:
    """Whatever the first item has: an item may lack a field, and may not have another."""

    names = list(ITEM)

    def whole(items: Sequence[Item], output: Output) -> str:
        out = io.StringIO()
        emit(items, schema="x", columns=COLUMNS, output=output, fields=names, stream=out)
        return out.getvalue()

    def grown(items: Sequence[Item], output: Output) -> str:
        out = io.StringIO()
        flow = Flow(schema="x", columns=COLUMNS, output=output, fields=names, stream=out)
        for item in items:
            flow.write(item)
        flow.close()
        return out.getvalue()

    lists: list[Sequence[Item]] = [[], [ITEM], [{"state": "sent"}, ITEM]]
    for written_by in (whole, grown):
        for items in lists:
            assert written_by(items, Output.CSV).splitlines()[0] == ",".join(names)
        for output in (Output.CSV, Output.NDJSON):
            with pytest.raises(AssertionError):
                written_by([ITEM, {**ITEM, "stranger": 1}], output)


def test_an_empty_list_is_valid_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(written([], Output.JSON))["items"] == []
    assert written([], Output.NDJSON) == ""
    assert written([], Output.CSV) == "notice_id,state,revision\r\n"
    assert written([], Output.TABLE, empty="Nothing is waiting.") == ""
    assert "Nothing is waiting." in capsys.readouterr().err


def test_plain_has_no_lines_drawn() -> None:
    text = written([ITEM], Output.PLAIN)

    assert "state: sent\n" in text
    assert text.isascii()


def test_a_table_has_its_columns_and_no_colours_outside_a_terminal() -> None:
    text = written([ITEM], Output.TABLE)

    assert "NOTICE" in text
    assert str(NOTICE) in text
    assert "\x1b" not in text


@given(st.text(), st.sampled_from("=+-@\t\r\n\uff1d"))
def test_no_cell_starts_a_formula(rest: str, start: str) -> None:
    cell = safe_cell(start + rest)

    assert cell.startswith("'")
    assert cell[1:] == start + rest


def test_numbers_stay_numbers_in_csv() -> None:
    assert safe_cell(-5) == "-5"
    assert safe_cell(value=True) == "true"


@pytest.mark.parametrize("output", [Output.TABLE, Output.PLAIN])
def test_data_cannot_drive_the_terminal(output: Output) -> None:
    text = written([{"notice_id": "\x1b[2J[red]x", "state": "a\nb\x07", "revision": 1}], output)

    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x" in text


def test_one_object_stands_beside_its_schema() -> None:
    out = io.StringIO()

    emit_one({"recorded": 3}, schema="docket.import", output=Output.JSON, stream=out)

    assert json.loads(out.getvalue()) == {"schema": "noticebus.v1/docket.import", "recorded": 3}


def test_people_read_sentences_in_place_of_fields() -> None:
    out = io.StringIO()

    emit_one({"n": 3}, schema="x", output=Output.TABLE, people=["3 recorded"], stream=out)

    assert out.getvalue() == "3 recorded\n"


def test_what_has_no_place_in_output_is_a_bug_and_not_a_repr() -> None:
    with pytest.raises(TypeError):
        written([{"x": object()}], Output.JSON)


def test_plain_lines_name_what_lies_in_an_object_and_leave_keys_as_they_are() -> None:
    out = io.StringIO()
    item = {
        "rows": 12_345,
        "eoir_case_key": 5_000_008,
        "content": {"hearing_zone": "America/Chicago", "keys": {"schedule_key": 40_000_001}},
        "aliases": [{"kind": "case", "key": 5_000_009}],
        "empty": {},
    }

    emit_one(item, schema="notice.show", output=Output.PLAIN, stream=out)

    assert out.getvalue().splitlines() == [
        "rows: 12,345",
        "eoir_case_key: 5000008",
        "content.hearing_zone: America/Chicago",
        "content.keys.schedule_key: 40000001",
        "aliases.1.kind: case",
        "aliases.1.key: 5000009",
        "empty: -",
    ]


@pytest.mark.parametrize("output", list(Output))
def test_a_list_that_grows_is_written_as_one_that_is_known(output: Output) -> None:
    """The table alone differs: its widths are given, not found."""
    out = io.StringIO()
    flow = Flow(schema="notice.list", columns=COLUMNS, output=output, stream=out)

    for _ in range(2):
        flow.write(ITEM)
    flow.close()

    whole, grown = written([ITEM, ITEM], output), out.getvalue()
    if output is Output.JSON:
        assert json.loads(grown)["items"] == json.loads(whole)["items"]
    elif output is Output.TABLE:
        assert [line.split() for line in grown.splitlines()] == [
            ["NOTICE", "STATE", "REVISION"], *[[str(NOTICE), "sent", "1"]] * 2
        ]  # fmt: skip
    else:
        assert grown == whole
