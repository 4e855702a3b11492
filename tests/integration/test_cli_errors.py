"""What goes wrong on the command line: exit code, code, words, and nothing personal in them."""

import json
from collections.abc import Iterator

import psycopg
import pytest

from services.embedded import Servers, attach
from tests.command_line import CommandLine, until

NOTICE = {
    "a_number": "A200000417",
    "family_name": "Child",
    "birth_date": "2012-05-04",
    "court": "HOU",
    "office": "HOU",
    "hearing": "2026-03-03T09:00",
}


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("errors") / "home")


@pytest.fixture(scope="module")
def servers(noticebus: CommandLine) -> Iterator[Servers]:
    with attach(noticebus.home) as servers:
        assert noticebus("--agency ice keys generate").code == 0
        assert noticebus("--agency ice party export").code == 0
        yield servers


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"a_number": "A20000041X"}, "NB-1001"),
        ({"court": "XXX"}, "NB-1003"),
        ({"hearing": "2036-03-03T09:00"}, "NB-1073"),
        ({"hearing": "tomorrow"}, "NB-1072"),
        ({"birth_date": ""}, "NB-1070"),
        ({"Secret Name": "x"}, "NB-1071"),
    ],
)
def test_input_that_is_wrong_names_field_and_fix(
    noticebus: CommandLine, servers: Servers, change: dict[str, str], code: str
) -> None:
    done = noticebus("notice send", stdin=json.dumps(NOTICE | change))

    assert done.code == 2
    assert done.out == ""
    assert f"{code}: " in done.err
    assert "fix: " in done.err
    for value in change.values():
        assert not value or value not in done.err or value == "x"


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"a": NaN'])
def test_standard_input_that_is_no_notice_is_wrong_input(
    noticebus: CommandLine, servers: Servers, text: str
) -> None:
    done = noticebus("notice send", stdin=text)

    assert done.code == 2
    assert "NB-700" in done.err


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("notice show 0123456789", 3),
        ("notice trace 0123456789 --agency ice", 3),
        ("queue take 0123456789", 3),
        ("--agency ice dead show 0123456789", 3),
        ("--agency ice replay run 0123456789 --reason x", 3),
        ("--agency hhs keys show", 3),
        ("--agency ice ledger checkpoint", 3),
        ("notice list", 0),
        ("queue list", 0),
        ("--agency ice dead list", 0),
        ("overdue --agency ice --fail-on any", 0),
        ("notice list --state lost", 2),
        ("--agency hhs notice list", 2),
        ("notice list --since soon", 2),
        ("notice list --since 2026-12-01 --until 2026-01-01", 2),
        ("notice list --office HSTN", 2),
        ("notice list --lane fast", 2),
        ("notice show %", 3),
        ("report usage --since 7d --until 8d", 2),
        ("queue list --office HSTN", 2),
        ("--agency ice overdue --office HSTN", 2),
        ("--agency hhs run ice", 2),
        ("--agency ice dead redrive --reason x", 2),
        ("--agency ice keys generate", 9),
    ],
)
def test_exit_codes(noticebus: CommandLine, servers: Servers, line: str, code: int) -> None:
    done = noticebus(line)

    assert done.code == code, done.err
    assert ("NB-" in done.err) == (code != 0)


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("NOTICEBUS_REDIS_URL", "redis://127.0.0.1:1/0"),
        ("NOTICEBUS_DATABASE_URL", "postgresql://127.0.0.1:1/ice?connect_timeout=2"),
    ],
)
def test_a_server_that_is_away_is_exit_7(
    noticebus: CommandLine, servers: Servers, variable: str, url: str
) -> None:
    away = CommandLine(noticebus.home, {variable: url})

    done = away("--agency ice bus status")

    assert done.code == 7, done.err
    assert "NB-500" in done.err


def test_a_party_file_whose_fingerprint_differs_is_not_trusted(
    noticebus: CommandLine, servers: Servers
) -> None:
    file = noticebus.home / "own.json"
    assert noticebus(f"--agency ice party export {file}").code == 0

    assert noticebus(f"--agency hhs party trust {file}").code in {2, 3}
    done = noticebus(f"--agency ice party trust {file} --fingerprint sha256:00")

    assert done.code == 4
    assert "NB-4012" in done.err


def test_what_is_late_fails_on_demand(noticebus: CommandLine, servers: Servers) -> None:
    sent = noticebus.json("notice send", stdin=json.dumps(NOTICE | {"a_number": "A200000499"}))
    with psycopg.connect(servers.database_urls["ice"]) as connection:
        connection.execute("UPDATE notice_revision SET made_at = made_at - interval '1 day'")
        connection.execute("UPDATE obligation SET detected_at = detected_at - interval '1 day'")

    done = noticebus("--agency ice overdue --fail-on any -o json")

    assert done.code == 8
    late = {item["notice_id"]: item["stage"] for item in done.data["items"]}
    assert late[sent["notice_id"]] == "receipt"


def test_a_record_that_was_changed_fails_verification(
    noticebus: CommandLine, servers: Servers
) -> None:
    """Needs a sealed record, so the sealer runs for a moment."""
    with noticebus.running("ice"):
        until("a checkpoint", lambda: noticebus("--agency ice ledger checkpoint").code == 0)
    assert noticebus("--agency ice ledger verify").code == 0
    with psycopg.connect(servers.database_urls["ice"], autocommit=True) as connection:
        connection.execute("ALTER TABLE record DISABLE TRIGGER append_only")
        connection.execute(
            "UPDATE record SET record = set_byte(record, 12, get_byte(record, 12) # 1)"
            " WHERE record_id = (SELECT record_id FROM log_entry ORDER BY record_index LIMIT 1)"
        )

    done = noticebus("--agency ice ledger verify -o json")

    assert done.code == 6
    assert not done.data["valid"]
    assert done.data["difference"]["code"] in done.err
