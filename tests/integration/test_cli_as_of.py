"""Looking back by the command line: one notice, and the reports, each with its checkpoint."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from services.embedded import attach
from tests.command_line import CommandLine, introduce, until
from tests.integration.test_cli_whole_way import state

WRITTEN = {
    "a_number": "A200000417",
    "hearing": "2026-03-03T09:00",
    "court": "HOU",
    "office": "HOU",
    "birth_date": "2012-05-04",
    "family_name": "Child",
    "eoir_case_key": 1_000_417,
}


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Both agencies, trusting each other, and one notice that waits to be sent."""
    noticebus = CommandLine(tmp_path_factory.mktemp("as-of") / "home")
    with attach(noticebus.home):
        for agency in ("ice", "hhs"):
            assert noticebus(f"--agency {agency} keys generate").code == 0
        introduce(noticebus, "ice")
        introduce(noticebus, "hhs")
        noticebus.json("notice send", stdin=json.dumps(WRITTEN))
        yield noticebus


@pytest.mark.timeout(300)
def test_what_was_known_then_is_shown_with_its_checkpoint(noticebus: CommandLine) -> None:
    [notice] = noticebus.json("notice list")["items"]
    notice_id = notice["notice_id"]
    then = datetime.now(UTC).isoformat()
    with noticebus.running("ice"), noticebus.running("hhs"):
        until("a receipt", lambda: state(noticebus, notice_id) == "receipted")
    now = datetime.now(UTC).isoformat()

    before = noticebus.json(f"notice show {notice_id} --as-of {then}")
    after = noticebus.json(f"notice show {notice_id} --as-of {now}")
    counted = noticebus.json(f"report usage --as-of {now}")
    late = noticebus.json(f"--agency hhs overdue --as-of {now}")
    said = noticebus(f"report usage --as-of {now}")

    assert (before["state"], after["state"]) == ("recorded", "receipted")
    assert after["as_of"]["checkpoint"]["size"] > 0
    assert counted["as_of"] == after["as_of"]
    assert [each["receipts"] for each in counted["items"]] == [1]
    assert (late["items"], late["as_of"]["checkpoint"]["size"] > 0) == ([], True)
    size, root = (after["as_of"]["checkpoint"][name] for name in ("size", "root"))
    assert f"checkpoint of {size:,} records, root {root}" in said.err


@pytest.mark.timeout(300)
def test_hhs_tells_its_cases_as_it_knew_them_with_its_own_checkpoint(
    noticebus: CommandLine,
) -> None:
    hhs = "--agency hhs"
    [notice] = noticebus.json("notice list")["items"]
    if notice["state"] == "recorded":
        with noticebus.running("ice"), noticebus.running("hhs"):
            until("a receipt", lambda: state(noticebus, notice["notice_id"]) == "receipted")
    [item] = noticebus.json(f"{hhs} queue list")["items"]
    notice_id = item["notice_id"]
    untaken = datetime.now(UTC).isoformat()
    assert noticebus(f"{hhs} queue take {notice_id} --as clerk").code == 0
    taken = datetime.now(UTC).isoformat()
    assert noticebus(f"{hhs} queue outcome {notice_id} SAFE_MOVED --as clerk").code == 0

    before = noticebus.json(f"{hhs} queue list --as-of {untaken}")
    during = noticebus.json(f"{hhs} queue list --state taken --as-of {taken}")
    mine = noticebus.json(f"{hhs} queue list --mine --as somebody --as-of {taken}")
    now = noticebus.json(f"{hhs} queue list --state all")
    case = noticebus.json(f"{hhs} notice show {notice_id} --as-of {taken}")
    closed = noticebus.json(f"{hhs} notice show {notice_id}")
    revealed = noticebus.json(f"{hhs} notice show {notice_id} --reveal")
    said = noticebus(f"{hhs} queue list --as-of {untaken}")
    early = noticebus(f"{hhs} queue list --as-of 2001-01-01")

    assert [each["state"] for each in before["items"]] == ["unowned"]
    assert [(each["state"], each["owner"]) for each in during["items"]] == [("taken", "clerk")]
    assert mine["items"] == []
    assert [each["state"] for each in now["items"]] == ["closed"]
    assert "as_of" not in now
    assert (case["state"], [each["event"] for each in case["events"]]) == ("taken", ["taken"])
    assert case["as_of"]["checkpoint"]["size"] > 0
    assert (closed["state"], closed["outcome_code"]) == ("closed", "SAFE_MOVED")
    assert "as_of" not in closed
    assert "a_number" not in closed["content"]
    assert revealed["content"]["a_number"] == WRITTEN["a_number"]
    size = before["as_of"]["checkpoint"]["size"]
    assert f"checkpoint of {size:,} records" in said.err
    assert (early.code, "NB-6061" in early.err) == (3, True)
    assert noticebus(f"notice show {notice_id}").code == 0, "ICE's, where nobody says whose"


def test_moments_that_cannot_be_looked_back_on_are_refused(noticebus: CommandLine) -> None:
    [notice] = noticebus.json("notice list")["items"]
    show = f"notice show {notice['notice_id']} --as-of"

    future = noticebus(f"{show} 2999-01-01")
    early = noticebus(f"{show} 2001-01-01")
    unread = noticebus(f"{show} yesterday")
    report = noticebus("overdue --agency hhs --as-of 2001-01-01")

    assert (future.code, early.code, unread.code, report.code) == (2, 3, 2, 3)
    assert "NB-6060" in future.err
    assert "NB-6061" in early.err
    assert "NB-7005" in unread.err
    assert "hhs had nothing on record" in report.err


def test_a_key_is_no_amount_and_a_bar_is_for_eyes(noticebus: CommandLine) -> None:
    [notice] = noticebus.json("notice list")["items"]

    shown = noticebus(f"notice show {notice['notice_id']}")
    table = noticebus("report usage")
    [row] = csv.DictReader(io.StringIO(noticebus("report usage -o csv").out))
    [item] = noticebus.json("report usage")["items"]
    empty = noticebus("report usage --until 2001-01-01 -o csv")

    assert "eoir_case_key: 1000417" in shown.out
    assert "█" in table.out
    assert "bar" not in row
    assert "bar" not in item
    assert "bar" not in empty.out
    assert float(row["coverage"]) == item["coverage"] == 1.0


def test_help_says_what_a_moment_is(noticebus: CommandLine) -> None:
    for command in ("notice show", "report usage", "overdue", "queue list"):
        assert "--as-of" in noticebus(f"{command} --help").out
