"""One deployment for all tests of this folder: built, started, and removed by its own name."""

import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.deployment import Deployment, Docket


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a Docker engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.compose)


@pytest.fixture(scope="session")
def docket() -> Iterator[Docket]:
    """An invented docket, in a folder that the containers' user can read."""
    with tempfile.TemporaryDirectory(prefix="noticebus-dockets-") as name:
        folder = Path(name, "invented")
        noticebus = [sys.executable, "-c", "from services.cli import main; main()"]
        line = f"docket synthesize {folder} --rows 6000 --missed 1500 --seed 2"
        subprocess.run([*noticebus, *line.split()], check=True, timeout=120)
        for path in (folder.parent, folder):
            path.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)
        with (folder / "answers.csv").open(encoding="utf-8", newline="") as answers:
            rows = [row for row in csv.DictReader(answers) if row["expected"] == "send"]
        yield Docket(folder, {row["IDNSCHEDULE"] for row in rows})


@pytest.fixture(scope="session")
def deployment(docket: Docket, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """The deployment, healthy; its logs are printed when a test failed."""
    running = Deployment(docket.folder.parent)
    try:
        running.up(build=True)
        yield running
    finally:
        if request.session.testsfailed:
            print(running.compose("logs", "--no-color", "--tail", "60"))
        running.down()
