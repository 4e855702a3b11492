"""Verifiers of other people: at least eight, pinned by hash, from files that name no address."""

import json
import re

from tests.house.tree import ROOT, files, place
from tests.verifiers import material
from tests.verifiers.__main__ import TOOLS

PYPI = ROOT / "tests" / "verifiers" / "pypi"
NPM = ROOT / "tests" / "verifiers" / "npm"


def test_there_are_enough_of_them_and_each_must_refuse_something() -> None:
    assert len(TOOLS) >= 8
    assert all(tool.refuses for tool in TOOLS)
    assert {change for tool in TOOLS for change in tool.refuses} == set(material.SPOILT)


def test_every_python_package_has_its_hash() -> None:
    for lock in PYPI.glob("*/requirements.lock"):
        entries = re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip())
        assert all(re.search(r"==\S+[\s\S]*--hash=sha256:", entry) for entry in entries), lock


def test_every_package_of_npm_has_its_hash() -> None:
    for lock in NPM.glob("*/package-lock.json"):
        packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
        bare = [name for name, each in packages.items() if name and "integrity" not in each]
        assert not bare, f"{lock}: {bare}"


def test_no_pin_names_an_address() -> None:
    named = [
        place(path)
        for path in files(".lock", ".json", below="tests/verifiers")
        if "://" in path.read_text(encoding="utf-8")
    ]

    assert not named
