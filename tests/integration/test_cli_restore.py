"""The drill by the command line: backup, more notices, the database gone, restore, adoption."""

import shutil
from pathlib import Path

import pytest

from tests.command_line import CommandLine, introduce, until
from tests.integration.test_cli_whole_way import SEND, state


def receipted(noticebus: CommandLine, number: int) -> bool:
    listed = noticebus.json("--agency ice notice list")["items"]
    return [each["state"] for each in listed].count("receipted") == number


@pytest.mark.timeout(600)
def test_the_drill_by_the_command_line(tmp_path: Path) -> None:
    noticebus = CommandLine(tmp_path / "home")
    backups = tmp_path / "backups"
    backups.mkdir()
    for agency in ("ice", "hhs"):
        assert noticebus(f"--agency {agency} keys generate").code == 0
    introduce(noticebus, "ice")
    introduce(noticebus, "hhs")
    before = noticebus.json(SEND, "A200000501")["notice_id"]
    with noticebus.running("ice"), noticebus.running("hhs"):
        until("the first receipt", lambda: receipted(noticebus, 1))
        made = noticebus.json(f"--agency ice db backup {backups}")
        after = noticebus.json(SEND, "A200000502")["notice_id"]
        until("the second receipt", lambda: receipted(noticebus, 2))

    file = Path(made["path"])
    [listed] = noticebus.json(f"--agency ice db backup --list {backups}")["items"]
    assert (listed["path"], listed["generation"]) == (str(file), 1)
    verified = noticebus.json(f"--agency ice db backup --verify {file}")
    assert (verified["rows"], verified["digest"]) == (made["rows"], made["digest"])
    refused(noticebus, f"--agency ice db restore {file}", 9, "NB-5044")
    refused(noticebus, f"--agency ice db restore --adopt --reason x --seen {file}", 9, "NB-5045")
    refused(noticebus, f"--agency hhs db restore {file}", 2, "NB-5042")
    spoilt = backups / "spoilt"
    spoilt.write_bytes(file.read_bytes()[:-1])
    refused(noticebus, f"--agency ice db backup --verify {spoilt}", 6, "NB-3061")

    shutil.rmtree(noticebus.home / "ice" / "data")
    refused(noticebus, f"--agency ice db restore {spoilt}", 6, "NB-3061")
    restored = noticebus(f"--agency ice db restore {file}")
    assert restored.code == 0, restored.err
    assert "refuses every change" in restored.err
    refused(noticebus, "run ice", 6, "NB-3060")
    refused(noticebus, SEND + " A200000503", 6, "NB-3060")
    refused(noticebus, "--agency ice db restore --adopt", 2, "NB-7011")
    refused(noticebus, "--agency ice db restore --adopt --reason x", 2, "NB-5046")
    # Whole in itself, and behind what was anchored: only adoption makes it a log again.
    refused(noticebus, "--agency ice ledger verify", 6, "NB-3150")
    behind = noticebus("--agency ice ledger verify -o json").data
    assert (behind["verified"], behind["anchor"]["state"]) == (behind["size"], "behind")
    assert behind["difference"]["anchor"] == behind["anchor"]["size"] > behind["size"]
    assert "NB-3060" in noticebus("--agency ice doctor").out

    seen = tmp_path / "seen"
    told = noticebus(f"--agency hhs db seen {seen} --since {made['made_at'][:16]}Z")
    assert told.code == 0, told.err
    adopted = noticebus.json(
        f"--agency ice db restore --adopt --seen {seen} --as keeper --reason", "the disk failed"
    )
    assert (adopted["generation"], adopted["lost"]) == (2, 0)
    introduce(noticebus, "ice")
    with noticebus.running("ice"), noticebus.running("hhs"):
        until("both receipts", lambda: receipted(noticebus, 2))
        third = noticebus.json(SEND, "A200000503")["notice_id"]
        until("the third receipt", lambda: receipted(noticebus, 3))
        again = noticebus(SEND, "A200000502")
        assert f"Already sent as {after}" in again.out
        assert noticebus(f"queue take {before} --as clerk").code == 0
        assert noticebus(f"queue outcome {before} SAFE_AT_ADDRESS --as clerk").code == 0
        until("the outcome", lambda: state(noticebus, before) == "closed")
    assert len({before, after, third}) == 3
    anchors(noticebus)
    archives(noticebus, tmp_path, before)
    origin = adopted["old_origin"]
    former = noticebus.json(f"--agency ice ledger verify --origin {origin}")
    assert (former["valid"], former["size"]) == (True, adopted["old_size"])
    refused(noticebus, "--agency ice ledger verify --origin nobody", 3, "NB-5051")
    refused(noticebus, "--agency ice db backup --list absent", 3, "NB-5051")
    for agency in ("ice", "hhs"):
        assert noticebus(f"--agency {agency} ledger verify").code == 0
    report = noticebus.json("--agency ice db restore --report")
    assert (report["missing"], report["unanswered"], report["lost"]) == (0, 0, [])
    assert report["former_logs"][0]["origin"] == origin
    refused(noticebus, "--agency ice db restore --resolve all --reason x", 3, "NB-5050")


def anchors(noticebus: CommandLine) -> None:
    """A lost anchor is told, and anchored again with a reason."""
    line = "--agency hhs ledger anchor"
    refused(noticebus, f"{line} --adopt", 2, "NB-7011")
    found = noticebus.json(line)
    assert (found["state"], found["anchor"]) == ("same", found["store"])
    Path(found["path"]).unlink()
    refused(noticebus, line, 6, "NB-3152")
    refused(noticebus, "run hhs", 6, "NB-3152")
    refused(noticebus, "--agency hhs ledger verify", 6, "NB-3152")
    assert noticebus.json(f"{line} --adopt --reason", "the folder was lost")["adopted"] is True


def archives(noticebus: CommandLine, folder: Path, notice: str) -> None:
    """What is closed moves to a file, verifies there, is replayed from there, and comes back."""
    line = "--agency hhs db archive"
    none = noticebus.json(f"{line} {folder} --before 2026-01-01 --reason x")
    assert none == {"schema": "noticebus.v1/db.archive", "path": None, "messages": 0, "records": 0}
    refused(noticebus, f"{line} {folder} --before 2026-01-01", 2, "NB-7011")
    refused(noticebus, f"{line} {folder} --reason x", 2, "NB-7011")
    made = noticebus.json(f"{line} {folder} --before 2999-01-01 --reason x")
    assert made["messages"] == 3
    file = made["path"]
    valid = noticebus.json(f"{line} {file} --verify")
    assert (valid["valid"], valid["size"], valid["messages"]) == (True, made["size"], 3)
    refused(noticebus, f"--agency ice db archive {file} --verify", 2, "NB-5042")
    together = noticebus.json(f"--agency hhs ledger verify --archive {file}")
    assert (together["valid"], together["records_archived"]) == (True, 0)
    refused(noticebus, f"--agency hhs ledger verify --archive {folder}/none", 2, "NB-5049")
    refused(noticebus, f"--agency hhs notice trace {notice}", 3, "NB-3070")
    planned = noticebus.json(f"--agency hhs replay plan --from archive:{file}")
    assert (planned["new"], planned["changed"], planned["blocked"]) == (0, 0, 0)
    refused(noticebus, f"--agency hhs replay plan --from archive:{folder}/none", 2, "NB-5049")
    back = noticebus.json(f"{line} {file} --bring-back --reason x")
    assert (back["messages"], back["records"]) == (3, made["records"])


def refused(noticebus: CommandLine, line: str, code: int, error: str) -> None:
    done = noticebus(line)
    assert (done.code, done.err.split(":")[0]) == (code, error), done.err
