"""Dead letters and corrections by the command line: forms, confirmations, exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded import attach
from tests.command_line import CommandLine, introduce, until
from tests.integration.test_cli_whole_way import SEND, state


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Both agencies, trusting each other; servers run, their processes do not."""
    noticebus = CommandLine(tmp_path_factory.mktemp("dead") / "home")
    with attach(noticebus.home):
        for agency in ("ice", "hhs"):
            assert noticebus(f"--agency {agency} keys generate").code == 0
        introduce(noticebus, "ice")
        introduce(noticebus, "hhs")
        yield noticebus


@pytest.mark.timeout(300)
def test_a_group_is_looked_at_confirmed_redriven_and_remembered(noticebus: CommandLine) -> None:
    assert noticebus("--agency ice keys rotate").code == 0
    with noticebus.running("ice"), noticebus.running("hhs"):
        sent = [noticebus.json(SEND, f"A30000000{n}")["notice_id"] for n in range(2)]
        until(
            "refusals",
            lambda: [g["count"] for g in noticebus.json("--agency ice dead list")["items"]] == [2],
        )
        [ours] = noticebus.json("--agency ice dead list")["items"]
        assert (ours["group_id"], ours["offices"]) == ("ours.NB-2010", ["HOU"])
        refused = noticebus.json(f"--agency ice dead show {sent[0]}")
        assert (refused["state"], refused["notice_id"]) == ("open", sent[0])
        assert "notice correct" in refused["next"]

        [group] = noticebus.json("--agency hhs dead list")["items"]
        assert (group["group_id"], group["count"]) == ("NB-2010.unread", 2)
        redrive = "--agency hhs dead redrive --group NB-2010.unread --reason"
        unconfirmed = noticebus(redrive, "mended")
        assert (unconfirmed.code, "--confirm 2" in unconfirmed.err) == (2, True)
        assert noticebus(redrive, "mended", "--confirm", "3").code == 2
        expected = noticebus.json(redrive, "mended", "--dry-run")["items"]
        assert [(each["outcome"], each["cause"]) for each in expected] == [
            ("failed", "NB-2010")
        ] * 2
        again = noticebus(redrive, "mended", "--confirm", "2", "-o", "json")
        assert again.code == 5
        assert again.data["failures"] == [
            {"group_id": "NB-2010.unread", "cause": "NB-2010", "count": 2}
        ]

        introduce(noticebus, "ice")
        done = noticebus.json(redrive, "trusted", "--confirm", "2")
        assert (done["taken"], done["failed"]) == (2, 0)
        until("receipts", lambda: all(state(noticebus, each) == "receipted" for each in sent))
    letters = noticebus.json("--agency hhs dead list --letters --state redriven")["items"]
    shown = noticebus.json(f"--agency hhs dead show {letters[0]['dead_id']}")
    assert [(act["reason"], act["outcome"]) for act in shown["history"]] == [
        ("mended", "failed"),
        ("trusted", "taken"),
    ]
    runs = noticebus.json("--agency hhs dead list --redrives")["items"]
    assert [(run["reason"], run["taken"], run["failed"]) for run in runs] == [
        ("trusted", 2, 0),
        ("mended", 0, 2),
    ]
    assert noticebus(f"--agency hhs dead redrive --resume {runs[0]['redrive_id']}").code == 0


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("--agency hhs dead redrive --all --reason x --group y", 0, ""),
        ("--agency hhs dead redrive 0193 --all --reason x", 2, "NB-7011"),
        ("--agency hhs dead redrive --reason x", 2, "NB-7011"),
        ("--agency hhs dead redrive --all", 2, "NB-7011"),
        ("--agency hhs dead redrive --resume ffffffff", 3, "NB-6072"),
        ("--agency hhs dead redrive --resume ffffffff --all", 2, "NB-7011"),
        ("--agency hhs dead discard --reason TEST --text x", 2, "NB-7011"),
        ("--agency hhs dead discard ffffffff --reason TEST --text x", 3, "NB-6001"),
        ("--agency hhs dead list --state nonsense", 2, "NB-7011"),
        ("notice correct ffffffff --reason OTHER --office MIA", 3, "NB-7012"),
        ("notice correct --reason OTHER", 2, "NB-7011"),
        ("notice correct ffffffff --office MIA", 2, "NB-7011"),
        ("notice correct --file absent.csv --reason OTHER", 2, "NB-1053"),
        ("notice correct ffffffff --reason OTHER", 2, "NB-7007"),
        ("--agency hhs notice correct ffffffff --reason OTHER --office MIA", 2, "NB-7003"),
        ("notice withdraw ffffffff --reason OTHER --yes", 3, "NB-7012"),
    ],
)
def test_bad_input_says_what_to_do(
    noticebus: CommandLine, line: str, code: int, error: str
) -> None:
    done = noticebus(line)

    assert done.code == code, done.err
    assert error in done.err


def test_a_correction_shows_its_difference_masked_and_asks_first(noticebus: CommandLine) -> None:
    notice_id = noticebus.json(SEND, "A300000010")["notice_id"]
    line = f"notice correct {notice_id} --reason DATA_ENTRY --birth-date 2011-07-09 --office MIA"

    asked = noticebus(line)
    looked = noticebus.json(f"{line} --dry-run")
    sent = noticebus(f"{line} --yes -o json")
    again = noticebus.json(f"{line} --yes")
    wrong = noticebus(f"{line} --yes --reason BORED")

    assert (asked.code, "NB-7008" in asked.err) == (2, True)
    assert "- aor_code: HOU" in asked.err
    assert "+ aor_code: MIA" in asked.err
    assert not any("2011-07-09" in text for text in (asked.err, asked.out, sent.err, sent.out))
    assert looked["message_id"] is None
    assert (sent.code, sent.data["revision"], sent.data["already"]) == (0, 2, False)
    assert again["already"] is True
    assert (wrong.code, "WRONG_HEARING" in wrong.err) == (2, True)
    revealed = noticebus(f"{line} --dry-run --reveal --birth-date 2010-07-09")
    assert "2010-07-09" in revealed.err
    said = json.dumps({"outcome": "IN_ABSENTIA_ORDER", "outcome_at": "2026-03-04"})
    piped = noticebus(f"notice correct {notice_id} --reason OTHER --yes -o json", stdin=said)
    assert (piped.code, piped.data["outcome"]) == (0, "IN_ABSENTIA_ORDER")
    withdrawn = noticebus.json(f"notice withdraw {notice_id} --reason DUPLICATE --yes")
    assert (withdrawn["state"], withdrawn["revision"]) == ("withdrawn", 4)
    assert noticebus(f"{line} --yes").code == 9


def test_a_file_of_corrections_goes_once_and_names_its_rejects(
    noticebus: CommandLine, tmp_path: Path
) -> None:
    first, second = (noticebus.json(SEND, f"A30000002{number}")["notice_id"] for number in range(2))
    file, rejects = tmp_path / "corrections.csv", tmp_path / "rejects.csv"
    file.write_text(
        f"notice,birth_date,family_name\n{first},2011-07-09,Quiej\n{second},2011-99-99,Quiej\n",
        encoding="utf-8",
    )
    line = f"notice correct --file {file} --rejects {rejects} --reason DATA_ENTRY"

    looked = noticebus(f"{line} --dry-run -o json")
    unconfirmed = noticebus(line)
    sent = noticebus(f"{line} --confirm 1 -o json")
    again = noticebus(f"{line} -o json")

    assert (looked.code, unconfirmed.code) == (5, 2)
    assert [each["outcome"] for each in looked.data["items"]] == ["change", "rejected"]
    assert "NB-6075" in unconfirmed.err
    assert (sent.code, sent.data["corrected"], sent.data["rejected"]) == (5, 1, 1)
    assert (again.code, again.data["corrected"], again.data["already"]) == (5, 0, 1)
    for text in (looked.out, looked.err, sent.out, sent.err, rejects.read_text("utf-8")):
        assert "Quiej" not in text
        assert "2011-" not in text
