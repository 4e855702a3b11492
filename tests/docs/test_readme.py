"""What README and companions name is there: commands, targets, services, variables, files."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup, TyperOption

from services import cli
from services.cli.exits import ExitCode
from services.settings import Settings, unknown_variables

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md", "dockets/README.md"),
    *("docs/replay-library.md", "docs/stolen-key.md"),
)
# Read outside `Settings`: by compose.yaml itself.
COMPOSE_VARIABLES = {"NOTICEBUS_DOCKETS"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def compose() -> dict[str, Any]:
    """Return compose.yaml as data; anchors are merged."""
    loaded: dict[str, Any] = yaml.safe_load(text_of("compose.yaml"))
    return loaded


def code_lines(page: str) -> Iterator[str]:
    """Yield the lines of a page's code, indented or fenced, without their remarks."""
    fenced = False
    for line in text_of(page).splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.partition(" # ")[0].strip()


def command_lines() -> list[str]:
    """Return every `noticebus` command line that a page shows, in code or in running text."""
    found = []
    for page in PAGES:
        quoted = re.findall(r"`([^`\n]+)`", text_of(page))
        found += [line for line in quoted if line.split()[0] in cli.COMMANDS]
        for line in [*code_lines(page), *quoted]:
            before, here, after = line.partition("noticebus ")
            if here and re.fullmatch(r"(.*[ /])?", before) and not before.startswith("python"):
                found.append(after)
    demo = compose()["services"]["demo"]["command"][0]
    found += re.findall(r"noticebus (.+?)(?: [|)]+ .*|\)?)$", demo, re.MULTILINE)
    return sorted(set(found))


@pytest.mark.parametrize("line", command_lines())
def test_command_is_there(line: str) -> None:
    group = typer.main.get_command(cli.app)
    assert isinstance(group, cli.Nouns)
    words = iter(shlex.split(line))
    options = [param for param in group.params if isinstance(param, TyperOption)]
    taking = {name for param in options for name in param.opts if not param.is_flag}
    flags = {name for param in options for name in param.opts} | {"--help"}

    noun = ""
    for word in words:
        if word in taking:
            next(words)
        elif word not in flags:
            noun = word
            break
    if not noun:
        return
    command = group.get_command(None, noun)
    assert command is not None, noun
    if isinstance(command, TyperGroup):
        verb = next(words, None)
        if verb is None:
            return
        assert verb in command.commands, f"{noun} {verb}"
        command = command.commands[verb]
    known = {name for param in command.params for name in param.opts}
    assert {word for word in words if word.startswith("-")} <= known | {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_are_there(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^ +|^|`)make ([a-z-]+)", text_of(page), re.MULTILINE))

    assert named <= targets


def test_makefile_lists_every_target_with_its_purpose() -> None:
    makefile = text_of("Makefile")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony

    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):.* ## ", makefile, re.MULTILINE))


def test_readme_lists_the_services_of_compose() -> None:
    section = text_of("README.md").partition("## Real services")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)

    listed = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}

    always = {name for name, each in compose()["services"].items() if "profiles" not in each}
    assert listed == always


def test_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(NOTICEBUS_\w+)` \| (.*?) \|", text_of("README.md"), re.MULTILINE)
    )
    shown = Settings(agency="ice").shown()

    assert set(shown) <= set(rows)
    assert unknown_variables(rows) == []
    wrong = {
        name: (rows[name], value)
        for name, value in shown.items()
        if isinstance(value, int | float) and float(rows[name]) != value
    }
    assert not wrong


def test_compose_sets_only_variables_that_are_read() -> None:
    text = text_of("compose.yaml")
    asked = set(re.findall(r"NOTICEBUS_[A-Z_]+", text)) - COMPOSE_VARIABLES

    assert unknown_variables(dict.fromkeys(asked, "")) == []


def test_readme_lists_the_exit_codes() -> None:
    listed = re.search(r"Exit codes: ([^|]*?)\.\n", text_of("README.md"))
    assert listed

    assert [int(code) for code in re.findall(r"\b\d+\b", listed[1])] == sorted(ExitCode)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        if target.startswith("#"):
            anchors = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
            assert target[1:] in {a.lower().replace(" ", "-") for a in anchors}, target
        elif "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target
    for path in re.findall(r"`((?:schemas|services|tests)/[\w./-]+)`", text_of(page)):
        place = ROOT / path
        assert place.exists() or place.with_suffix(".py").exists(), path
