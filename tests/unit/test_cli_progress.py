"""Progress: lines now and then where nobody watches, a bar where somebody does, never on stdout."""

import io

import pytest

from services.cli.progress import Progress


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("services.cli.progress.time.monotonic", clock)
    return clock


def test_one_line_every_five_seconds_off_a_terminal(clock: Clock) -> None:
    out = io.StringIO()

    with Progress("importing", unit="rows", total=1_000, stream=out) as work:
        for second in range(12):
            clock.now = 100.0 + second
            work.update(second * 50)

    lines = out.getvalue().splitlines()
    assert lines == [
        "importing: 250 of 1,000 rows 25 % 50/s",
        "importing: 500 of 1,000 rows 50 % 50/s",
        "importing: 550 of 1,000 rows 55 % 50/s",
    ]


def test_short_work_needs_no_line() -> None:
    out = io.StringIO()

    with Progress("importing", unit="rows", stream=out) as work:
        work.advance(3)

    assert out.getvalue() == ""


def test_forced_colours_do_not_make_a_terminal(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()

    with Progress("importing", unit="rows", stream=out) as work:
        work.advance(3)

    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()

    with Progress("importing", unit="rows", total=10, stream=out) as work:
        work.advance(10, note="done")

    assert "10/10" in out.getvalue()


def test_quiet_says_nothing() -> None:
    out = Terminal()

    with Progress("importing", unit="rows", quiet=True, stream=out) as work:
        work.advance(10)

    assert out.getvalue() == ""


def test_interrupted_work_knows_what_it_finished() -> None:
    work = Progress("importing", unit="rows", total=32_000, quiet=True)

    work.advance(12_400)

    assert work.finished == "importing: 12,400 of 32,000 rows"
