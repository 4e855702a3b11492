"""One place turns errors into exit codes; every error prints code, sentence and fix."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import errors
from services import cli
from services.cli.exits import exit_code_of, tell


@pytest.mark.parametrize(
    ("branch", "code"),
    [
        (errors.RejectedError, 2),
        (errors.NotFoundError, 3),
        (errors.NotAllowedError, 4),
        (errors.EvidenceError, 6),
        (errors.UnavailableError, 7),
        (errors.PolicyError, 8),
        (errors.ConflictError, 9),
        (errors.NoticeBusError, 1),
    ],
)
def test_each_branch_has_its_exit_code(branch: type[errors.NoticeBusError], code: int) -> None:
    class Narrower(branch):  # type: ignore[valid-type,misc]  # any branch may be refined
        pass

    assert exit_code_of(branch("NB-7001")) == code
    assert exit_code_of(Narrower("NB-7001")) == code


def test_an_error_is_code_sentence_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    tell(errors.RejectedError("NB-7002", agency="f\x1bbi"))

    told = capsys.readouterr()
    assert told.out == ""
    assert "NB-7002: f\ufffdbi is not an agency" in told.err
    assert "fix: Use ice or hhs." in told.err


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("version", 0),
        ("--agency ice config show -o json", 0),
        ("config show --agency hhs -o ndjson", 0),
        ("config show", 2),
        ("config show --agency fbi", 2),
        ("config show -o xml --agency ice", 2),
        ("frobnicate", 2),
        ("version --as", 2),
        ("config", 2),
        ("schema show frob", 3),
    ],
)
def test_command_lines_end_with_their_exit_code(
    line: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOTICEBUS_AGENCY", raising=False)

    assert cli.execute(line.split()) == code

    told = capsys.readouterr()
    if code:
        assert told.out == ""
        assert "Traceback" not in told.err


def test_what_is_nearest_to_the_verb_wins(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--agency ice -o csv config show --agency hhs -o ndjson"

    assert cli.execute(line.split()) == 0

    assert '"value": "hhs"' in capsys.readouterr().out


def test_agency_falls_back_to_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTICEBUS_AGENCY", "hhs")

    assert cli.execute(["config", "show", "-o", "csv"]) == 0
    assert "NOTICEBUS_AGENCY,hhs,environment" in capsys.readouterr().out


def test_config_tells_where_each_value_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://ice:hunter2@db/ice\n", encoding="utf-8")
    for variable, value in (
        ("NOTICEBUS_AGENCY", "hhs"),
        ("NOTICEBUS_DATABASE_URL_FILE", str(secret)),
        ("NOTICEBUS_RELAY_BATCH_MAX", "7"),
        ("NOTICEBUS_KEYS", ""),
        ("NOTICEBUS_OUTPUT", "csv"),
    ):
        monkeypatch.setenv(variable, value)
    line = f"--agency ice --home {tmp_path} config show --as clerk -o ndjson"

    assert cli.execute(line.split()) == 0

    told = capsys.readouterr()
    rows = {row["variable"]: row for row in map(json.loads, told.out.splitlines())}
    sources = {name.removeprefix("NOTICEBUS_"): rows[name]["from"] for name in rows}
    assert (
        sources.items()
        >= {
            "AGENCY": "--agency",
            "HOME": "--home",
            "ACTOR": "--as",
            "OUTPUT": "-o",
            "KEYS": "default",
            "DATABASE_URL": "NOTICEBUS_DATABASE_URL_FILE",
            "REDIS_URL": "embedded",
            "RELAY_BATCH_MAX": "environment",
            "RELAY_WINDOW_MAX": "default",
        }.items()
    )
    assert "hunter2" not in told.out + told.err


def test_config_shows_all_settings_and_marks_what_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = {
        "NOTICEBUS_RELAY_BATCH_MAX": "0",
        "NOTICEBUS_DELIVERY_BACKOFF_SECONDS_MIN": "90",
        "NOTICEBUS_DOMAIN": "spaces in it",
        "NOTICEBUS_SEALER": "no JSON",
        "NOTICEBUS_REDIS_URL_FILE": str(tmp_path / "nowhere"),
        "NOTICEBUS_OUTPUT": "xml",
    }
    right = {"NOTICEBUS_HTTP_PORT": "8081", "NOTICEBUS_BUS_BLOCK_SECONDS": "2"}
    for variable, value in (wrong | right).items():
        monkeypatch.setenv(variable, value)

    for form in ("ndjson", "table"):
        assert cli.execute(["--agency", "ice", "config", "show", "-o", form]) == 2
        told = capsys.readouterr()
        assert told.err.count("NB-7010") == 1
        if form == "ndjson":
            rows = {row["variable"]: row for row in map(json.loads, told.out.splitlines())}
            assert {name for name, row in rows.items() if row["error"]} == set(wrong)
            assert {name: rows[name]["value"] for name in wrong} == wrong
            assert rows["NOTICEBUS_HTTP_PORT"]["value"] == 8081
            assert rows["NOTICEBUS_BUS_BLOCK_SECONDS"]["value"] == 2
            assert rows["NOTICEBUS_RELAY_WINDOW_MAX"]["value"] == 10_000
        else:
            assert "ERROR" in told.out.splitlines()[0]
            assert "greater than or equal to 1" in told.out

    for variable in wrong:
        monkeypatch.delenv(variable)
    assert cli.execute(["--agency", "ice", "config", "show"]) == 0
    assert "ERROR" not in capsys.readouterr().out.splitlines()[0]


def test_an_output_format_of_the_environment_that_is_none_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTICEBUS_OUTPUT", "xml")

    assert cli.execute(["version"]) == 2
    assert "NB-7010: NOTICEBUS_OUTPUT" in capsys.readouterr().err


def test_a_bug_prints_words_and_no_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise ValueError("child A200000417")

    monkeypatch.setattr("services.cli.version.session_of", broken)

    assert cli.execute(["version"]) == 1

    told = capsys.readouterr().err
    assert "NB-7014" in told
    assert "ValueError" in told
    assert "200000417" not in told


def test_an_error_out_of_a_group_of_tasks_keeps_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        away = errors.UnavailableError("NB-5002", reason="connection refused")
        raise ExceptionGroup("parts", [ExceptionGroup("readers", [ValueError(), away])])

    monkeypatch.setattr("services.cli.version.session_of", broken)

    assert cli.execute(["version"]) == 7
    assert "NB-5002" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_failure() -> None:
    line = f"{sys.executable} -c 'from services.cli import main; main()' schema list | true"

    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_says_what_was_finished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from services.cli.session import Session

    def interrupted(session: Session, *_: object, **__: object) -> None:
        with session.progress("importing", unit="rows", total=100) as work:
            work.advance(40)
            raise KeyboardInterrupt

    monkeypatch.setattr(Session, "emit_one", interrupted)

    assert cli.execute(["version", "-q"]) == 130
    assert "Stopped. importing: 40 of 100 rows" in capsys.readouterr().err


def test_every_command_of_the_table_is_a_module() -> None:
    from importlib.util import find_spec

    missing = [name for name in cli.COMMANDS if find_spec(f"services.cli.{name}") is None]

    assert missing == []
