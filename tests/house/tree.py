"""The project's own files, found without git: an unpacked archive is judged the same."""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What tools and runs leave behind; `.gitignore` names the same.
LEFT_BEHIND = {
    ".git",
    ".venv",
    ".noticebus",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".import_linter_cache",
    "build",
    "dist",
}


def files(*suffixes: str, below: str = ".") -> Iterator[Path]:
    """Yield the project's files with one of these suffixes, or all of them, in order."""
    for folder, folders, names in os.walk(ROOT / below):
        folders[:] = sorted(set(folders) - LEFT_BEHIND)
        if Path(folder) == ROOT / "dockets":
            folders[:], names = [], ["README.md"]
        for name in sorted(names):
            if not suffixes or name.endswith(suffixes):
                yield Path(folder, name)


def python_files(*folders: str) -> Iterator[Path]:
    """Yield Python files below these folders of the project."""
    for folder in folders:
        yield from files(".py", below=folder)


def place(path: Path, line: int | None = None) -> str:
    """Return how a fault names a file: relative to the project, with its line."""
    return str(path.relative_to(ROOT)) + (f":{line}" if line else "")
