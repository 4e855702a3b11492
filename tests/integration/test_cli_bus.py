"""`bus groups` and `bus rebuild` as people and programs call them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from services.embedded import Servers, attach
from tests.command_line import CommandLine, introduce, until

# Their hearing is long ago, so they go the way of the backlog.
STREAM = "{ice.hhs.backlog.0}:out"
OTHER = "{ice.hhs.live.0}:out"
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
    return CommandLine(tmp_path_factory.mktemp("bus") / "home")


@pytest.fixture(scope="module")
def servers(noticebus: CommandLine) -> Iterator[Servers]:
    """Both agencies, who trust each other, with two notices of ICE's on the bus, unread."""
    with attach(noticebus.home) as servers:
        for agency in ("ice", "hhs"):
            assert noticebus(f"--agency {agency} keys generate").code == 0
        for agency in ("ice", "hhs"):
            introduce(noticebus, agency)
        for number in ("A200000417", "A200000418"):
            noticebus.json("notice send", stdin=json.dumps(NOTICE | {"a_number": number}))
        with noticebus.running("ice"):
            until("two entries", lambda: redis(servers).xlen(STREAM) == 2)
        yield servers


def redis(servers: Servers) -> Redis:
    return Redis.from_url(servers.redis_url)


def group(noticebus: CommandLine, agency: str, stream: str) -> dict[str, Any]:
    items = noticebus.json(f"--agency {agency} bus groups")["items"]
    found: dict[str, Any] = next(each for each in items if each["stream"] == stream)
    return found


def test_a_stream_that_nobody_read_says_that_its_group_is_missing(
    noticebus: CommandLine, servers: Servers
) -> None:
    row = group(noticebus, "ice", STREAM)

    assert (row["direction"], row["group"], row["entries"]) == ("out", None, 2)
    assert row["wrong"] == ["group hhs is missing: hhs has not read this stream yet"]
    table = noticebus("--agency hhs bus groups")
    assert table.code == 0
    assert "group hhs is missing" in table.out


def test_a_consumer_that_is_stuck_is_named_and_removed_when_asked(
    noticebus: CommandLine, servers: Servers
) -> None:
    client = redis(servers)
    client.xgroup_create(STREAM, "hhs", id="0")
    client.xreadgroup("hhs", "hhs-7", {STREAM: ">"}, count=1)
    client.xgroup_create(STREAM, "strange", id="0")
    try:
        items = noticebus.json("--agency hhs bus groups")["items"]
        row = next(each for each in items if each["group"] == "hhs")
        assert (row["pending"], row["lag"], row["entries"]) == (1, 1, 2)
        assert row["oldest_pending_age_seconds"] > 0
        assert row["oldest_pending_deliveries"] == 1
        assert row["last_delivered_id"] == row["oldest_pending_id"]
        assert [(c["name"], c["pending"], c["alive"]) for c in row["consumers"]] == [
            ("hhs-7", 1, False)
        ]
        assert "nobody reads: no process that does lives" in row["wrong"]
        assert "hhs-7 (not alive) idle" in noticebus("--agency hhs bus groups -o table").out
        assert any("group strange is none" in each for each in row["wrong"])

        assert noticebus.json("--agency hhs bus groups --remove-idle")["items"] == []
        until("a second of silence", lambda: idle_seconds(client) > 1.1)
        (removed,) = noticebus.json("--agency hhs bus groups --remove-idle --idle 1")["items"]

        assert removed["removed"]
        assert (removed["consumer"], removed["handed_over"], removed["to"]) == ("hhs-7", 1, "hhs-0")
        assert [each["name"] for each in client.xinfo_consumers(STREAM, "hhs")] == [b"hhs-0"]
        lines = noticebus("--agency hhs bus groups -o ndjson").out.splitlines()
        assert all(json.loads(line)["stream"] for line in lines)
    finally:
        client.xgroup_destroy(STREAM, "strange")


def test_rebuild_shows_first_and_does_what_was_confirmed(
    noticebus: CommandLine, servers: Servers
) -> None:
    whole = noticebus.json(f"--agency ice bus rebuild --stream {STREAM}")
    assert (whole["missing"], whole["done"]) == (0, False)
    redis(servers).flushall()

    shown = noticebus(f"--agency ice bus rebuild --stream {STREAM}")
    assert shown.code == 0
    assert "2 messages are missing" in shown.out
    assert "--confirm 2" in shown.err
    assert redis(servers).xlen(STREAM) == 0

    refused = noticebus(f"--agency ice bus rebuild --stream {STREAM} --reason drill")
    assert (refused.code, "NB-5028" in refused.err) == (2, True)
    wrong = noticebus(f"--agency ice bus rebuild --stream {STREAM} --reason drill --confirm 1")
    assert (wrong.code, "NB-5024" in wrong.err) == (9, True)
    assert redis(servers).xlen(STREAM) == 0

    done = noticebus.json(f"--agency ice bus rebuild --stream {STREAM} --reason drill --confirm 2")
    assert (done["done"], done["missing_before"], done["published"]) == (True, 2, 2)
    assert (done["missing"], done["void"], done["published_by"]) == (0, 0, "this command")
    assert redis(servers).xlen(STREAM) == 2
    again = noticebus.json(f"--agency ice bus rebuild --stream {STREAM} --reason drill --confirm 0")
    assert (again["done"], again["missing"]) == (False, 0)


def test_rebuild_of_one_stream_leaves_the_others(noticebus: CommandLine, servers: Servers) -> None:
    redis(servers).flushall()

    done = noticebus.json(f"--agency ice bus rebuild --stream {OTHER}")

    assert done["missing"] == 0
    assert [each["stream"] for each in done["streams"]] == [OTHER]
    row = group(noticebus, "ice", STREAM)
    assert row["entries"] is None
    assert "2 messages" in row["wrong"][0]
    assert noticebus(f"--agency ice bus rebuild --stream {STREAM} --reason x --confirm 2").code == 0


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("--agency ice bus rebuild --stream nowhere", 3, "NB-5026"),
        ("--agency hhs bus rebuild --stream {ice.hhs.live.0}:out", 3, "NB-5026"),
        ("--agency ice bus rebuild --confirm 5", 2, "NB-7011"),
        ("--agency ice bus rebuild --reason x --confirm -1", 2, "NB-7011"),
        ("--agency ice bus rebuild --reason x --confirm many", 2, "NB-7011"),
        ("--agency ice bus groups --idle 5", 2, "NB-7011"),
        ("--agency ice bus groups --remove-idle --idle 0", 2, "NB-7011"),
        ("bus rebuild", 2, "NB-7001"),
    ],
)
def test_bad_input(
    noticebus: CommandLine, servers: Servers, line: str, code: int, error: str
) -> None:
    done = noticebus(line)

    assert (done.code, done.out) == (code, "")
    assert error in done.err


def test_rebuild_without_redis_is_exit_7(noticebus: CommandLine, servers: Servers) -> None:
    away = CommandLine(noticebus.home, {"NOTICEBUS_REDIS_URL": "redis://127.0.0.1:1/0"})

    done = away("--agency ice bus rebuild")

    assert (done.code, "NB-5002" in done.err) == (7, True)


def idle_seconds(client: Redis) -> float:
    consumers: Any = client.xinfo_consumers(STREAM, "hhs")
    return min(float(each["idle"]) / 1000 for each in consumers)


def test_how_much_a_running_agency_says_is_set(noticebus: CommandLine, servers: Servers) -> None:
    written = noticebus.home / "ice.log"
    usual = written.read_text(encoding="utf-8")
    chatty = CommandLine(noticebus.home, {"NOTICEBUS_LOG_LEVEL": "DEBUG"})

    with chatty.running("ice"):
        until("a line for programmers", lambda: '"level": "debug"' in written.read_text())

    assert '"agency runs"' in usual
    assert '"level": "debug"' not in usual
    refused = CommandLine(noticebus.home, {"NOTICEBUS_LOG_LEVEL": "LOUD"})("run ice")
    assert (refused.code, "NOTICEBUS_LOG_LEVEL" in refused.err) == (2, True)
