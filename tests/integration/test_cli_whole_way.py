"""One notice by the command line: sent, receipted, taken, closed; refused, trusted, redriven."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded import attach
from tests.command_line import CommandLine, introduce, until

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


def state(noticebus: CommandLine, notice_id: str) -> str:
    shown: str = noticebus.json(f"notice show {notice_id}")["state"]
    return shown


@pytest.mark.timeout(300)
def cosigned(noticebus: CommandLine, agency: str) -> bool:
    return noticebus.json(f"--agency {agency} ledger checkpoint")["cosigned"] is not None


@pytest.mark.timeout(300)  # some fifty commands, each a process
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

        # What a head tells under a key that is not trusted yet comes again with the next one, and
        # that may be an hour later.
        until("ICE's cosignature", lambda: cosigned(noticebus, "hhs"))
        until("HHS's cosignature", lambda: cosigned(noticebus, "ice"))
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
        assert report["unsealed"] == 0, "both processes sealed what they had before they ended"
        assert noticebus(f"--agency {agency} ledger checkpoint").out.startswith(
            f"{agency}.noticebus.example/noticebus/{agency}/1\n"
        )
        shown = noticebus(f"--agency {agency} ledger checkpoint --inspector").out
        assert "hhs.noticebus.example/noticebus/hhs/1\n" in shown
        assert "ice.noticebus.example/noticebus/ice/1\n" in shown
        assert shown.count("/cosigner ") >= 2
    usage = noticebus.json("report usage")["items"]
    assert [(row["office"], row["sent"], row["receipts"], row["closed"]) for row in usage] == [
        ("HOU", 2, 2, 1),
    ]
    plan = noticebus.json("--agency hhs replay plan --to store")
    assert (plan["changes"], plan["blocked"]) == (0, 0)
    assert noticebus(f"--agency hhs replay run {plan['plan_id']} --reason drill").code == 0
    copied = noticebus("--agency ice replay run --to stdout --reason drill")
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


def test_the_log_is_exported_and_tokens_are_made_for_inspectors(
    noticebus: CommandLine, tmp_path: Path
) -> None:
    noticebus(SEND, "A200000421")
    exported = noticebus("--agency ice ledger export", str(tmp_path / "log"), "-o", "json")
    assert exported.code == 0, exported.err
    assert exported.data["added"] == exported.data["size"] > 0
    assert (tmp_path / "log/checkpoint").read_text() == exported.data["note"]
    (tmp_path / "log/checkpoint").write_text(exported.data["note"].replace("/ice/1", "/hhs/1"))
    other = noticebus("--agency hhs ledger export", str(tmp_path / "log"))
    assert other.code == 6
    assert "NB-309" in other.err

    made = noticebus("--agency ice token create inspector-general --days 7")
    assert made.code == 0, made.err
    assert len(made.out.strip()) == 43
    assert noticebus("--agency ice token create inspector-general").code == 9
    [token] = noticebus.json("--agency ice token list")["items"]
    assert (token["name"], token["role"], token["state"]) == (
        "inspector-general",
        "inspector",
        "valid",
    )
    assert made.out.strip() not in str(token)
    assert noticebus("--agency ice token revoke inspector-general").code == 0
    assert noticebus("--agency ice token revoke inspector-general").code == 3
    assert noticebus.json("--agency ice token list")["items"][0]["state"] == "revoked"
