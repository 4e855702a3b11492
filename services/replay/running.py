"""Run a plan: the place comes to say what the messages say, and nothing else moves.

A run begins only while messages and projection are as the plan showed them, and keeps which
messages these are: what comes later is not its, whatever the selection would say by then. It goes
in order, one transaction a batch, with its own cursor: one that was paused, interrupted or killed
goes on where it stood, by the same command, and ends as if nothing had happened. Each event is
looked at again when its turn comes: what live traffic has moved on in the meantime is left alone,
and what was erased or moved to an archive since is blocked, and counted so. Beginning and end are
records in the ledger, also a refusal and a failure.
"""

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from schemas.canonical import format_time
from schemas.errors import (
    ConflictError,
    EvidenceError,
    NotAllowedError,
    NoticeBusError,
    RejectedError,
    UnavailableError,
)
from services.exchange.recorded import Projection
from services.ledger.records import Record
from services.ledger.store import Store, append, away
from services.replay import acts
from services.replay.places import Place
from services.replay.plans import Counts, Plan, State
from services.replay.shadow import Shadowed, shadow
from services.replay.sink import Sink, forget
from services.replay.sources import STORE, Batch, Progress, Source
from services.replay.store import messages, plans
from services.replay.store.messages import PASS_SECONDS, Cursor
from services.replay.survey import BATCH_MAX, Examined, examine, projection_of, survey

log = structlog.get_logger()

# A snapshot keeps the store from cleaning up behind live traffic: a long run takes a new one.
SNAPSHOT_SECONDS = 600.0
# A batch of a run that was told a rate takes no longer, so that a pause is noticed soon.
STEP_SECONDS = 0.5
_REFUSED, _FAILED = "refused", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run did: how events stood when their turn came, and how many envelopes were written.

    `plan.state` says whether it is done, or was paused or cancelled on the way. The counts differ
    from the plan's where live traffic, an erasure or an archive came between.
    """

    plan: Plan
    counts: Counts
    written: int
    resumed: bool
    shadowed: Shadowed | None = None

    @property
    def applied(self) -> int:
        """How many events took effect; none where the store is not written to."""
        if self.plan.target.place is not Place.STORE:
            return 0
        return self.counts.new + self.counts.changed

    @property
    def missing(self) -> int:
        """How many planned events the run, once done, did not come upon: their source lost them."""
        gone = self.plan.counts.events - self.counts.events
        return max(0, gone) if self.plan.state is State.DONE else 0


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a plan: who does it and why, and the projection it works on.

    `messages` has the ids of what the plan was found to hold for, 16 bytes each; `done` and
    `written` how far the run has come.
    """

    database: Store
    agency: str
    plan: Plan
    source: Source
    projection: Projection
    actor: str
    reason: str
    rate: int | None = None
    sink: Sink | None = None
    progress: Progress | None = None
    checking: Progress | None = None
    batch_max: int = BATCH_MAX
    messages: bytearray = field(default_factory=bytearray)
    done: Counts = field(default_factory=Counts)
    written: int = 0

    async def admit(self, confirm: int | None, *, alone: bool) -> None:
        """Raise unless the plan may run now; see `run`."""
        plan = self.plan
        if not alone:
            raise ConflictError("NB-6014")
        if plan.state is State.DONE and plan.target.keeps:
            assert plan.ran_at is not None
            raise ConflictError("NB-6019", plan_id=plan.plan_id, ran_at=format_time(plan.ran_at))
        if plan.state is State.CANCELLED:
            raise ConflictError("NB-6038", plan_id=plan.plan_id, state=plan.state, act="run")
        # One that began goes on to its end, also after its hour.
        if not plan.begun and plan.expires_at <= datetime.now(UTC):
            raise ConflictError(
                "NB-6012", plan_id=plan.plan_id, expires_at=format_time(plan.expires_at)
            )
        if confirm is None and plan.changes:
            raise RejectedError("NB-6015", plan_id=plan.plan_id, changes=plan.changes)
        if confirm is not None and confirm != plan.changes:
            raise RejectedError(
                "NB-6016", plan_id=plan.plan_id, confirm=confirm, changes=plan.changes
            )
        if plan.needs_approval and plan.approved_by in (None, plan.made_by):
            raise NotAllowedError(
                "NB-6036",
                plan_id=plan.plan_id,
                changes=plan.changes,
                limit=plan.approval_above,
            )
        if plan.target.place is Place.SHADOW:
            # What is away makes messages look otherwise too, and says itself how it comes back.
            async with self.database.transaction() as tx:
                await away.require(tx)
        # One that began is of the messages it began with, and has changed the projection itself.
        if not plan.begun:
            await self._hold_to_the_plan()

    async def _hold_to_the_plan(self) -> None:
        plan = self.plan
        found = await survey(
            self.database,
            self.agency,
            plan.selection,
            source=self.source,
            projection=self.projection,
            progress=self.checking,
            tell=lambda event: self.messages.extend(event.message.message_id.bytes),
        )
        if found.source_digest != plan.source_digest:
            raise ConflictError("NB-6013", plan_id=plan.plan_id, what="a message")
        if found.target_digest != plan.target_digest:
            raise ConflictError("NB-6013", plan_id=plan.plan_id, what="the projection")

    async def begin(self) -> None:
        """Put on record that the run begins or goes on, with the messages that it is of.

        Raises `ConflictError` NB-6038 or NB-6100 when somebody cancelled or stopped it meanwhile.
        """
        now, plan = datetime.now(UTC), self.plan
        async with self.database.transaction() as tx:
            held = await plans.hold(tx, plan.plan_id)
            if held.state is State.CANCELLED:
                raise ConflictError("NB-6038", plan_id=plan.plan_id, state=held.state, act="run")
            if held.state is not plan.state:
                raise ConflictError("NB-6100", plan_id=plan.plan_id, state=held.state)
            await plans.begin(tx, plan, now)
            if not plan.begun:
                await plans.freeze(tx, plan.plan_id, self.messages)
            action = "replay.resumed" if plan.begun else "replay.begun"
            await append(tx, [self._record(action, plan.counts, now)])
        self.messages.clear()

    async def finish(self) -> State:
        """Put on record that the run has ended, and what it did; returns how the plan stands.

        Somebody who paused or cancelled it before this is heeded: then nothing is finished.
        """
        now = datetime.now(UTC)
        async with self.database.transaction() as tx:
            held = await plans.hold(tx, self.plan.plan_id)
            if held.state is not State.RUNNING:
                return held.state
            if self.sink is not None:
                await self.sink.finish()
            await plans.finish(tx, self.plan.plan_id, self.done, self.written, now)
            missing = max(0, self.plan.counts.events - self.done.events)
            await append(tx, [self._record("replay.run", self.done, now, missing=missing)])
        return State.DONE

    async def failed(self, error: NoticeBusError, *, result: str) -> None:
        """Put on record that the run was refused, or could not go on, and why."""
        # With the store away nothing can be put on record, and what was raised says so already.
        with suppress(UnavailableError):
            async with self.database.transaction() as tx:
                now = datetime.now(UTC)
                record = self._record("replay.run", self.done, now, result=result, code=error.code)
                await append(tx, [record])

    def _record(
        self,
        action: str,
        counts: Counts,
        now: datetime,
        *,
        result: str = "ok",
        code: str | None = None,
        missing: int = 0,
    ) -> Record:
        return acts.record_of(
            action,
            self.plan,
            counts,
            time=now,
            actor=self.actor,
            reason=self.reason,
            result=result,
            code=code,
            missing=missing,
        )

    async def work(self) -> State:
        """Go through the events from where an earlier attempt stood.

        Returns `running` at the end, or how somebody stopped it on the way.
        """
        plan_id = self.plan.plan_id
        async with self.database.transaction() as tx:
            stands, self.done, self.written = await plans.how_far(tx, plan_id)
            frozen = await plans.is_frozen(tx, plan_id)
        selection = self.plan.selection
        if frozen:
            selection = replace(selection, planned=plan_id)
        began, before = time.monotonic(), self.done.events
        again = True
        while again:
            again, until = False, time.monotonic() + SNAPSHOT_SECONDS
            async with self.database.transaction(seconds=PASS_SECONDS) as reading:
                await messages.begin_pass(reading)
                await self.source.prepare(reading, selection)
                await messages.read_only(reading)
                found = self.source.batches(reading, selection, after=stands, batch_max=self._step)
                async with aclosing(found):
                    async for batch in found:
                        state = await self._take(batch, stands)
                        stands = batch.cursor
                        if self.progress is not None:
                            self.progress(self.done.events)
                        if state is not State.RUNNING:
                            return state
                        await self._pace(began, self.done.events - before)
                        if time.monotonic() > until:
                            again = True
                            break
        return State.RUNNING

    async def _take(self, batch: Batch, stands: Cursor | None) -> State:
        """Let one batch have its effect, once; returns how the plan stands after it."""
        done, written = self.done, self.written
        to_store = self.plan.target.place is Place.STORE
        async with self.database.transaction() as tx:
            events = await examine(tx, self.projection, batch.messages, {}, apply=to_store)
            after = Counts(done.new, done.same, done.changed, done.blocked)
            for event in events:
                after.add(event.finding.standing)
            if self.sink is not None:
                # Before it is noted: what is written twice has one effect, what is missing none.
                written += await self.sink.write(_whole(events), before=written)
            state = await plans.advance(
                tx,
                self.plan.plan_id,
                before=stands,
                cursor=batch.cursor,
                done=after,
                written=written,
            )
            if state is None:
                raise ConflictError("NB-6014")
        self.done, self.written = after, written
        return state

    @property
    def _step(self) -> int:
        if self.rate is None:
            return self.batch_max
        return max(1, min(self.batch_max, int(self.rate * STEP_SECONDS)))

    async def _pace(self, began: float, events: int) -> None:
        """Wait until so many events are due."""
        if self.rate is not None:
            await asyncio.sleep(max(0.0, began + events / self.rate - time.monotonic()))


async def run(
    database: Store,
    agency: str,
    plan: Plan,
    *,
    actor: str,
    reason: str,
    confirm: int | None = None,
    rate: int | None = None,
    source: Source = STORE,
    sink: Sink | None = None,
    progress: Progress | None = None,
    checking: Progress | None = None,
    projection: Projection | None = None,
    batch_max: int = BATCH_MAX,
) -> Ran:
    """Do what a plan showed, at most `rate` events a second; `source` is the plan's own.

    `sink` takes the envelopes of a plan to standard output, a file or a stream. `checking` is told
    how far the look has come whether the plan still holds, `progress` how far the run. Raises
    `RejectedError` NB-6015, NB-6016 for changes that were not confirmed by their number;
    `NotAllowedError` NB-6036 before a second person approved what needs it; `ConflictError` NB-6012
    (expired), NB-6013 (stale), NB-6014 (another runs), NB-6019 (it ran), NB-6038 (cancelled),
    NB-6100 (stopped as it began). On an outage or interruption what was done stays done, and the
    same call goes on from there. Raises `EvidenceError` NB-6044 when a shadow differs, once that is
    on record, and `RejectedError` NB-6101 without a reason, before anything is.
    """
    if not reason.strip():
        raise RejectedError("NB-6101")
    assert str(source) == plan.source, "a plan is run from where it was planned"
    async with database.holding(acts.RUN_LOCK) as (alone, _):
        running = Run(
            database=database,
            agency=agency,
            # Read again under the lock: another run may have ended a moment ago.
            plan=await acts.find(database, str(plan.plan_id)),
            source=source,
            projection=projection or projection_of(agency),
            actor=actor,
            reason=reason,
            rate=rate,
            sink=sink,
            progress=progress,
            checking=checking,
            batch_max=batch_max,
        )
        try:
            await running.admit(confirm, alone=alone)
            if sink is not None:
                await sink.ready(running.plan)
            await running.begin()
        except NoticeBusError as error:
            await running.failed(error, result=_REFUSED)
            raise
        begun = running.plan.begun
        shadowed, state = None, State.RUNNING
        try:
            if plan.target.place is Place.SHADOW:
                shadowed = await shadow(database, agency)
                running.done = plan.counts
            else:
                state = await running.work()
            if state is State.RUNNING:
                state = await running.finish()
        except NoticeBusError as error:
            await running.failed(error, result=_FAILED)
            raise
        if state is not State.PAUSED:
            # The second name of a file that is whole, or what is left of one that never will be.
            forget(plan)
    if shadowed is not None and shadowed.differing:
        raise EvidenceError("NB-6044", differing=shadowed.differing, agency=agency)
    log.info("replay ran", plan_id=str(plan.plan_id), events=running.done.events)
    return Ran(
        plan=await acts.find(database, str(plan.plan_id)),
        counts=running.done,
        written=running.written,
        resumed=begun and plan.target.keeps,
        shadowed=shadowed,
    )


def _whole(events: list[Examined]) -> list[Examined]:
    return [event for event in events if event.envelope is not None]
