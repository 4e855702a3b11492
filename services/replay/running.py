"""Run a plan: the projection comes to say what the messages say, and nothing else moves.

A run begins only while messages and projection are as the plan showed them. It goes in order, one
transaction a batch, with its own cursor: one that was interrupted goes on where it stood, by the
same command. Each event is looked at again when its turn comes, so that what live traffic has moved
on in the meantime is left alone. Beginning and end are records in the ledger, also a refusal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

import structlog

from schemas.canonical import canonical, format_time
from schemas.errors import ConflictError, NoticeBusError, RejectedError
from services.exchange.recorded import Projection
from services.ledger.store import Store, append
from services.replay import store
from services.replay.planning import find, record_of
from services.replay.selection import Counts, Place, Plan
from services.replay.sink import Sink
from services.replay.store import PASS_SECONDS
from services.replay.survey import BATCH_MAX, Examined, Progress, examine, projection_of, survey

log = structlog.get_logger()

# One replay at a time in each database.
_LOCK = 0x6E62_7265_706C


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run did: how events stood when their turn came, and how many lines were written."""

    plan: Plan
    counts: Counts
    written: int
    resumed: bool

    @property
    def applied(self) -> int:
        """How many events took effect; none where the store is not written to."""
        if self.plan.target.place is not Place.STORE:
            return 0
        return self.counts.new + self.counts.changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a plan: who does it and why, and the projection it works on."""

    database: Store
    plan: Plan
    projection: Projection
    actor: str
    reason: str
    progress: Progress | None = None
    batch_max: int = BATCH_MAX

    async def admit(self, confirm: int | None, *, alone: bool) -> None:
        """Raise unless the plan may run now; see `run`."""
        plan = self.plan
        if not alone:
            raise ConflictError("NB-6014")
        if plan.state == "done" and plan.target.place is Place.STORE:
            assert plan.ran_at is not None
            raise ConflictError("NB-6019", plan_id=plan.plan_id, ran_at=format_time(plan.ran_at))
        if plan.expires_at <= datetime.now(UTC):
            raise ConflictError(
                "NB-6012", plan_id=plan.plan_id, expires_at=format_time(plan.expires_at)
            )
        if confirm is None and plan.changes:
            raise RejectedError("NB-6015", plan_id=plan.plan_id, changes=plan.changes)
        if confirm is not None and confirm != plan.changes:
            raise RejectedError(
                "NB-6016", plan_id=plan.plan_id, confirm=confirm, changes=plan.changes
            )
        found = await survey(self.database, self.projection, plan.selection)
        if found.source_digest != plan.source_digest:
            raise ConflictError("NB-6013", plan_id=plan.plan_id, what="a message")
        # A run that was interrupted has changed the projection itself.
        if plan.state == "planned" and found.target_digest != plan.target_digest:
            raise ConflictError("NB-6013", plan_id=plan.plan_id, what="the projection")

    async def refused(self, error: NoticeBusError) -> None:
        """Put on record that the plan was not run."""
        async with self.database.transaction() as tx:
            await append(
                tx,
                [
                    record_of(
                        "replay.run",
                        self.plan,
                        Counts(),
                        time=datetime.now(UTC),
                        actor=self.actor,
                        reason=self.reason,
                        result="refused",
                        code=error.code,
                    )
                ],
            )

    async def begin(self) -> None:
        """Put on record that the run begins, or goes on."""
        now = datetime.now(UTC)
        async with self.database.transaction() as tx:
            await store.begin(tx, self.plan.plan_id, now)
            await append(
                tx,
                [
                    record_of(
                        "replay.begun",
                        self.plan,
                        self.plan.counts,
                        time=now,
                        actor=self.actor,
                        reason=self.reason,
                    )
                ],
            )

    async def finish(self, done: Counts) -> None:
        """Put on record that the run has ended, and what it did."""
        now = datetime.now(UTC)
        async with self.database.transaction() as tx:
            await store.finish(tx, self.plan.plan_id, done, now)
            await append(
                tx,
                [
                    record_of(
                        "replay.run",
                        self.plan,
                        done,
                        time=now,
                        actor=self.actor,
                        reason=self.reason,
                    )
                ],
            )

    async def apply(self) -> Counts:
        """Let the events take effect, from where an earlier attempt stood."""
        database, plan_id = self.database, self.plan.plan_id
        async with database.transaction() as tx:
            stands, done = await store.how_far(tx, plan_id)
        async with database.transaction(seconds=PASS_SECONDS) as reading:
            await store.begin_pass(reading)
            async for messages, cursor in store.recorded(
                reading, self.plan.selection, after=stands, batch_max=self.batch_max
            ):
                async with database.transaction() as tx:
                    events = await examine(tx, self.projection, messages, {}, apply=True)
                    after = _counted(done, events)
                    if not await store.advance(
                        tx, plan_id, before=stands, cursor=cursor, done=after
                    ):
                        raise ConflictError("NB-6014")
                done, stands = after, cursor
                self._tell(done)
        return done

    async def write(self, sink: Sink) -> tuple[Counts, int]:
        """Write the stored envelopes; returns how the events stand and how many were whole."""
        done, written = Counts(), 0
        async with self.database.transaction(seconds=PASS_SECONDS) as tx:
            await store.begin_pass(tx)
            async for messages, _ in store.recorded(
                tx, self.plan.selection, after=None, batch_max=self.batch_max
            ):
                events = await examine(tx, self.projection, messages, {})
                done = _counted(done, events)
                for line in filter(None, map(_line, events)):
                    sink.write(line)
                    written += 1
                self._tell(done)
        sink.finish()
        return done, written

    def _tell(self, done: Counts) -> None:
        if self.progress is not None:
            self.progress(done.events)


async def run(
    database: Store,
    agency: str,
    plan: Plan,
    *,
    actor: str,
    reason: str,
    confirm: int | None = None,
    sink: Sink | None = None,
    progress: Progress | None = None,
    projection: Projection | None = None,
    batch_max: int = BATCH_MAX,
) -> Ran:
    """Do what a plan showed; `sink` takes the lines of one to stdout or a file.

    Raises `RejectedError` NB-6015, NB-6016 for changes that were not confirmed by their number;
    `ConflictError` NB-6012 (expired), NB-6013 (stale), NB-6014 (another runs), NB-6019 (it ran). On
    an outage or interruption what was done stays done, and the same call goes on from there.
    """
    async with database.session() as session:
        locked = await session.try_lock(_LOCK)
        running = Run(
            database=database,
            # Read again under the lock: another run may have ended a moment ago.
            plan=await find(database, str(plan.plan_id)),
            projection=projection or projection_of(agency),
            actor=actor,
            reason=reason,
            progress=progress,
            batch_max=batch_max,
        )
        try:
            await running.admit(confirm, alone=locked)
        except (ConflictError, RejectedError) as error:
            await running.refused(error)
            raise
        await running.begin()
        match plan.target.place:
            case Place.STORE:
                done, written = await running.apply(), 0
            case Place.STDOUT | Place.FILE:
                assert sink is not None
                done, written = await running.write(sink)
            case never:
                assert_never(never)
        await running.finish(done)
    log.info("replay ran", plan_id=str(plan.plan_id), events=done.events)
    resumed = running.plan.state == "running" and plan.target.place is Place.STORE
    return Ran(plan=running.plan, counts=done, written=written, resumed=resumed)


def _counted(done: Counts, events: Sequence[Examined]) -> Counts:
    after = Counts(done.new, done.same, done.changed, done.blocked)
    for event in events:
        after.add(event.finding.standing)
    return after


def _line(event: Examined) -> bytes | None:
    """Return one event as a line of NDJSON, None where its bytes are not whole."""
    if event.envelope is None:
        return None
    message = event.message
    return canonical(
        {
            "message_id": str(message.message_id),
            "kind": str(message.kind),
            "notice_id": None if message.notice_id is None else str(message.notice_id),
            "revision": message.revision,
            "stream": message.stream,
            "sequence": message.sequence,
            "direction": str(message.direction),
            "at": format_time(message.at),
            "envelope": event.envelope.decode("ascii"),
        }
    )
