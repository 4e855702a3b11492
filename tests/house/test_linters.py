"""Linters, types and floors, run as tests: what a colleague's machine accepts is what lands."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

TOOL_SECONDS = 280
TOOLS = {
    "ruff": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy", "-p", "schemas", "-p", "services", "-p", "tests"],
    "import-linter": ["lint-imports"],
}


@pytest.mark.timeout(TOOL_SECONDS + 20)
@pytest.mark.parametrize("tool", TOOLS)
def test_tool_finds_nothing(tool: str) -> None:
    program, *arguments = TOOLS[tool]

    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
