"""Whether our streams are read, as `doctor` and `bus groups` say: by the processes that live."""

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.embedded import attach
from tests.command_line import COMMAND_SECONDS, CommandLine, introduce, until

# One of today's and one of long ago, which goes the way of the backlog.
HEARINGS = {
    "A200000417": (datetime.now(UTC) - timedelta(days=4)).strftime("%Y-%m-%dT09:00"),
    "A200000418": "2026-03-03T09:00",
}
NOTICE = {"family_name": "Child", "birth_date": "2012-05-04", "court": "HOU", "office": "HOU"}
INCOMING = [f"{{ice.hhs.{lane}.0}}:out" for lane in ("live", "backlog", "control")]


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Both agencies knew each other, HHS took something from every stream, and both have ended."""
    noticebus = CommandLine(tmp_path_factory.mktemp("readers") / "home")
    with attach(noticebus.home):
        for agency in ("ice", "hhs"):
            assert noticebus(f"--agency {agency} keys generate").code == 0
        for agency in ("ice", "hhs"):
            introduce(noticebus, agency)
        for number, hearing in HEARINGS.items():
            said = NOTICE | {"a_number": number, "hearing": hearing}
            noticebus.json("notice send", stdin=json.dumps(said))
        with noticebus.running("ice"), noticebus.running("hhs"):
            until("something taken from every stream", lambda: all_taken(noticebus))
    return noticebus


def incoming(noticebus: CommandLine) -> list[dict[str, Any]]:
    """Return what HHS sees of the streams to it, by name."""
    rows = noticebus.json("--agency hhs bus groups")["items"]
    return [row for row in rows if row["direction"] == "in"]


def all_taken(noticebus: CommandLine) -> bool:
    rows = incoming(noticebus)
    return len(rows) == len(INCOMING) and all(
        row["entries"] and (row["lag"], row["pending"]) == (0, 0) for row in rows
    )


def readers(noticebus: CommandLine) -> dict[str, str]:
    """Return what `doctor` at HHS finds about readers; it fails when nobody reads."""
    done = noticebus("--agency hhs doctor -o json")
    found: dict[str, str] = next(each for each in done.data["items"] if each["check"] == "readers")
    assert (done.code, found["state"]) in {(0, "ok"), (1, "problem")}, done.out
    return found


def sealed(noticebus: CommandLine) -> bool:
    return bool(noticebus.json("--agency hhs ledger verify")["unsealed"] == 0)


def alive(noticebus: CommandLine) -> dict[str, list[bool]]:
    """Return whether each consumer of each stream to HHS is alive, as HHS sees it."""
    return {
        row["stream"]: [consumer["alive"] for consumer in row["consumers"]]
        for row in incoming(noticebus)
    }


def test_after_every_process_ended_nobody_reads_though_the_servers_have_just_started(
    noticebus: CommandLine,
) -> None:
    """Servers that nobody uses have ended; each command starts them anew, and with them the time
    since when Redis knows a consumer as silent."""
    found = readers(noticebus)

    assert found["state"] == "problem"
    assert all(stream in found["detail"] for stream in INCOMING)
    assert "noticebus run" in found["fix"]
    assert alive(noticebus) == {stream: [False] for stream in INCOMING}
    for row in incoming(noticebus):
        assert row["wrong"] == ["nobody reads: no process that does lives"]
    status = noticebus.json("--agency hhs bus status")["streams"]
    assert {row["consumers"] for row in status if row["direction"] == "in"} == {0}


def test_while_a_process_lives_its_streams_are_read_and_after_kill_9_they_are_not(
    noticebus: CommandLine,
) -> None:
    with attach(noticebus.home):
        process = noticebus.start("run hhs")
        try:
            until("readers", lambda: readers(noticebus)["state"] == "ok")
            assert alive(noticebus) == {stream: [True] for stream in INCOMING}

            process.kill()
            process.communicate(timeout=COMMAND_SECONDS)

            # Redis heard of it a moment ago; the database has seen its connection end.
            found = readers(noticebus)
        finally:
            process.kill()
            process.communicate(timeout=COMMAND_SECONDS)

        assert found["state"] == "problem"
        assert all(stream in found["detail"] for stream in INCOMING)
        assert alive(noticebus) == {stream: [False] for stream in INCOMING}


def test_a_second_process_reads_on_when_the_first_was_killed(noticebus: CommandLine) -> None:
    with attach(noticebus.home):
        first = noticebus.start("run hhs")
        try:
            until("readers", lambda: readers(noticebus)["state"] == "ok")
            with noticebus.running("hhs"):
                until("two readers", lambda: alive(noticebus)[INCOMING[0]] == [True, True])

                first.kill()
                first.communicate(timeout=COMMAND_SECONDS)

                assert readers(noticebus)["state"] == "ok"
                assert alive(noticebus) == {stream: [False, True] for stream in INCOMING}
        finally:
            first.kill()
            first.communicate(timeout=COMMAND_SECONDS)


def test_a_process_that_only_sends_reads_nothing(noticebus: CommandLine) -> None:
    with attach(noticebus.home):
        noticebus.json("queue take")
        assert not sealed(noticebus)
        process = noticebus.start("run hhs --only relay,sealer")
        try:
            until("the seal", lambda: sealed(noticebus))

            assert readers(noticebus)["state"] == "problem"
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=COMMAND_SECONDS)
