"""Files that stop an import, because nothing in them can be trusted; nothing is left behind."""

from pathlib import Path

import pytest

from schemas.errors import RejectedError
from services.ice.docket import layout
from services.ice.docket.scan import Docket
from tests.docket_made import DocketMade, an_order, open_docket

CROSSWALK, SCHEDULE = "crosswalk.csv", "tbl_schedule.csv"


@pytest.mark.parametrize(
    "table",
    ["A_TblCase", "B_TblProceeding", "tbl_schedule", "tbl_JuvenileHistory", "crosswalk"],
)
def test_missing_table_stops_the_import_by_name(tmp_path: Path, table: str) -> None:
    folder = an_order(tmp_path / "docket").write()
    (folder / f"{table}.csv").unlink()

    with pytest.raises(RejectedError, match=rf"NB-1010 .* {table}\.csv"):
        open_docket(folder)

    assert not (tmp_path / "spill").exists()


@pytest.mark.parametrize("table", [layout.SCHEDULE, layout.CROSSWALK, layout.LEADS])
def test_unknown_headings_stop_the_import_by_name(tmp_path: Path, table: layout.Table) -> None:
    docket = an_order(tmp_path / "docket").sibling(500, 501)
    docket.headings[table.name] = ["SOMETHING", *table.headings[1:]]
    folder = docket.write()

    with pytest.raises(RejectedError, match=rf"NB-1011 the headings of {table.file}"):
        open_docket(folder)

    assert not (tmp_path / "spill").exists()


def test_file_without_headings_is_refused_without_its_values(tmp_path: Path) -> None:
    folder = an_order(tmp_path / "docket").write()
    crosswalk = folder / CROSSWALK
    crosswalk.write_bytes(crosswalk.read_bytes().split(b"\n", 1)[1])

    with pytest.raises(RejectedError, match="NB-1011") as caught:
        open_docket(folder)

    assert "Nosuchchild" not in str(caught.value)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    folder = an_order(tmp_path / "docket").write()
    (folder / SCHEDULE).write_bytes(b"")

    with pytest.raises(RejectedError, match="NB-1011"):
        open_docket(folder)


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="NB-1040"):
        open_docket(tmp_path / "nowhere")


def test_tables_with_headings_alone_are_an_empty_docket(tmp_path: Path) -> None:
    with open_docket(DocketMade(tmp_path / "docket").write()) as docket:
        assert list(docket.findings()) == []

    assert set(docket.rows.values()) == {0}


def test_docket_closed_early_leaves_nothing_behind(tmp_path: Path) -> None:
    docket: Docket = open_docket(an_order(tmp_path / "docket").write())
    next(docket.findings())

    docket.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["docket"]
