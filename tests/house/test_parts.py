"""What we build on: pinned, hashed, free of addresses, under licences that suit Apache-2.0."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.tree import ROOT

LOCKS = ("requirements.lock", "requirements.image.lock")
# Licences that would reach from a part into the whole, or forbid a use.
UNSUITABLE = re.compile(r"AFFERO|AGPL|SSPL|SERVER SIDE PUBLIC|BUSL|COMMONS CLAUSE", re.IGNORECASE)


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of every pin in a lock."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())

    assert len(pins(lock)) == len([entry for entry in entries if not entry.startswith("#")])
    assert all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))
    assert not re.search(r"://|--index|--extra-index|--find-links|^-", text, re.MULTILINE)


def test_image_runs_the_versions_that_were_tested() -> None:
    assert pins("requirements.image.lock").items() <= pins("requirements.lock").items()


def test_lock_satisfies_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    pinned = pins("requirements.lock")

    stale = [
        text
        for text in wanted
        for wish in [Requirement(text)]
        if pinned.get(canonicalize_name(wish.name), "0") not in wish.specifier
    ]

    assert not stale, f"run make lock: {stale}"


def test_no_part_has_an_unsuitable_licence() -> None:
    unsuitable = []
    for name in pins("requirements.lock"):
        try:
            about = metadata(name)
        except PackageNotFoundError:
            # Pinned for another platform or Python.
            continue
        said = [
            (about.get_all(field) or [""])[0][:200] for field in ("License-Expression", "License")
        ]
        said += [line for line in about.get_all("Classifier") or [] if line.startswith("License")]
        if any(UNSUITABLE.search(words) for words in said):
            unsuitable.append(f"{name}: {said}")

    assert not unsuitable, "\n".join(unsuitable)


def test_project_is_under_the_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
