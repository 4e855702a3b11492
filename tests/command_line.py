"""The real command, as a process of its own, for tests of the command line.

Long-lived commands start as the shell starts them, the hundreds of short ones are forked.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from tests.forked import ROOT, Forked, become

PROGRAM = [sys.executable, "-c", "from services.cli import main; main()"]
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

    def __call__(self, line: str, *more: str, stdin: str | bytes | None = None) -> Done:
        with TemporaryDirectory() as folder:
            streams = [Path(folder, name) for name in ("in", "out", "err")]
            said = stdin.encode() if isinstance(stdin, str) else stdin
            streams[0].write_bytes(said or b"")
            arguments = [*line.split(), *more]
            process = Forked.start(_execute, arguments, self.variables, self.home.parent, streams)
            try:
                code = process.wait(COMMAND_SECONDS)
            finally:
                process.kill()
                process.wait()
            out, err = (path.read_text(encoding="utf-8") for path in streams[1:])
        assert "Traceback" not in err, err
        return Done(code, out, err)

    def json(self, line: str, *more: str, stdin: str | bytes | None = None) -> Any:
        """Run a command that has to succeed, for its JSON."""
        done = self(line, *more, "-o", "json", stdin=stdin)
        assert done.code == 0, done.err
        return done.data

    def start(self, line: str) -> subprocess.Popen[bytes]:
        """Start a command, to be interrupted; the caller ends it."""
        return subprocess.Popen(
            [*PROGRAM, *line.split()],
            env=self.variables,
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
                env=self.variables,
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

    @property
    def variables(self) -> dict[str, str]:
        """What the command sees of the environment."""
        ours = {name: value for name, value in os.environ.items() if "NOTICEBUS" not in name}
        return {
            **ours,
            "PYTHONPATH": str(ROOT),
            "NOTICEBUS_HOME": str(self.home),
            **self.environment,
        }


def introduce(noticebus: CommandLine, agency: str) -> None:
    """Let the other agency trust this one's party file, by its fingerprint."""
    peer = "hhs" if agency == "ice" else "ice"
    file = noticebus.home / f"{agency}.party.json"
    assert noticebus(f"--agency {agency} --yes party export {file}").code == 0
    parties = noticebus.json(f"--agency {agency} party list")["items"]
    [own] = [p for p in parties if p["agency"] == agency and p["status"] == "current"]
    done = noticebus(f"--agency {peer} party trust {file} --fingerprint {own['fingerprint']}")
    assert done.code == 0, done.err


def until(what: str, condition: Callable[[], bool]) -> None:
    """Wait for a condition, looking a few times a second."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(POLL_SECONDS)


def _execute(
    arguments: list[str], environment: dict[str, str], folder: Path, streams: list[Path]
) -> NoReturn:
    """Become the command: its arguments, environment, folder and standard streams."""
    from services.cli import main

    become(["noticebus", *arguments], environment, folder, streams)
    main()
    raise AssertionError("the command always exits")
