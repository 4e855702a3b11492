"""One notice by the command line: sent, receipted, taken, closed; refused, trusted, redriven."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded import attach
from tests.command_line import CommandLine, until

SEND = (
    "notice send --family-name Child --birth-date 2012-05-04 --court HOU --office HOU"
    " --hearing 2026-03-03T09:00 --a-number"
)


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Both agencies, with keys, trusting each other; servers run, their processes do not."""
    noticebus = CommandLine(tmp_path_factory.mktemp("way") / "home")
    with attach(noticebus.home):
        for agency in ("ice", "hhs"):
            assert noticebus(f"--agency {agency} keys generate").code == 0
        introduce(noticebus, "ice")
        introduce(noticebus, "hhs")
        yield noticebus


def introduce(noticebus: CommandLine, agency: str) -> None:
    """Let the other agency trust this one's party file, by its fingerprint."""
    peer = "hhs" if agency == "ice" else "ice"
    file = noticebus.home / f"{agency}.party.json"
    assert noticebus(f"--agency {agency} --yes party export {file}").code == 0
    parties = noticebus.json(f"--agency {agency} party list")["items"]
    [own] = [p for p in parties if p["agency"] == agency and p["status"] == "current"]
    done = noticebus(f"--agency {peer} party trust {file} --fingerprint {own['fingerprint']}")
    assert done.code == 0, done.err


def state(noticebus: CommandLine, notice_id: str) -> str:
    shown: str = noticebus.json(f"notice show {notice_id}")["state"]
    return shown


@pytest.mark.timeout(300)
def test_a_notice_goes_the_whole_way(noticebus: CommandLine) -> None:
    sent = noticebus.json(SEND, "A200000417")
    again = noticebus(SEND, "A-200-000-417")
    notice_id = sent["notice_id"]

    assert again.code == 0
    assert f"Already sent as {notice_id}" in again.out

    with noticebus.running("ice"), noticebus.running("hhs"):
        until("a receipt", lambda: state(noticebus, notice_id) == "receipted")
        assert noticebus("--agency hhs doctor").code == 0

        taken = noticebus.json("queue take --as clerk-1")
        assert taken["notice_id"] == notice_id
        held = noticebus("queue take --as clerk-2", notice_id)
        assert held.code == 9
        assert "clerk-1" in held.err
        closed = noticebus.json(f"queue outcome {notice_id} SAFE_AT_ADDRESS --as clerk-1")
        assert closed["told"] == "CONTACT_MADE"
        until("the outcome at ICE", lambda: state(noticebus, notice_id) == "closed")

        assert noticebus("--agency ice keys rotate").code == 0
        stranger = noticebus.json(SEND, "A200000418")["notice_id"]
        until("a dead letter", lambda: bool(noticebus.json("--agency hhs dead list")["items"]))
        [letter] = noticebus.json("--agency hhs dead list")["items"]
        assert letter["cause"] == "NB-2010"
        until("its refusal", lambda: state(noticebus, stranger) == "dead")
        introduce(noticebus, "ice")
        redriven = noticebus("--agency hhs dead redrive --all --reason trusted-now")
        assert redriven.code == 0, redriven.err
        until("its receipt", lambda: state(noticebus, stranger) == "receipted")

    for agency in ("ice", "hhs"):
        for each in (notice_id, stranger):
            trace = noticebus.json(f"--agency {agency} notice trace {each}")
            assert trace["holds"]
            assert {step["verified"] for step in trace["steps"]} == {"yes"}
        report = noticebus.json(f"--agency {agency} ledger verify")
        assert report["valid"]
        assert report["size"] == report["verified"] > 0
        assert noticebus(f"--agency {agency} ledger checkpoint").out.startswith(
            f"{agency}.noticebus.example/noticebus/{agency}/1\n"
        )
    usage = noticebus.json("report usage")["items"]
    assert [(row["office"], row["sent"], row["receipts"], row["closed"]) for row in usage] == [
        ("HOU", 2, 2, 1),
    ]
    plan = noticebus.json("--agency hhs replay plan --to store")
    assert (plan["changes"], plan["blocked"]) == (0, 0)
    assert noticebus(f"--agency hhs replay run {plan['plan_id']}").code == 0
    copied = noticebus("--agency ice replay run --to stdout")
    assert copied.out.count("\n") == plan["events"]


def test_no_output_names_the_child(noticebus: CommandLine, tmp_path: Path) -> None:
    noticebus(SEND, "A200000419")

    for line in ("notice list -o csv", "notice list -o ndjson", "notice list", "notice list -v"):
        done = noticebus(line)
        assert "A***-***-419" in done.out
        assert "200000419" not in done.out + done.err


def test_lists_have_the_fields_that_others_rely_on(noticebus: CommandLine) -> None:
    noticebus(SEND, "A200000420")
    items = noticebus.json("notice list")["items"]

    assert set(items[0]) >= {
        "notice_id", "revision", "kind", "outcome", "state", "office", "court", "hearing_at",
        "eoir_case_key", "eoir_schedule_key", "sent_at", "receipt_at", "acknowledged_at",
    }  # fmt: skip
