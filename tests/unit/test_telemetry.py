"""Lines, metrics and health: nothing personal leaves the process, and readiness tells the truth."""

import io
import json
import logging
import sqlite3
import sys
from collections.abc import Iterator
from typing import NoReturn
from uuid import UUID

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas import notice
from schemas.errors import UnavailableError
from services import telemetry
from services.settings import HttpSettings
from services.telemetry.health import HealthServer, Probe, ProbeCall
from services.telemetry.metrics import MESSAGES_PUBLISHED
from services.telemetry.redaction import mask


class Child(BaseModel):
    a_number: str


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    written = io.StringIO()
    telemetry.configure(agency="ice", process="relay", stream=written)
    yield written
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def last(lines: io.StringIO) -> dict[str, object]:
    line: dict[str, object] = json.loads(lines.getvalue().splitlines()[-1])
    return line


def test_a_line_is_json_with_utc_time_agency_and_process(lines: io.StringIO) -> None:
    structlog.get_logger().info("notice delivered", attempt=2)

    line = last(lines)
    assert str(line["time"]).endswith("Z")
    assert (line["event"], line["attempt"], line["level"]) == ("notice delivered", 2, "info")
    assert (line["agency"], line["process"]) == ("ice", "relay")


def test_below_its_level_a_line_is_neither_written_nor_looked_through(lines: io.StringIO) -> None:
    class Costly(dict[str, object]):
        def items(self) -> NoReturn:
            pytest.fail("looked through")

    telemetry.configure(agency="ice", process="relay", level="WARNING", stream=lines)
    log = structlog.get_logger()

    log.info("messages taken", row=Costly(count=1))
    log.warning("reader waits")

    assert [json.loads(line)["event"] for line in lines.getvalue().splitlines()] == ["reader waits"]


def test_personal_fields_are_dropped_at_any_depth(lines: io.StringIO) -> None:
    structlog.get_logger().warning(
        "row skipped",
        a_number="A200000417",
        row={"given_name": "Luz", "address_line1": "1 Elm", "file": "crosswalk.csv"},
        child=Child(a_number="A200000417"),
        payload=b"{}",
    )

    text = lines.getvalue()
    assert "crosswalk.csv" in text
    for secret in ("200000417", "Luz", "Elm"):
        assert secret not in text


@pytest.mark.parametrize(
    "field",
    sorted((notice.PERSONAL_FIELDS - {"state"}) | {"address_line1", "address_zip", "Line1"}),
)
def test_every_personal_field_of_a_notice_is_dropped(lines: io.StringIO, field: str) -> None:
    structlog.get_logger().warning("row skipped", row={field: "Invented"}, **{field: "Invented"})

    assert "Invented" not in lines.getvalue()


def test_where_a_notice_stands_stays_readable(lines: io.StringIO) -> None:
    structlog.get_logger().info("notice recorded", state="recorded")

    assert last(lines)["state"] == "recorded"


@pytest.mark.parametrize(
    "spelling",
    [
        "A200000417", "a200000417", "A 200 000 417", "A-200-000-417", "A20000417", "200-000-417",
        "200 000 417", "200000417", "20000417", "A#200000417", "A2000417",
    ],
)  # fmt: skip
def test_a_numbers_are_masked_in_any_spelling(spelling: str) -> None:
    assert spelling not in mask(f"child {spelling} missed")


@pytest.mark.parametrize(
    "harmless",
    [
        "01934567-1234-7890-8234-567890123456", "2026-11-23T21:04:05.123456Z",
        "1732395845123-0", "{ice.hhs.live.0}:out", "NB-5001", "0.123456789",
    ],
)  # fmt: skip
def test_ids_times_and_entries_stay_readable(harmless: str) -> None:
    assert mask(harmless) == harmless


@given(st.integers(0, 999_999_999), st.sampled_from(["A", "a", "A-", "A "]), st.text(max_size=5))
def test_no_a_number_survives_whatever_stands_around_it(
    number: int, prefix: str, around: str
) -> None:
    digits = f"{number:09d}"

    assert digits not in mask(f"{around} {prefix}{digits} {around}")


def test_an_error_is_told_without_its_message(lines: io.StringIO) -> None:
    """Database errors quote the row they reject."""
    cause = sqlite3.IntegrityError("Key (name)=(Luz Invented) already exists")

    def store() -> None:
        raise UnavailableError("NB-5001", reason="away") from cause

    try:
        store()
    except UnavailableError:
        structlog.get_logger().exception("store away")

    line = last(lines)
    assert "Luz" not in lines.getvalue()
    assert "NB-5001" in str(line["error"])
    assert "IntegrityError" in str(line["error"])
    assert "test_telemetry.py" in str(line["places"])


def test_lines_of_libraries_are_redacted_too(lines: io.StringIO) -> None:
    logging.getLogger("some.library").warning("bad row %s at redis://u:pw@h", "A200000417")

    assert "200000417" not in lines.getvalue()
    assert ":pw@" not in lines.getvalue()


def test_a_crash_is_one_line_without_values(lines: io.StringIO) -> None:
    error = ValueError("Luz Invented, A200000417")

    sys.excepthook(type(error), error, None)

    line = last(lines)
    assert line["event"] == "process crashed"
    assert line["error"] == "ValueError"
    assert "Luz" not in lines.getvalue()


def test_ids_are_written_as_text(lines: io.StringIO) -> None:
    notice_id = UUID("01934567-1234-7890-8234-567890123456")

    structlog.get_logger().info("notice recorded", notice_id=notice_id)

    assert last(lines)["notice_id"] == str(notice_id)


async def get(server: HealthServer, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=5) as client:
        return await client.get(path)


async def test_ready_names_the_part_that_is_not() -> None:
    state = {"reader": Probe(ok=True, detail="reading")}

    async def store() -> Probe:
        return Probe(ok=True, detail="answers")

    probes: dict[str, ProbeCall] = {"reader": lambda: state["reader"], "store": store}
    async with HealthServer(HttpSettings(port=0), probes) as server:
        good = await get(server, "/ready")
        state["reader"] = Probe(ok=False, detail="stopped")
        bad = await get(server, "/ready")
        live = await get(server, "/health")

    assert good.status_code == 200
    assert bad.status_code == 503
    assert bad.json()["probes"]["reader"] == {"ok": False, "detail": "stopped"}
    assert live.status_code == 200


async def test_a_probe_that_fails_is_not_ready() -> None:
    def away() -> Probe:
        raise UnavailableError("NB-5001", reason="connection refused")

    async with HealthServer(HttpSettings(port=0), {"store": away}) as server:
        answer = await get(server, "/ready")

    assert answer.status_code == 503
    assert "NB-5001" in answer.json()["probes"]["store"]["detail"]


async def test_a_bug_in_a_probe_is_never_ready() -> None:
    def broken() -> Probe:
        raise KeyError("reader")

    async with HealthServer(HttpSettings(port=0), {"reader": broken}) as server:
        answer = await get(server, "/ready")

    assert answer.status_code == 500


async def test_metrics_bring_gauges_up_to_date_and_survive_a_store_that_is_away() -> None:
    async def away() -> None:
        raise UnavailableError("NB-5001", reason="away")

    MESSAGES_PUBLISHED.labels(lane="live", kind="fta").inc()
    async with HealthServer(HttpSettings(port=0), {}, refreshes=[away]) as server:
        answer = await get(server, "/metrics")

    assert 'noticebus_messages_published_total{kind="fta",lane="live"}' in answer.text


async def test_a_port_that_is_taken_is_an_error_with_a_fix() -> None:
    async with HealthServer(HttpSettings(port=0), {}) as first:
        second = HealthServer(HttpSettings(port=first.port), {})

        with pytest.raises(UnavailableError) as caught:
            await second.start()

    assert caught.value.code == "NB-9040"


async def test_without_a_port_nothing_is_served() -> None:
    async with HealthServer(HttpSettings(port=None), {}) as server:
        assert server.port is None
