"""The real command, as a process of its own, for tests of the command line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-c", "from services.cli import main; main()"]
ROOT = Path(__file__).parents[1]
COMMAND_SECONDS = 60.0
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """Runs `noticebus` in one home; `environment` comes on top of nothing of ours."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, line: str, *more: str, stdin: str | None = None) -> Done:
        done = subprocess.run(
            [*PROGRAM, *line.split(), *more],
            env=self._environment(),
            cwd=self.home.parent,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def json(self, line: str, *more: str, stdin: str | None = None) -> Any:
        """Run a command that has to succeed, for its JSON."""
        done = self(line, *more, "-o", "json", stdin=stdin)
        assert done.code == 0, done.err
        return done.data

    def start(self, line: str) -> subprocess.Popen[bytes]:
        """Start a command, to be interrupted; the caller ends it."""
        return subprocess.Popen(
            [*PROGRAM, *line.split()],
            env=self._environment(),
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @contextmanager
    def running(self, agency: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run an agency's processes while the block runs; they have to end in good order."""
        log = self.home / f"{agency}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [*PROGRAM, "run", agency],
                env=self._environment(),
                cwd=self.home.parent,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            yield process
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(COMMAND_SECONDS)
        assert process.returncode == 0, log.read_text()

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if "NOTICEBUS" not in name}
        return {
            **ours,
            "PYTHONPATH": str(ROOT),
            "NOTICEBUS_HOME": str(self.home),
            **self.environment,
        }


def until(what: str, condition: Callable[[], bool]) -> None:
    """Wait for a condition, looking a few times a second."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(POLL_SECONDS)
