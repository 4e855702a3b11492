"""One deployment of compose.yaml under a project name of its own, brought up and taken down."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 120
UP_SECONDS = 600
POLL_SECONDS = 0.5
SENDERS = {"ice": "ice-producer", "hhs": "hhs-consumer"}


@dataclass(frozen=True, slots=True)
class Docket:
    """An invented docket: its folder, and the court's keys of hearings that must become notices."""

    folder: Path
    expected: Collection[str]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The services of compose.yaml, named apart from any other deployment on this machine."""

    dockets: Path
    project: str = field(default_factory=lambda: f"noticebus-test-{uuid4().hex[:8]}")

    def compose(
        self,
        *arguments: str,
        allowed: Sequence[int] = (0,),
        timeout: float = COMMAND_SECONDS,
    ) -> str:
        """Run `docker compose` on this deployment; returns standard output."""
        return self._run(self._compose(*arguments), allowed=allowed, timeout=timeout).stdout

    def docker(self, *arguments: str) -> str:
        """Run `docker` itself; returns standard output."""
        return self._run(["docker", *arguments]).stdout

    def up(self, *services: str, build: bool = False) -> None:
        """Start everything, or these services, and wait until all of it is healthy."""
        options = ["--wait", "--wait-timeout", str(UP_SECONDS // 2)]
        options += ["--build"] if build else []
        self.compose("up", *options, *services, timeout=UP_SECONDS)

    def down(self) -> None:
        """Remove containers, networks and volumes of this deployment, and of no other."""
        self.compose("--profile", "demo", "down", "--volumes", "--timeout", "5")

    def container(self, service: str) -> str:
        """Return the id of a service's container, running or not."""
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a service's container."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", self.container(service)))
        return found[0]

    def services(self) -> list[str]:
        """Return the services that are running."""
        return self.compose("ps", "--services").split()

    def inside(self, service: str, *command: str, allowed: Sequence[int] = (0,)) -> str:
        """Run a command in a running container; returns standard output."""
        return self.compose("exec", "-T", service, *command, allowed=allowed)

    def noticebus(self, agency: str, *words: str, allowed: Sequence[int] = (0,)) -> str:
        """Run one of our commands on an agency's side; returns standard output."""
        return self.inside(SENDERS[agency], "noticebus", *words, allowed=allowed)

    def import_docket(self, docket: Docket) -> dict[str, Any]:
        """Import a docket at ICE; some of its rows are meant to be rejected."""
        line = ("docket", "import", f"/dockets/{docket.folder.name}", "-o", "json")
        summary: dict[str, Any] = json.loads(self.noticebus("ice", *line, allowed=(0, 5)))
        return summary

    def send(self, number: int) -> str | None:
        """Send a notice by hand about the invented child of this number.

        Returns its id, or None when ICE could not say that it was accepted.
        """
        line = (
            f"--yes notice send --a-number A2{number:08d} --given-name Sample --family-name Child"
            " --birth-date 2012-05-04 --court HOU --office HOU --hearing 2025-06-02T09:00"
            " --outcome MISSED_NO_ORDER -o json"
        )
        command = self._compose("exec", "-T", SENDERS["ice"], "noticebus", *line.split())
        done = self._run(command, allowed=range(256))
        return str(json.loads(done.stdout)["notice_id"]) if done.returncode == 0 else None

    def notices(self) -> list[dict[str, Any]]:
        """Return every notice as ICE sees it."""
        listed = self.noticebus("ice", "notice", "list", "--limit", "100000", "-o", "ndjson")
        return [json.loads(line) for line in listed.splitlines()]

    def cases(self) -> list[dict[str, Any]]:
        """Return every case as HHS sees it."""
        words = ("queue", "list", "--state", "all", "--limit", "100000", "-o", "ndjson")
        return [json.loads(line) for line in self.noticebus("hhs", *words).splitlines()]

    def states(self) -> Counter[str]:
        """Return how many notices are in each state."""
        return Counter(notice["state"] for notice in self.notices())

    def until(self, what: str, holds: Callable[[], bool], *, seconds: float = 120) -> None:
        """Wait for a condition; fails with the words for it when it does not come."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
            time.sleep(POLL_SECONDS)

    def healthy(self, service: str) -> bool:
        """Tell whether a service's own check says that it is well."""
        state = self.inspect(service)["State"]
        return bool(state["Running"]) and state["Health"]["Status"] == "healthy"

    def until_healthy(self, service: str) -> None:
        """Wait until a service's own check says that it is well."""
        self.until(f"{service} is healthy", lambda: self.healthy(service))

    def _compose(self, *arguments: str) -> list[str]:
        return ["docker", "compose", "--project-name", self.project, *arguments]

    def _run(
        self,
        command: Sequence[str],
        *,
        allowed: Sequence[int] = (0,),
        timeout: float = COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "NOTICEBUS_DOCKETS": str(self.dockets)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        told = f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode in allowed, told
        return done
