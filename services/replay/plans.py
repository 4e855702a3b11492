"""A replay as it was looked at, and how far it has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from services.exchange.recorded import Standing
from services.replay.places import Place, Target
from services.replay.selection import Selection


@dataclass(slots=True)
class Counts:
    """How many events stand how; in a run, how many stood so when their turn came."""

    new: int = 0
    same: int = 0
    changed: int = 0
    blocked: int = 0

    def add(self, standing: Standing) -> None:
        """Count one event."""
        setattr(self, standing.value, getattr(self, standing.value) + 1)

    @property
    def events(self) -> int:
        """All of them."""
        return self.new + self.same + self.changed + self.blocked


class State(StrEnum):
    """Where a plan stands. `running` may be a run that was killed: the same command goes on.

    `expired` is one whose hour was over before it ran; its row says `planned`.
    """

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A replay as it was looked at; it holds while messages and projection stay so.

    `store_id` names the database it was made in. `offices` has counts by area of responsibility.
    `done` is what its run has done so far, `written` how many entries of a stream.
    """

    plan_id: UUID
    state: State
    source: str
    target: Target
    selection: Selection
    store_id: str
    source_digest: bytes
    target_digest: bytes
    counts: Counts
    offices: Mapping[str, Counts] = field(default_factory=dict)
    made_at: datetime
    expires_at: datetime
    made_by: str
    approval_above: int
    approved_by: str | None = None
    approved_at: datetime | None = None
    begun_at: datetime | None = None
    ran_at: datetime | None = None
    done: Counts = field(default_factory=Counts)
    written: int = 0

    @property
    def changes(self) -> int:
        """How many events a run would act on: change in the store, or put on a stream."""
        match self.target.place:
            case Place.STORE:
                return self.counts.new + self.counts.changed
            case Place.STREAM:
                return self.counts.events - self.counts.blocked
            case _:
                return 0

    @property
    def needs_approval(self) -> bool:
        """Whether a second person must approve it, by the policy it was made under."""
        return self.changes > self.approval_above

    @property
    def stands(self) -> State:
        """The state as people are told it: a plan whose hour is over cannot begin any more."""
        over = self.state is State.PLANNED and self.expires_at <= datetime.now(UTC)
        return State.EXPIRED if over else self.state

    @property
    def begun(self) -> bool:
        """Whether a run of it began, and has not ended."""
        return self.state in (State.RUNNING, State.PAUSED)
