"""The ground a bench stands on: servers, processes, and what they are."""

import importlib.metadata
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from services.embedded import attach

ROOT = Path(__file__).parents[2]
PACKAGES = ("faststream", "redis", "hiredis", "psycopg", "cryptography", "pydantic", "duckdb")
START_SECONDS = 60.0


def environment(folder: Path) -> dict[str, Any]:
    """Return versions, cores, and how long this disk takes to make 4 KiB durable."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "fdatasync_ms": _fdatasync_ms(folder),
    }


def _fdatasync_ms(folder: Path, times: int = 300) -> dict[str, float]:
    took = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(times):
            file.write(os.urandom(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return quantiles(took)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and the maximum, rounded to three digits."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}
    return {name: round(value, 3) for name, value in named.items()}


@dataclass(frozen=True)
class Watched:
    """What one command said as JSON, how long it took, and its peak resident memory.

    `told` is how many lines of progress it wrote on the way: one every five seconds.
    """

    said: dict[str, Any]
    seconds: float
    peak_mb: float
    told: int


@dataclass
class Ground:
    """A home with embedded servers, and the agencies' processes in it."""

    home: Path
    urls: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, line: str, *, allowed: Sequence[int] = (0,)) -> str:
        """Run one command of `noticebus`; returns its standard output."""
        done = subprocess.run(
            [*NOTICEBUS, "--home", str(self.home), *line.split()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode not in allowed:
            raise RuntimeError(f"`noticebus {line}` ended with {done.returncode}")
        return done.stdout.decode()

    def watched(self, *words: str) -> Watched:
        """Run one command of `noticebus` in a process of its own and look at its memory."""
        began, peak = time.perf_counter(), 0.0
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            subprocess.Popen(
                [*NOTICEBUS, "--home", str(self.home), *words, "-o", "json"],
                cwd=ROOT,
                stdout=out,
                stderr=err,
            ) as process,
        ):
            while process.poll() is None:
                peak = max(peak, _peak_or_none(process.pid))
                time.sleep(0.05)
            took = time.perf_counter() - began
            out.seek(0)
            err.seek(0)
            said, told = out.read(), err.read()
        sys.stderr.write(told.decode())
        if process.returncode:
            raise RuntimeError(f"`noticebus {' '.join(words)}` ended with {process.returncode}")
        return Watched(json.loads(said), round(took, 2), peak, told.count(b"/s"))

    def start(self, agency: str, **environment: str) -> None:
        """Start an agency's process on a free port and wait until it says that it is ready.

        Raises `RuntimeError` when it ends before, `OSError` when it is not ready in time.
        """
        from urllib.error import URLError
        from urllib.request import urlopen

        port = free_port()
        with (self.home / f"{agency}.log").open("ab") as log:
            self.processes[agency] = subprocess.Popen(
                [*NOTICEBUS, "--home", str(self.home), "run", agency],
                cwd=ROOT,
                env={
                    **os.environ,
                    "NOTICEBUS_HTTP_PORT": str(port),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
                    return
            except (URLError, OSError):
                # Were the port another's by now, ours would have ended.
                if self.processes[agency].poll() is not None:
                    raise RuntimeError(f"{agency} ended: see {self.home / agency}.log") from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def memory_mb(self) -> dict[str, float]:
        """Return each process' peak resident memory in megabytes."""
        return {name: peak_mb(process.pid) for name, process in self.processes.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time of our processes and servers by name, in seconds."""
        spent: dict[str, float] = {}
        for process in psutil.process_iter(["name", "cmdline", "cwd"]):
            # PostgreSQL's children work in its folder and name it nowhere else.
            said = " ".join([*(process.info["cmdline"] or []), process.info["cwd"] or ""])
            if str(self.home) in said:
                times = process.cpu_times()
                # PostgreSQL has a child for each connection: those that ended count as its own.
                used = times.user + times.system + times.children_user + times.children_system
                name = process.info["name"]
                spent[name] = round(spent.get(name, 0.0) + used, 2)
        return spent

    def stop(self) -> None:
        """End the agencies' processes."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)
        self.processes.clear()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def peak_mb(pid: int) -> float:
    """Return the peak resident memory of a living process in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def _peak_or_none(pid: int) -> float:
    try:
        return peak_mb(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


NOTICEBUS = [sys.executable, "-c", "import sys; from services.cli import main; sys.exit(main())"]


def introduce(made: Ground, agency: str, peer: str) -> None:
    """Let `peer` trust the newest party file of `agency`."""
    file = made.home / f"{agency}-party.json"
    file.unlink(missing_ok=True)
    made.command(f"--agency {agency} --yes party export {file}")
    listed = json.loads(made.command(f"--agency {agency} party list -o json"))
    own = next(p for p in listed["items"] if p["agency"] == agency and p["status"] == "current")
    made.command(f"--agency {peer} party trust {file} --fingerprint {own['fingerprint']}")


@contextmanager
def ground(home: Path) -> Iterator[Ground]:
    """Start durable servers in `home` and introduce both agencies to each other."""
    home.mkdir(parents=True, exist_ok=True)
    with attach(home) as servers:
        made = Ground(home, {"redis": servers.redis_url, **servers.database_urls})
        try:
            for agency in ("ice", "hhs"):
                made.command(f"--agency {agency} keys generate")
            for agency, peer in (("ice", "hhs"), ("hhs", "ice")):
                introduce(made, agency, peer)
            yield made
        finally:
            made.stop()
