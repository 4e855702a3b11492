"""When a case is due: seconds, working days in Washington, and what a backlog is given."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas import codes
from schemas.codes.entries import Clock
from schemas.envelope import Lane
from schemas.notice import Priority
from services.hhs.clocks import due_after, outcome_due, take_due

MONDAY = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)


def test_seconds_run_through_nights_and_weekends() -> None:
    friday = MONDAY - timedelta(days=3)

    assert due_after(Clock(seconds=86_400), friday) == friday + timedelta(days=1)


@pytest.mark.parametrize(
    ("start", "working_days", "due"),
    [
        ("2026-11-23T15:00", 1, "2026-11-24T15:00"),
        ("2026-11-20T15:00", 1, "2026-11-23T15:00"),
        # A Saturday counts as the first moment of Monday in Washington, 05:00 UTC.
        ("2026-11-21T15:00", 1, "2026-11-24T05:00"),
        # Saturday in UTC is still Friday evening in Washington.
        ("2026-11-21T03:00", 1, "2026-11-24T03:00"),
        ("2026-11-19T15:00", 3, "2026-11-24T15:00"),
        # The clocks go back on 1 November: the same hour in Washington is an hour later in UTC.
        ("2026-10-30T14:00", 1, "2026-11-02T15:00"),
    ],
)
def test_working_days_are_washingtons(start: str, working_days: int, due: str) -> None:
    begun = datetime.fromisoformat(start).replace(tzinfo=UTC)

    assert due_after(Clock(working_days=working_days), begun) == datetime.fromisoformat(
        due
    ).replace(tzinfo=UTC)


def test_an_urgent_case_is_due_no_later_than_a_routine_one_and_a_backlog_has_longer() -> None:
    policy, friday = codes.policy(), MONDAY - timedelta(days=3)

    def due(priority: Priority, lane: Lane) -> datetime:
        return take_due(policy, priority=priority, lane=lane, opened_at=friday)

    assert due(Priority.URGENT, Lane.LIVE) < due(Priority.ROUTINE, Lane.LIVE)
    assert due(Priority.ROUTINE, Lane.BACKLOG) == outcome_due(policy, opened_at=friday)
