"""A docket by the command line: what was planted is found, twice the same changes nothing."""

import csv
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded import attach
from tests.command_line import CommandLine

# As many people as one screen of a court's day, several times over.
ROWS, MISSED = 600, 60


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    noticebus = CommandLine(tmp_path_factory.mktemp("docket") / "home")
    with attach(noticebus.home):
        assert noticebus("--agency ice keys generate").code == 0
        yield noticebus


@pytest.fixture(scope="module")
def docket(noticebus: CommandLine) -> Path:
    folder = noticebus.home.parent / "release-1"
    made = noticebus.json(f"docket synthesize {folder} --rows {ROWS} --missed {MISSED} --seed 11")
    assert made["rows"]["B_TblProceeding"] == ROWS
    return folder


def planted(folder: Path) -> Counter[str]:
    """Return how many rows of the answers expect what."""
    with (folder / "answers.csv").open(encoding="utf-8", newline="") as file:
        return Counter(row["expected"] for row in csv.DictReader(file))


def names(folder: Path) -> set[str]:
    """Return what nobody may read outside the crosswalk: numbers and names of the children."""
    with (folder / "crosswalk.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["a_number"] for row in rows if len(row["a_number"]) > 6}


def test_an_import_finds_what_was_planted_and_a_second_changes_nothing(
    noticebus: CommandLine, docket: Path
) -> None:
    expected = planted(docket)

    first = noticebus(f"docket import {docket} -o json")
    again = noticebus(f"docket import {docket} -o json")

    assert first.code == 5
    assert first.data["schema"] == "noticebus.v1/docket.import"
    assert first.data["rows"]["B_TblProceeding"] == ROWS
    assert first.data["recorded"] == expected["send"]
    assert first.data["to_confirm"] == expected["confirm"]
    assert (first.data["already"], again.data["already"]) == (0, MISSED)
    assert again.data["recorded"] == again.data["to_confirm"] == 0
    assert first.data["rejected"] == again.data["rejected"] > 0
    rejects = Path(first.data["rejects"]).read_text(encoding="utf-8")
    assert rejects.startswith("file,line,code,fix\n")
    assert rejects.count("\n") == 1 + first.data["rejected"]
    listed = noticebus("notice list -o ndjson").out
    assert listed.count("\n") == MISSED
    for secret in names(docket):
        assert secret not in rejects + first.out + first.err + listed


def test_a_person_decides_what_waits(noticebus: CommandLine, docket: Path) -> None:
    noticebus(f"docket import {docket}")
    waiting = noticebus.json("notice list --state to_confirm")["items"]
    first, second = waiting[0]["notice_id"], waiting[1]["notice_id"]

    sent = noticebus.json(f"notice confirm {first}")
    dropped = noticebus.json(f"notice dismiss {second} --reason OTHER")

    assert (sent["decision"], dropped["decision"]) == ("sent", "dismissed")
    assert noticebus(f"notice confirm {second}").code == 9
    assert noticebus(f"notice dismiss {first} --reason NO_SUCH").code == 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("docket import nowhere", 2),
        ("docket import .", 2),
        ("docket synthesize . --rows 500", 2),
        ("docket synthesize fresh --rows 5 --missed 50", 2),
        ("docket import --as-of yesterday .", 2),
        ("docket import --agency hhs .", 2),
    ],
)
def test_a_docket_that_cannot_be_read_is_wrong_input(
    noticebus: CommandLine, line: str, code: int
) -> None:
    done = noticebus(line)

    assert done.code == code, done.err
    assert "fix: " in done.err


@pytest.mark.timeout(240)
def test_an_interrupted_import_says_how_far_it_came_and_goes_on(noticebus: CommandLine) -> None:
    folder = noticebus.home.parent / "release-2"
    noticebus.json(f"docket synthesize {folder} --rows 30000 --missed 900 --seed 12")
    expected = planted(folder)
    before = len(noticebus.json("notice list")["items"])
    spill = noticebus.home / "ice" / "spill"

    importing = noticebus.start(f"docket import {folder}")
    deadline = time.monotonic() + 60
    while not any(spill.glob("*")) and time.monotonic() < deadline:
        assert importing.poll() is None, "ended before it began"
    importing.send_signal(signal.SIGINT)
    try:
        _, words = importing.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        importing.kill()
        raise

    assert importing.returncode == 130, words
    assert b"Stopped. reading" in words
    assert b"Traceback" not in words
    assert not any(spill.iterdir())
    done = noticebus(f"docket import {folder} -o json")
    assert done.code == 5
    found = done.data["recorded"] + done.data["to_confirm"] + done.data["already"]
    assert found == expected["send"] + expected["confirm"]
    assert len(noticebus.json("notice list")["items"]) == before + found
