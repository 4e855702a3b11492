"""Hold the times in records to those at which others saw the log: nothing is backdated.

A cosignature says that a log of so many records stood at a time that its witness wrote. A record
below that size was there by then, so it cannot be later; one above it came after everything below,
so it cannot be earlier than what was there already. Both with 5 minutes of grace, for two clocks.

A witness that was away cosigns late, and then what is above its size may well be older than its
word. So the floor is its time or the latest time of a record that it saw, whichever is earlier.
One kind of record is older than what is around it and honest: the effect of a message that waited.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schemas.canonical import format_time
from schemas.errors import EvidenceError
from services.ledger.store.audit import Entry

GRACE = timedelta(minutes=5)

# Whether a record is the effect of a message that waited, and bears exactly the time it came at.
Came = Callable[[Entry], Awaitable[bool]]


@dataclass(slots=True)
class Times:
    """One walk along a log in index order; `seen` are verified (size, time), in any order.

    The effect of a message that was held or redriven is recorded when it happens, and bears the
    time at which the message came: `came` finds the record of its arrival that says so.
    """

    seen: Sequence[tuple[int, datetime]]
    came: Came
    _sizes: list[int] = field(default_factory=list, init=False)
    _by: list[datetime] = field(default_factory=list, init=False)
    _at: list[datetime] = field(default_factory=list, init=False)
    _next: int = field(default=0, init=False)
    _latest: datetime | None = field(default=None, init=False)
    _floor: datetime | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        first: dict[int, datetime] = {}
        for size, at in self.seen:
            first[size] = min(at, first.get(size, at))
        self._sizes = sorted(first)
        self._at = [first[size] for size in self._sizes]
        # Whoever saw more saw this too: the earliest of all sizes from here on.
        self._by = list(self._at)
        for place in range(len(self._by) - 2, -1, -1):
            self._by[place] = min(self._by[place], self._by[place + 1])

    async def check(self, entry: Entry) -> None:
        """Take the next record of the log, which says what its columns do.

        Raises `EvidenceError` NB-3160 for one out of time.
        """
        index, at = entry.index, entry.recorded_at
        while self._next < len(self._sizes) and self._sizes[self._next] <= index:
            if self._latest is not None:
                floor = min(self._at[self._next], self._latest)
                self._floor = floor if self._floor is None else max(floor, self._floor)
            self._next += 1
        if self._latest is None or at > self._latest:
            self._latest = at
        if self._next < len(self._by) and at > self._by[self._next] + GRACE:
            seen = self._by[self._next]
            raise EvidenceError("NB-3160", index=index, at=format_time(at), seen=format_time(seen))
        floor_ = self._floor
        if floor_ is not None and at < floor_ - GRACE:
            if await self.came(entry):
                return
            raise EvidenceError(
                "NB-3160", index=index, at=format_time(at), seen=format_time(floor_)
            )
