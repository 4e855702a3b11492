"""Rules about files and names that no linter knows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.tree import ROOT, files, place, python_files

LINES_MAX = 500
OURS = ("schemas", "services", "tests")
SAYS_NOTHING = {
    *("util", "utils", "common", "helper", "helpers", "manager", "managers", "handler", "handlers"),
    *("processor", "processors", "service", "base", "misc", "core", "data", "info"),
}


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    long = [
        f"{place(path)} has {lines} lines"
        for path in files(".py", ".sql", ".js", ".css", ".html")
        if (lines := path.read_bytes().count(b"\n")) > LINES_MAX
    ]

    assert not long, "each is perhaps two rooms:\n" + "\n".join(long)


def test_names_of_files_and_folders_say_something() -> None:
    idle = [
        place(path)
        for path in files()
        if any(part.split(".")[0].lower() in SAYS_NOTHING for part in path.relative_to(ROOT).parts)
    ]

    assert not idle, "\n".join(idle)


def test_names_of_classes_say_something() -> None:
    idle = [
        f"{place(path, node.lineno)} {node.name}"
        for path, node in _nodes(ast.ClassDef)
        if re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", node.name)[-1].lower() in SAYS_NOTHING
    ]

    assert not idle, "\n".join(idle)


def test_every_module_says_what_it_does() -> None:
    silent = [
        place(path)
        for path in python_files(*OURS)
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_bytes()))
    ]

    assert not silent, "\n".join(silent)


def test_every_exemption_names_its_rule_and_ignored_types_their_reason() -> None:
    good = re.compile(r"# (type: ignore\[[a-z, -]+\] +# \S|noqa: [A-Z]+[0-9]+)")
    bare = [
        place(path, number)
        for path in python_files("schemas", "services")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"# (type: ignore|noqa)", line) and not good.search(line)
    ]

    assert not bare, "\n".join(bare)


def test_psycopg_is_spoken_in_stores_alone() -> None:
    outside = [
        place(path, node.lineno)
        for path, node in _imports("services", "schemas")
        if _imported(node) & {"psycopg", "psycopg_pool", "sqlalchemy", "alembic"}
        and "embedded" not in path.parts
        and not {"store", "store.py", "migrations"} & set(path.parts)
    ]

    assert not outside, "\n".join(outside)


def test_no_test_is_skipped() -> None:
    """What root alone can do may ask who runs it; nothing else excuses a test."""
    skipping = re.compile(r"pytest\.(skip|xfail|importorskip)\(|mark\.(skip|skipif|xfail)\b")
    skipped = [
        place(path, number)
        for path in python_files("tests")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if skipping.search(line) and "os.geteuid()" not in line
    ]

    assert not skipped, "what a machine lacks must fail loudly:\n" + "\n".join(skipped)


def test_no_file_names_a_package_registry() -> None:
    """A machine behind a mirror, or without a way out, must be able to use every file as it is."""
    registry = re.compile(
        rb"//[a-z0-9.-]*(pypi|pythonhosted|npmjs|debian|docker|ghcr|quay)[.](org|com|io)"
    )
    named = [place(path) for path in files() if registry.search(path.read_bytes())]

    assert not named, "\n".join(named)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    own = {f"{ROOT}/"}
    # The folder beside it too, unless that is a place every machine has.
    if ROOT.parent.parts[1:] not in {(), ("tmp",), ("home",), ("root",), ("opt",), ("srv",)}:
        own.add(f"{ROOT.parent}/")
    anybody = re.compile(r"(?<![\w.])/(home|Users)/[a-z]+/")
    named = [
        place(path)
        for path in files()
        if path != Path(__file__)
        for text in [path.read_text(encoding="utf-8", errors="replace")]
        if any(folder in text for folder in own) or anybody.search(text)
    ]

    assert not named, "\n".join(named)


def _nodes(kind: type[ast.ClassDef]) -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in python_files(*OURS):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, kind):
                yield path, node


def _imports(*folders: str) -> Iterator[tuple[Path, ast.Import | ast.ImportFrom]]:
    for path in python_files(*folders):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield path, node


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = (
        [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    )
    return {name.split(".")[0] for name in names}
