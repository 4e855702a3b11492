"""When a case is due: the policy's clocks on HHS's calendar.

Working days are Monday to Friday in Washington; federal holidays count as working days until the
policy lists them, so that a clock errs on the early side. A working day ends when as much of it has
passed as had passed on the day the clock started: due on the next working day at the same hour.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from schemas.codes import Policy
from schemas.codes.entries import Clock
from schemas.envelope import Lane
from schemas.notice import Priority

_CALENDAR = ZoneInfo("America/New_York")
_SATURDAY = 5


def due_after(clock: Clock, start: datetime) -> datetime:
    """Return when a clock that started at `start` (aware) ends, in UTC."""
    if clock.seconds is not None:
        return start.astimezone(UTC) + timedelta(seconds=clock.seconds)
    local = start.astimezone(_CALENDAR)
    # A clock that starts on a day off starts with the next working day.
    while local.weekday() >= _SATURDAY:
        local = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    left = clock.working_days or 0
    while left:
        local += timedelta(days=1)
        if local.weekday() < _SATURDAY:
            left -= 1
    return local.astimezone(UTC)


def take_due(policy: Policy, *, priority: Priority, lane: Lane, opened_at: datetime) -> datetime:
    """Return by when somebody should have taken a case.

    An urgent one never later than its first action is due. A backlog has the time of an outcome:
    tens of thousands that arrive at once would else be overdue together, and hide today's children.
    """
    if lane is Lane.BACKLOG:
        return due_after(policy.clocks["outcome"], opened_at)
    due = due_after(policy.clocks["disposition"], opened_at)
    if priority is Priority.URGENT:
        due = min(due, due_after(policy.clocks["action_urgent"], opened_at))
    return due


def outcome_due(policy: Policy, *, opened_at: datetime) -> datetime:
    """Return by when a case that somebody took should have its outcome; taking restarts nothing."""
    return due_after(policy.clocks["outcome"], opened_at)
