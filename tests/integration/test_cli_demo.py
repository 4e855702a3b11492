"""The demo as a new user runs it: to its end, served until Ctrl-C, and careful with folders."""

import signal
from pathlib import Path

import psutil
import pytest

from schemas.errors import UnavailableError
from services.cli import demo
from services.embedded import in_use
from tests.command_line import COMMAND_SECONDS, CommandLine, until


@pytest.mark.timeout(420)
def test_the_demo_serves_until_it_is_interrupted_and_nobody_takes_its_home(tmp_path: Path) -> None:
    noticebus = CommandLine(tmp_path / "home")
    noticebus.home.mkdir()
    living = CommandLine(noticebus.home / "demo")
    served = noticebus.start("demo --rows 400 --serve")
    try:
        assert served.stderr is not None
        said = b""
        while b"until Ctrl-C" not in said:
            line = served.stderr.readline()
            assert line, said.decode()
            said += line
        until("both agencies", lambda: living("--agency hhs doctor").code == 0)

        again = noticebus("demo --rows 400")
        watched = living("--agency hhs watch --since 1h --no-follow -o csv")

        assert (again.code, "NB-7036" in again.err) == (9, True)
        assert watched.code == 0
        assert {"received", "taken", "closed"} <= {row.split(",")[3] for row in lines(watched.out)}
        served.send_signal(signal.SIGINT)
        _, rest = served.communicate(timeout=COMMAND_SECONDS)
    finally:
        served.terminate()
        served.wait(COMMAND_SECONDS)
    assert served.returncode == 130
    assert b"Both agencies ended; everything is still in" in rest
    assert living.json("--agency ice ledger verify")["valid"]


@pytest.mark.timeout(120)
def test_a_demo_that_is_ended_from_outside_ends_both_agencies(tmp_path: Path) -> None:
    going = CommandLine(tmp_path / "home").start("demo --rows 400")
    try:
        assert going.stderr is not None
        while b"ICE finds" not in (line := going.stderr.readline()):
            assert line
        agencies = psutil.Process(going.pid).children()
        going.terminate()
        going.communicate(timeout=COMMAND_SECONDS)
    finally:
        going.kill()

    assert len(agencies) >= 2
    assert going.returncode == 130
    until("the end of all", lambda: not any(map(lives, agencies)))
    assert not in_use(tmp_path / "home/demo")


def lives(process: psutil.Process) -> bool:
    """Tell whether it runs; who ended and lost its parent may wait for ever to be reaped."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def lines(csv: str) -> list[str]:
    return csv.splitlines()[1:]


def test_the_demo_removes_no_folder_that_is_not_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "home/demo/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept", encoding="utf-8")

    done = CommandLine(tmp_path / "home")("demo")

    assert (done.code, "NB-1043" in done.err) == (2, True)
    assert mine.read_text(encoding="utf-8") == "kept"


def test_a_demo_whose_step_fails_names_it_and_keeps_its_home(tmp_path: Path) -> None:
    """A setting that no command can use; the demo itself reads none."""
    noticebus = CommandLine(tmp_path / "home", {"NOTICEBUS_RELAY_BATCH_MAX": "0"})

    done = noticebus("demo")

    assert (done.code, done.out) == (7, "")
    *_, sentence, fix = done.err.splitlines()
    assert sentence == ("NB-9010: `noticebus --agency ice keys generate` ended with exit code 2")
    assert "Run it by hand with -v" in fix
    assert "NB-7010: NOTICEBUS_RELAY_BATCH_MAX" in done.err
    assert (tmp_path / "home" / "demo").is_dir()


def test_a_demo_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STEP_SECONDS", 1)

    with pytest.raises(UnavailableError) as caught:
        demo.Demo(tmp_path).until("a verified receipt", lambda: False)

    assert str(caught.value) == "NB-9011 waited 1 s for a verified receipt, in vain"
    assert "ice.log and hhs.log" in caught.value.fix


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_demo_whose_agency_ends_says_which_and_where_its_words_are(
    tmp_path: Path, end: signal.Signals
) -> None:
    def run() -> None:
        with demo._running(demo.Demo(tmp_path), "hhs") as hhs:
            hhs.send_signal(end)
            hhs.wait(COMMAND_SECONDS)

    with pytest.raises(UnavailableError) as caught:
        run()

    assert str(caught.value) == "NB-9012 the processes of hhs ended before they were told to"
    assert caught.value.fix == f"Read {tmp_path / 'hhs.log'}."
