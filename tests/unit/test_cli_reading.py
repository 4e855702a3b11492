"""What people type and read: times, ages, durations, streams."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.errors import RejectedError
from services.bus.status import ConsumerStatus, GroupStatus
from services.cli.bus import stream_rows
from services.cli.report import moment, span
from services.exchange.seen import Seen
from services.exchange.store.standing import Standing
from services.exchange.troubles import entered_at

STANDING = Standing(
    unsent=0,
    unanswered=0,
    overdue=0,
    oldest_unanswered=None,
    republish=0,
    gap_sequences=0,
    voided_sequences=0,
    held=0,
    dead=0,
    alarms=0,
    conflicts=0,
    unsealed=0,
    ledger_size=0,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T14:00Z", datetime(2026, 11, 23, 14, tzinfo=UTC)),
        ("2026-11-23T09:00-05:00", datetime(2026, 11, 23, 14, tzinfo=UTC)),
        ("2026-11-23 14:00", datetime(2026, 11, 23, 14, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str | None, said: datetime | None) -> None:
    assert moment(text) == said


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("4w", timedelta(weeks=4)),
    ],
)
def test_ages_count_back_from_now(text: str, age: timedelta) -> None:
    said = moment(text)

    assert said is not None
    assert abs(datetime.now(UTC) - age - said) < timedelta(seconds=10)


@pytest.mark.parametrize("text", ["soon", "7", "d", "7y", "2026-13-01", "-7d", "", "9" * 30 + "d"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(RejectedError) as caught:
        moment(text)

    assert caught.value.code == "NB-7005"
    assert "7d" in caught.value.fix


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (59, "59 s"),
        (346, "5 m 46 s"),
        (7_800, "2 h 10 m"),
        (187_200, "2 d 04 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_an_entry_id_tells_when_it_was_added() -> None:
    assert entered_at("1795467727123-4") == datetime(2026, 11, 23, 21, 2, 7, 123_000, tzinfo=UTC)
    assert entered_at(None) is None


def test_a_stream_that_nobody_reads_is_shown_all_the_same() -> None:
    group = GroupStatus(
        stream="{ice.hhs.live.0}:out",
        group="hhs",
        length=7,
        lag=2,
        pending=1,
        oldest_pending_id="1795467727123-0",
        last_delivered_id="1795467727123-0",
        consumers=(ConsumerStatus("hhs-0", 1, 0.5), ConsumerStatus("hhs-1", 0, 9_999.0)),
    )

    rows = stream_rows(
        Seen(
            agency="ice",
            standing=STANDING,
            outgoing=["{ice.hhs.live.0}:out"],
            incoming=["{hhs.ice.live.0}:out"],
            groups=[group],
        )
    )

    assert [(row["direction"], row["lag"], row["consumers"]) for row in rows] == [
        ("out", 2, 1),
        ("in", None, 0),
    ]
