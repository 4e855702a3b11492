"""What a person asks for and cannot have: code, words and fix, and that nothing changed."""

import itertools
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.embedded import attach
from tests.command_line import COMMAND_SECONDS, PROGRAM, CommandLine, Done, introduce, until
from tests.integration.test_cli_whole_way import SEND

NUMBERS = ("A200000417", "A200000418")


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Two notices became cases, two lie at HHS as dead letters of a key that it does not trust."""
    noticebus = CommandLine(tmp_path_factory.mktemp("refused") / "home")
    with attach(noticebus.home):
        for agency in ("ice", "hhs"):
            assert noticebus(f"--agency {agency} keys generate").code == 0
        for agency in ("ice", "hhs"):
            introduce(noticebus, agency)
        with noticebus.running("ice"), noticebus.running("hhs"):
            for number in NUMBERS:
                noticebus.json(SEND, number)
            until("two cases", lambda: len(items(noticebus, "queue list")) == 2)
            assert noticebus("--agency ice keys rotate").code == 0
            for number in ("A200000419", "A200000420"):
                noticebus.json(SEND, number)
            until(
                "two refusals",
                lambda: len(items(noticebus, "notice list --state dead")) == 2,
            )
        yield noticebus


def items(noticebus: CommandLine, line: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = noticebus.json(line)["items"]
    return found


def shared(ids: list[str]) -> str:
    """Return what all ids begin with: they were made within minutes, and begin with the time."""
    assert len(set(ids)) > 1
    same = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*ids, strict=True))
    beginning = "".join(each[0] for each in same)
    assert beginning
    return beginning


def is_refused(done: Done, exit_code: int, code: str, *words: str) -> None:
    """Check how a command ended that did nothing; `words` are of its sentence or its fix."""
    assert (done.code, done.out) == (exit_code, ""), done.err
    *_, sentence, fix = done.err.splitlines()
    assert sentence.startswith(f"{code}: "), done.err
    assert fix.startswith("  fix: ")
    assert all(each in sentence + fix for each in words), done.err


@pytest.mark.parametrize(
    ("line", "exit_code", "code", "words"),
    [
        ("notice list --state lost", 2, "NB-1083", ("no state of a notice", "to_confirm")),
        (
            "report usage --since 7d --until 8d",
            2,
            "NB-7034",
            ("no time lies between 7d and 8d", "swap them"),
        ),
        (
            "--agency ice keys rotate signing --finish",
            2,
            "NB-7050",
            ("renewing the signing key is one step", "Leave out --finish"),
        ),
        (
            "--agency ice ledger conflicts --resolve 0123 --reason x",
            3,
            "NB-3159",
            ("no open conflict begins with 0123", "noticebus ledger conflicts"),
        ),
        (
            "--agency hhs dead redrive --group NB-2010.unread --reason mended --confirm 3",
            2,
            "NB-6074",
            ("--confirm 3 is not the number of dead letters, which is 2", "Nothing was done"),
        ),
    ],
)
def test_what_is_asked_for_wrongly(
    noticebus: CommandLine, line: str, exit_code: int, code: str, words: tuple[str, ...]
) -> None:
    is_refused(noticebus(line), exit_code, code, *words)

    assert len(items(noticebus, "--agency hhs dead list --letters")) == 2


@pytest.mark.parametrize(
    ("listing", "name", "line", "what"),
    [
        ("notice list", "notice_id", "notice show {}", "notices"),
        ("queue list", "notice_id", "queue take {}", "cases"),
        ("--agency hhs replay list", "plan_id", "--agency hhs replay show {}", "replay plans"),
    ],
)
def test_the_beginning_of_several_ids_names_none(
    noticebus: CommandLine, listing: str, name: str, line: str, what: str
) -> None:
    if "replay" in listing:
        for _ in range(2):
            noticebus.json("--agency hhs replay plan --to store")
    beginning = shared([each[name] for each in items(noticebus, listing)])

    done = noticebus(line.format(beginning))

    is_refused(done, 2, "NB-7009", f"{beginning} matches several {what}", "more characters")
    assert {each["state"] for each in items(noticebus, "queue list")} == {"unowned"}


@pytest.mark.parametrize("agency", ["hhs", "ice"])
def test_the_beginning_of_several_dead_letters_names_none(
    noticebus: CommandLine, agency: str
) -> None:
    letters = items(noticebus, f"--agency {agency} dead list --letters")
    beginning = shared([each["dead_id"] for each in letters])
    assert len(letters) == 2

    done = noticebus(f"--agency {agency} dead show {beginning}")

    words = f"several dead letters begin with {beginning}"
    is_refused(done, 9, "NB-6002", words, "Give more characters")


def test_a_party_file_under_another_fingerprint_is_not_trusted(noticebus: CommandLine) -> None:
    file = noticebus.home / "newer.json"
    assert noticebus(f"--agency ice --yes party export {file}").code == 0
    before = items(noticebus, "--agency hhs party list")

    done = noticebus(f"--agency hhs party trust {file} --fingerprint sha256:{'0' * 64}")

    is_refused(done, 4, "NB-4013", "the file's fingerprint is sha256:", "trust nothing")
    assert items(noticebus, "--agency hhs party list") == before


def test_corrections_of_another_number_than_was_confirmed_are_not_sent(
    noticebus: CommandLine, tmp_path: Path
) -> None:
    first = items(noticebus, "notice list")[0]["notice_id"]
    file = tmp_path / "corrections.csv"
    file.write_text(f"notice,reason,family_name\n{first},OTHER,Another\n", encoding="utf-8")

    done = noticebus(f"notice correct --file {file} --confirm 7")

    is_refused(done, 2, "NB-6074", "--confirm 7 is not the number of corrections, which is 1")
    assert noticebus.json(f"notice show {first}")["revision"] == 1


def test_a_replay_into_a_folder_that_is_not_there_writes_nothing(
    noticebus: CommandLine, tmp_path: Path
) -> None:
    target = tmp_path / "absent" / "copy.ndjson"
    plan = noticebus.json(f"--agency ice replay plan --to file:{target}")["plan_id"]

    done = noticebus(f"--agency ice replay run {plan} --reason drill")

    is_refused(done, 2, "NB-6018", f"{target} cannot be written: No such file", "Check the path")
    assert not target.parent.exists()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("notice withdraw {} --reason DUPLICATE", b"n\n"),
        ("notice correct --file {} --reason OTHER", b"12\n"),
    ],
)
def test_whoever_is_asked_and_says_no_has_changed_nothing(
    noticebus: CommandLine, tmp_path: Path, line: str, answer: bytes
) -> None:
    first = items(noticebus, "notice list")[0]["notice_id"]
    file = tmp_path / "corrections.csv"
    file.write_text(f"notice,family_name\n{first},Another\n", encoding="utf-8")

    done = at_a_terminal(noticebus, line.format(file if "--file" in line else first), answer)

    assert (done.code, done.out.strip()) == (4, ""), done.err
    assert "NB-7016: the answer was no: nothing was changed\n  fix: Run the command" in done.err
    assert noticebus.json(f"notice show {first}")["revision"] == 1


def at_a_terminal(noticebus: CommandLine, line: str, answer: bytes) -> Done:
    """Run a command whose standard input is a terminal, at which somebody types an answer."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [*PROGRAM, *line.split()],
            env={**os.environ, "NOTICEBUS_HOME": str(noticebus.home)},
            cwd=noticebus.home.parent,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    return Done(done.returncode, done.stdout, done.stderr)
