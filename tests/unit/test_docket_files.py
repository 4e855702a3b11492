"""One look at a file: its encoding, its lines as an editor counts them, and its headings."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RejectedError
from services.ice.docket import files, layout
from services.ice.docket.files import Encoding, Look, look

HEADING = b"IDNCASEID\tIDNCASE\tCASE_ID\n"


def seen(folder: Path, below: bytes) -> Look:
    path = folder / "table.csv"
    path.write_bytes(HEADING + below)
    return look(path)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (b"plain\n", Encoding.UTF_8),
        ("Peñitas\n".encode(), Encoding.UTF_8),
        ("Peñitas\n".encode("latin-1"), Encoding.LATIN_1),
        ("Peñitas\n".encode() + "Peñitas\n".encode("latin-1"), Encoding.MIXED),
        # Bytes that are letters in neither.
        (b"Pe\x96itas\n", Encoding.MIXED),
        # A letter cut short by the end.
        (b"Pe\xc3", Encoding.LATIN_1),
    ],
)
def test_encoding_is_decided_from_the_whole_file(
    tmp_path: Path, text: bytes, encoding: Encoding
) -> None:
    assert seen(tmp_path, text).encoding is encoding


def test_mixed_line_is_read_value_by_value() -> None:
    line = "Peñitas\t".encode() + "Cañon".encode("latin-1")

    assert Encoding.MIXED.text(line, "\t") == "Peñitas\tCañon"


def test_letter_across_two_chunks_is_one_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHUNK_BYTES", 3)

    assert seen(tmp_path, "aañaa\n".encode()).encoding is Encoding.UTF_8


@pytest.mark.parametrize(
    ("below", "lines"),
    [
        (b"1\n2\n3\n", [2, 3, 4]),
        (b"1\n2\n3", [2, 3, 4]),
        (b"\n1\n\n\n2\n", [3, 6]),
        (b"1\r\n2\r\n", [2, 3]),
        (b"1\r\n\r\n2\r\n", [2, 4]),
        # A lone return splits a row, but an editor shows one line.
        (b"1\ra\n2\n", [2, 2, 3]),
        (b"", []),
    ],
)
def test_rows_stand_on_the_lines_that_an_editor_shows(
    tmp_path: Path, below: bytes, lines: list[int]
) -> None:
    found = seen(tmp_path, below)

    assert found.rows == len(lines)
    assert [found.line(row) for row in range(1, found.rows + 1)] == lines


@given(
    parts=st.lists(st.sampled_from([b"x\n", b"\n", b"x\r\n", b"\r\n", b"yy\rz\n"]), max_size=30),
    chunk=st.integers(min_value=2, max_value=9),
)
def test_lines_are_right_wherever_chunks_are_cut(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], chunk: int
) -> None:
    expected: list[int] = []
    for number, part in enumerate(parts, start=2):
        expected += [number] * (part.rstrip(b"\r\n") != b"") + [number] * (b"\rz" in part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk)
        found = seen(tmp_path_factory.mktemp("lines"), b"".join(parts))

    assert [found.line(row) for row in range(1, found.rows + 1)] == expected


def test_line_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="NB-1040"):
        seen(tmp_path, b"x" * (files.LINE_BYTES_MAX + 1))


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match=r"NB-1040 the docket file nowhere\.csv"):
        look(tmp_path / "nowhere.csv")


def test_mark_before_the_headings_is_no_part_of_them(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf" + HEADING)

    assert look(path).headings == ("IDNCASEID", "IDNCASE", "CASE_ID")


@pytest.mark.parametrize(
    ("table", "spelling", "heading"),
    [
        (layout.CASES, "GENDER", "Sex"),
        (layout.CASES, "UPDATED_SITE", "UPDATE_SITE"),
        (layout.PROCEEDINGS, "TRANSFER_DATE", "TRANS_IN_DATE"),
        (layout.PROCEEDINGS, "DEP1", "DEPORTED_1"),
        (layout.PROCEEDINGS, "dep2", "DEPORTED_2"),
        (layout.SCHEDULE, "ADJ_MED", "ADJ_MEDIUM"),
        (layout.SCHEDULE, " idnschedule ", "IDNSCHEDULE"),
    ],
)
def test_heading_under_another_name_is_known(
    table: layout.Table, spelling: str, heading: str
) -> None:
    drifted = [spelling if name == heading else name for name in table.headings]

    assert table.columns(drifted) == table.headings


def test_columns_in_another_order_are_known_by_name() -> None:
    headings = layout.IDENTIFIERS.headings[::-1]

    assert layout.IDENTIFIERS.columns(headings) == headings


@pytest.mark.parametrize(
    "headings",
    [
        ["IDNCASEID", "IDNCASE"],
        ["IDNCASEID", "IDNCASE", "CASE_ID", "NEW_COLUMN"],
        ["IDNCASEID", "IDNCASE", "CASE_ID", ""],
        ["IDNCASEID", "IDNCASE", "IDNCASE"],
        ["IDNCASEID", "IDNCASE", "CASE_ID", "CASE_ID"],
        ["1", "2", "Somebody"],
    ],
)
def test_unknown_headings_are_refused_without_a_value(headings: list[str]) -> None:
    with pytest.raises(
        RejectedError, match=r"NB-1011 the headings of A_TblCaseIdentifier\.csv"
    ) as caught:
        layout.IDENTIFIERS.columns(headings)

    assert "Somebody" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (layout.CASES, 39),
        (layout.PROCEEDINGS, 38),
        (layout.SCHEDULE, 30),
        (layout.JUVENILES, 6),
        (layout.PRIORITIES, 5),
        (layout.IDENTIFIERS, 3),
        (layout.LEADS, 11),
        (layout.COUNSEL, 11),
        (layout.CROSSWALK, 15),
    ],
)
def test_tables_have_as_many_columns_as_the_court_publishes(
    table: layout.Table, columns: int
) -> None:
    assert len(table.headings) == len(set(table.headings)) == columns
    assert set(table.read) <= set(table.headings)
