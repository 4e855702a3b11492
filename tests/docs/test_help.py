"""Every command has a help that works, and nothing is offered that is not there."""

from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from services import cli

# What the guide promises; a verb that is added stands here too.
VERBS = {
    "demo": [],
    "run": [],
    "docket": ["import", "synthesize"],
    "notice": ["send", "list", "show", "trace", "confirm", "dismiss", "correct", "withdraw"],
    "queue": ["list", "take", "release", "outcome"],
    "overdue": [],
    "watch": [],
    "report": ["usage"],
    "dead": ["list", "show", "redrive", "discard"],
    "replay": ["plan", "approve", "run", "pause", "list", "show", "cancel"],
    "ledger": ["verify", "anchor", "conflicts", "checkpoint", "export"],
    "proof": ["build", "verify", "absence"],
    "keys": ["generate", "show", "rotate", "revoke", "index"],
    "party": ["export", "trust", "list"],
    "token": ["create", "list", "revoke"],
    "bus": ["status", "groups", "rebuild"],
    "schema": ["list", "show", "check", "export"],
    "db": ["migrate", "backup", "restore", "archive", "erase", "seen"],
    "doctor": [],
    "config": ["show"],
    "version": [],
}
EVERYWHERE = ("--agency", "--home", "--output", "--as", "--yes", "--quiet", "--verbose")


def lines() -> Iterator[list[str]]:
    yield []
    for noun, verbs in VERBS.items():
        yield [noun]
        yield from ([noun, verb] for verb in verbs)


@pytest.mark.parametrize("words", list(lines()), ids=lambda words: " ".join(words) or "noticebus")
def test_help_works_and_says_what_for(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute([*words, "--help"]) == 0

    told = capsys.readouterr()
    assert f"Usage: {' '.join(['noticebus', *words])}" in told.out
    assert "[[" not in told.out, "what may be left out has brackets already"
    assert told.err == ""


def test_the_list_of_commands_is_complete() -> None:
    assert list(VERBS) == list(cli.COMMANDS)


@pytest.mark.parametrize("noun", VERBS)
def test_verbs_are_those_of_the_list_and_take_the_options_of_all(noun: str) -> None:
    root = typer.main.get_command(cli.app)
    assert isinstance(root, cli.Nouns)
    command = root.get_command(None, noun)

    verbs = list(command.commands.values()) if isinstance(command, TyperGroup) else [command]

    assert isinstance(command, TyperCommand | TyperGroup)
    assert [each.name for each in verbs] == (VERBS[noun] or [noun])
    for each in verbs:
        taken = {name for param in each.params for name in param.opts}
        assert taken.issuperset(EVERYWHERE), each.name
        assert each.help
