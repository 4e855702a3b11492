"""One deployment for all tests of this folder: built, started, and removed by its own name."""

import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.deployment import Deployment, Dockets


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a Docker engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.compose)


def synthesize(folder: Path, *, rows: int, missed: int, seed: int) -> set[str]:
    """Invent a docket on the host; returns the court's hearing keys that a notice must carry."""
    noticebus = [sys.executable, "-c", "from services.cli import main; main()"]
    line = f"docket synthesize {folder} --rows {rows} --missed {missed} --seed {seed}"
    subprocess.run([*noticebus, *line.split()], check=True, timeout=120)
    # The containers' user is not ours.
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    with (folder / "answers.csv").open(encoding="utf-8", newline="") as answers:
        return {row["IDNSCHEDULE"] for row in csv.DictReader(answers) if row["expected"] == "send"}


@pytest.fixture(scope="session")
def dockets() -> Iterator[Dockets]:
    """Two dockets about different people, in a folder that the containers' user can read."""
    with tempfile.TemporaryDirectory(prefix="noticebus-dockets-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Dockets(
            folder,
            {
                "first": synthesize(folder / "first", rows=600, missed=60, seed=1),
                "second": synthesize(folder / "second", rows=6_000, missed=1_500, seed=2),
            },
        )


@pytest.fixture(scope="session")
def deployment(dockets: Dockets, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """The deployment, healthy; its logs are printed when a test failed."""
    running = Deployment(dockets.folder)
    try:
        running.up(build=True)
        yield running
    finally:
        if request.session.testsfailed:
            print(running.compose("logs", "--no-color", "--tail", "60"))
        running.down()
