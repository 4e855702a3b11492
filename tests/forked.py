"""Processes of their own that are forked from one which has imported the program already.

Tests start hundreds, and importing is most of what a short one would do. Each is a process like any
other: it has its own memory, streams and signals, and dies of SIGKILL.
"""

import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schemas
import services

ROOT = Path(__file__).parents[1]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        module.name
        for package in (schemas, services)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not {"__main__", "migrations"} & set(module.name.split("."))
    ]
)


@dataclass(frozen=True, slots=True)
class Forked:
    """One that was started."""

    process: Any

    @classmethod
    def start(cls, target: Callable[..., object], *arguments: object) -> "Forked":
        """Let `target` run in a process of its own; arguments are pickled."""
        process = _context.Process(target=target, args=arguments)
        process.start()
        return cls(process)

    @classmethod
    def module(cls, name: str, *arguments: str, out: Path, **environment: str) -> "Forked":
        """Run a module as `python -m` would; what it says is added to `out`."""
        ours = {key: value for key, value in os.environ.items() if "NOTICEBUS" not in key}
        return cls.start(_module, name, arguments, {**ours, **environment}, out)

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self.process.pid)

    def wait(self, seconds: float | None = None) -> int:
        """Return its exit code, the negative signal that ended it; raises `TimeoutError`."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            raise TimeoutError(f"it still runs after {seconds} s")
        return int(self.process.exitcode)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9."""
        self.send_signal(signal.SIGKILL)


def become(
    arguments: list[str], environment: Mapping[str, str], folder: Path, streams: list[Path]
) -> None:
    """Take arguments, environment, folder and standard streams of a process that was just begun."""
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND * (number > 0), 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = arguments
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def _module(name: str, arguments: tuple[str, ...], environment: dict[str, str], out: Path) -> None:
    become([name, *arguments], environment, ROOT, [Path(os.devnull), out, out])
    sys.path.insert(0, str(ROOT))
    runpy.run_module(name, run_name="__main__", alter_sys=True)
