"""Read one stream for one consumer group, and acknowledge exactly what is durable.

Every entry reaches `take` at least once: entries of an earlier life of this consumer first, then
new ones as they come, then those that failed or that a dead consumer left behind. The reader mends
itself after whatever Redis does: away, restarted, emptied, its group removed. It counts no outage
against any message, and says that it is healthy only while Redis sees it asking for entries.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from schemas.errors import UnavailableError
from services.bus.connection import GroupGoneError, connected
from services.bus.entry import Entry, Verdict
from services.bus.pending import Group, Pending
from services.bus.subscription import Subscription
from services.settings import Settings
from services.telemetry.metrics import ALARMS_RAISED, ATTEMPTS_FAILED, OUTAGES, TAKE_SECONDS

log = structlog.get_logger()

TRIMMED = "NB-5003"
# An entry that was handed out this often may be what ended us: it is tried alone.
DELIVERIES_TOGETHER_MAX = 2
# An entry of ours that is pending for so long while nothing is being taken was dropped on the way.
STRANDED_SECONDS = 5.0
# How much later than its blocking read ends a living consumer may be seen.
SEEN_SLACK_SECONDS = 2.0
# A batch takes about a second; one that is under way for so long is stuck.
STALLED_SECONDS = 60.0

Take = Callable[[Sequence[Entry]], Awaitable[Sequence[Verdict]]]
Failed = Callable[[Entry, Exception], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class _Later:
    """An entry that is tried again at `at` (the loop's clock), after `tries` tries."""

    at: float
    tries: int
    delivered: int


class _Backoff:
    """Seconds to wait, doubling up to a limit."""

    def __init__(self, seconds_min: float, seconds_max: float) -> None:
        self._min, self._max = seconds_min, seconds_max
        self._next = seconds_min

    def next(self) -> float:
        seconds, self._next = self._next, min(self._next * 2, self._max)
        return seconds

    def reset(self) -> None:
        self._next = self._min


class Reader:
    """Hands the entries of `stream` to `take`, in batches.

    - `take` returns a verdict for each entry, or raises. `UnavailableError` means that nothing can
      be taken now: the reader waits and offers the same entries again.
    - Any other error of a batch: its halves are tried, down to single entries.
    - An entry that raises alone is given to `failed`, which counts its attempts durably and returns
      True once they are used up and the entry is set aside: then it is acknowledged. Else it is
      tried again with backoff.

    `consumer` names this process in the group and has to be the same after a restart, and no other
    living process may use it; entries are claimed by it.
    """

    def __init__(
        self,
        url: str,
        *,
        stream: str,
        group: str,
        consumer: str,
        take: Take,
        failed: Failed,
        settings: Settings,
    ) -> None:
        self.stream = stream
        self.trimmed = 0
        self._url = url
        self._group, self._consumer = group, consumer
        self._take, self._failed = take, failed
        self._settings = settings
        self._batch_max = settings.delivery.batch_max
        self._seen_max = settings.bus.block_seconds + SEEN_SLACK_SECONDS
        self._taking = asyncio.Lock()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._later: dict[str, _Later] = {}
        self._store_backoff = self._backoff()
        self._trouble = False
        self._paused = False
        self._consuming = False
        self._away = False
        self._looked_at = 0.0
        self._progress_at = 0.0
        self._claims_at = 0.0

    @property
    def healthy(self) -> bool:
        """Whether entries that arrive now are taken.

        Redis saw us ask, no outage holds us, and a batch under way goes on.
        """
        now = time.monotonic()
        if self._taking.locked():
            works = now - self._progress_at < STALLED_SECONDS
        else:
            works = now - self._looked_at < self._seen_max + SEEN_SLACK_SECONDS
        return self._consuming and not self._paused and works

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; the batch under way is finished then. Raises nothing of Redis'.

        What was handed out and not taken then stays pending and is taken first by the next run.
        """
        stopper = asyncio.create_task(self._stop_when(stop))
        backoff, stream = self._backoff(), self.stream
        try:
            async with connected(self._url, self._settings.bus) as client:
                group = Group(client, self.stream, self._group, self._consumer)
                while not self._stopping.is_set():
                    began = time.monotonic()
                    try:
                        await self._session(group)
                    except UnavailableError as error:
                        if not self._away:
                            OUTAGES.labels(peer="bus").inc()
                            log.warning("reader waits for the bus", stream=stream, error=str(error))
                        self._away = True
                    except GroupGoneError:
                        log.warning("consumer group is gone", stream=stream, group=self._group)
                    finally:
                        self._consuming = False
                    if time.monotonic() - began > self._settings.bus.outage_backoff_seconds_max:
                        backoff.reset()
                    await self._pause(backoff.next())
        finally:
            stopper.cancel()
            await asyncio.gather(stopper, return_exceptions=True)

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopping.set()
        self._wake.set()

    async def _session(self, group: Group) -> None:
        """Make the group, take what is pending of ours, then read until something breaks."""
        self._trouble = False
        if await group.make():
            log.info("consumer group made", stream=self.stream, group=self._group)
        await self._drain(group)
        if self._stopping.is_set():
            return

        # A coroutine function: FastStream would run anything else in a thread.
        async def arrived(entries: Sequence[Entry]) -> None:
            await self._arrived(group, entries)

        subscription = Subscription(
            self._url,
            group,
            arrived,
            self._report_trouble,
            batch_max=self._batch_max,
            settings=self._settings.bus,
        )
        try:
            await subscription.start()
            await self._watch(group, subscription)
        finally:
            await subscription.stop()
        if self._stopping.is_set() and not self._trouble and not self._paused:
            # The read that was under way when it stopped may have brought entries.
            await self._drain(group)

    async def _watch(self, group: Group, subscription: Subscription) -> None:
        """Keep an eye on the subscription and on what is pending, until told to stop.

        Raises `UnavailableError` or `GroupGoneError` when entries that arrive would not be taken.
        """
        started = time.monotonic()
        while not self._stopping.is_set():
            self._wake.clear()
            seen = await group.seen_seconds()
            if self._trouble or not subscription.reading:
                raise UnavailableError("NB-5002", reason="the subscription ended")
            self._consuming = seen is not None and seen <= self._seen_max
            self._looked_at = time.monotonic()
            if self._away and self._consuming:
                self._away = False
                log.info("reader goes on", stream=self.stream)
            if not self._taking.locked():
                if not self._consuming and self._looked_at - started > self._seen_max:
                    raise UnavailableError("NB-5002", reason="the subscription does not read")
                await self._sweep(group)
            await self._nap()

    async def _nap(self) -> None:
        """Wait for something to do: trouble, the end, an entry's next try, or the next look."""
        seconds = self._settings.bus.block_seconds
        if self._later and not self._taking.locked():
            due = min(later.at for later in self._later.values())
            seconds = max(0.001, min(seconds, due - time.monotonic()))
        if not self._stopping.is_set() and not self._trouble:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _arrived(self, group: Group, entries: Sequence[Entry]) -> None:
        """Take a batch that FastStream read."""
        if self._trouble:
            # The session ends; what it still reads stays pending, and the next one drains it.
            return
        try:
            await self._process(group, entries)
        except (UnavailableError, GroupGoneError):
            self._report_trouble()

    def _report_trouble(self) -> None:
        self._trouble = True
        self._wake.set()

    async def _drain(self, group: Group) -> None:
        """Take what is pending for this consumer, lowest first, except what waits for its time."""
        after: str | None = None
        while lines := await group.pending(after=after, own=True, limit=self._batch_max):
            after = lines[-1].entry_id
            await self._claim(group, [line for line in lines if line.entry_id not in self._later])
            if self._stopping.is_set() and self._paused:
                return

    async def _sweep(self, group: Group) -> None:
        """Try again what is due, and claim what fell by the wayside, ours or another consumer's."""
        now = time.monotonic()
        due = [
            Pending(entry_id, self._consumer, 0, later.delivered)
            for entry_id, later in self._later.items()
            if later.at <= now
        ]
        await self._claim(group, due[: self._batch_max])
        if now < self._claims_at:
            return
        patience = self._settings.bus.claim_idle_seconds
        idle = min(patience, STRANDED_SECONDS)
        self._claims_at = now + idle / 2
        after: str | None = None
        while lines := await group.pending(after=after, idle_seconds=idle, limit=self._batch_max):
            after = lines[-1].entry_id
            ours = [line for line in lines if line.consumer == self._consumer]
            await self._claim(group, [line for line in ours if line.entry_id not in self._later])
            theirs = [line for line in lines if line.consumer != self._consumer]
            await self._claim(
                group, [line for line in theirs if line.idle_seconds >= patience], patience
            )
            if self._stopping.is_set():
                return

    async def _claim(
        self, group: Group, wanted: Sequence[Pending], idle_seconds: float = 0
    ) -> None:
        if not wanted:
            return
        claimed = await group.claim(wanted, idle_seconds=idle_seconds)
        if claimed.trimmed:
            self.trimmed += len(claimed.trimmed)
            ALARMS_RAISED.labels(code=TRIMMED).inc()
            log.error(
                "entries were removed before they were taken",
                code=TRIMMED,
                stream=self.stream,
                count=len(claimed.trimmed),
                first=claimed.trimmed[0],
            )
        given = {entry.entry_id for entry in claimed.entries}
        for line in wanted:
            if line.entry_id not in given:
                self._later.pop(line.entry_id, None)
        if claimed.entries:
            await self._process(group, claimed.entries)

    async def _process(self, group: Group, entries: Sequence[Entry]) -> None:
        """Offer entries to `take` until each has its verdict, then acknowledge, all at once.

        Raises `UnavailableError` or `GroupGoneError` when Redis cannot be told; what was taken is
        offered again then. Returns early, with the rest left pending, if an outage of the store
        lasts until we are told to stop.
        """
        async with self._taking:
            pieces = deque(_pieces(entries))
            done: list[str] = []
            while pieces:
                self._progress_at = time.monotonic()
                piece = pieces[0]
                try:
                    acknowledged = await self._offer(piece)
                except UnavailableError as error:
                    await self._acknowledge(group, done)
                    done = []
                    if not await self._wait_for_store(error):
                        return
                    continue
                self._paused = False
                self._store_backoff.reset()
                pieces.popleft()
                if acknowledged is None:
                    half = len(piece) // 2
                    pieces.extendleft((piece[half:], piece[:half]))
                else:
                    done.extend(acknowledged)
            await self._acknowledge(group, done)

    async def _offer(self, piece: Sequence[Entry]) -> list[str] | None:
        """Return the ids to acknowledge, or None if the piece failed as a whole: try its halves.

        Raises `UnavailableError` if the taker is away.
        """
        try:
            with TAKE_SECONDS.time():
                verdicts = await self._take(piece)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is: one entry must not stop the rest)
            if len(piece) > 1:
                return None
            return await self._failed_alone(piece[0], error)
        acknowledged = []
        for entry, verdict in zip(piece, verdicts, strict=True):
            if verdict is Verdict.ACKNOWLEDGE:
                acknowledged.append(entry.entry_id)
            else:
                self._try_later(entry)
        return acknowledged

    async def _failed_alone(self, entry: Entry, error: Exception) -> list[str]:
        ATTEMPTS_FAILED.labels(stream=self.stream).inc()
        log.warning(
            "entry failed when tried alone",
            stream=self.stream,
            entry_id=entry.entry_id,
            delivered=entry.delivered,
            error=type(error).__name__,
        )
        try:
            if await self._failed(entry, error):
                return [entry.entry_id]
        except UnavailableError:
            raise
        except Exception:
            # Whatever it is, the entry stays pending and is tried again; others go on.
            log.exception("failure could not be noted", entry_id=entry.entry_id)
        self._try_later(entry)
        return []

    def _try_later(self, entry: Entry) -> None:
        before = self._later.get(entry.entry_id)
        tries = 1 if before is None else before.tries + 1
        delivery = self._settings.delivery
        seconds = min(
            delivery.backoff_seconds_min * 2.0 ** min(tries - 1, 32), delivery.backoff_seconds_max
        )
        self._later[entry.entry_id] = _Later(time.monotonic() + seconds, tries, entry.delivered)
        self._wake.set()

    async def _acknowledge(self, group: Group, entry_ids: Sequence[str]) -> None:
        await group.acknowledge(entry_ids)
        for entry_id in entry_ids:
            self._later.pop(entry_id, None)

    async def _wait_for_store(self, error: UnavailableError) -> bool:
        """Wait before the same entries are offered again; False if we are to stop instead."""
        if not self._paused:
            OUTAGES.labels(peer="store").inc()
            log.warning("reader waits for the store", stream=self.stream, error=str(error))
        self._paused = True
        await self._pause(self._store_backoff.next())
        return not self._stopping.is_set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _backoff(self) -> _Backoff:
        bus = self._settings.bus
        return _Backoff(bus.outage_backoff_seconds_min, bus.outage_backoff_seconds_max)


def _pieces(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    """Split off, each alone, the entries that were handed out suspiciously often."""
    together = [entry for entry in entries if entry.delivered <= DELIVERIES_TOGETHER_MAX]
    alone = [[entry] for entry in entries if entry.delivered > DELIVERIES_TOGETHER_MAX]
    return [together, *alone] if together else [*alone]
