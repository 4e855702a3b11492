"""Run one agency's side of the exchange: relays, deliveries, sealer, and the work around them.

Each part can run in a process of its own (`only`) or all in one. A part that stops for a reason it
cannot mend ends the process with an error, so that whoever started it starts it again; whatever was
under way is in the database and is found there.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import structlog

from schemas.envelope import Lane, stream_name
from schemas.errors import UnavailableError
from services.bus import Publisher, Reader
from services.exchange import alone, gaps, held, unauthenticated
from services.exchange.agency import Agency, open_agency
from services.exchange.alone import Alone
from services.exchange.answers import Answers
from services.exchange.consumers import IdleConsumers
from services.exchange.control import Control
from services.exchange.delivery import Delivery
from services.exchange.effects import Effects
from services.exchange.gauges import Gauges
from services.exchange.heads import Heads
from services.exchange.intake import Intake
from services.exchange.outbox import OUTBOX_CHANNELS, WINDOW_CHANNEL
from services.exchange.parties import PARTY_CHANNEL
from services.exchange.relay import Relay
from services.exchange.status import Status
from services.exchange.store import outgoing
from services.exchange.threads import share_often
from services.exchange.upkeep import Upkeep
from services.exchange.waiting import pause, unless_stopped, until_set
from services.exchange.witness import Witness
from services.garbage import collect_seldom
from services.ledger.sealer import Sealer
from services.ledger.serving import log_routes
from services.ledger.store import ANCHORED_CHANNEL
from services.settings import Settings
from services.telemetry.health import HealthServer, Probe

log = structlog.get_logger()

PARTS = ("relay", "delivery", "sealer")
_UPKEEP_SECONDS = 1.0


def delivery_of(agency: Agency, effects: Effects) -> Delivery:
    """Return what takes messages for an agency, from the bus or from a dead letter."""
    return Delivery(
        agency=agency,
        intake=Intake(agency=agency, effects=effects),
        control=Control(agency=agency, effects=effects),
    )


def incoming_streams(agency: Agency) -> list[str]:
    """Return the streams that the peer writes to us, by the partitions of its party file."""
    newest = agency.directory.newest
    partitions: dict[str, int] = newest.partitions.model_dump() if newest is not None else {}
    return [
        stream_name(agency.peer, agency.name, lane, number)
        for lane in Lane
        for number in range(1 if lane is Lane.CONTROL else partitions.get(lane, 1))
    ]


@dataclass(slots=True)
class Process:
    """The running parts of one agency, and what they say of their health."""

    agency: Agency
    effects: Effects
    publisher: Publisher
    relays: list[Relay] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    sealer: Sealer | None = None

    async def run(self, stop: asyncio.Event, only: Collection[str]) -> None:
        """Run the parts named in `only` until `stop`; the sealer ends last, with all sealed."""
        async with asyncio.TaskGroup() as outlasting:
            rest_ended = asyncio.Event()
            if "sealer" in only:
                self.sealer = Sealer(
                    self.agency.store,
                    log_key=self.agency.ring.log_key,
                    also=self.agency.ring.log_also,
                    settings=self.agency.settings.sealer,
                    answer=Answers(self.agency).answer,
                    anchor=self.agency.anchor,
                )
                outlasting.create_task(self.sealer.run(rest_ended), name="sealer")
            try:
                await self._run_the_rest(stop, only)
            finally:
                rest_ended.set()

    async def _run_the_rest(self, stop: asyncio.Event, only: Collection[str]) -> None:
        async with asyncio.TaskGroup() as group:
            if "relay" in only:
                start = partial(self._start_relays, stop, group)
                group.create_task(self._once_alone(stop, group, [alone.RELAY], start))
            if "delivery" in only:
                start = partial(self._start_readers, stop, group)
                names = alone.slots(self.agency.name)
                group.create_task(self._once_alone(stop, group, names, start))
            group.create_task(self._listen(stop), name="listener")
            # Whatever its part, no process goes on with a store that went back under it.
            hold = self.agency.hold_to_anchor
            group.create_task(_every(stop, "anchor", hold), name="anchor")

    async def _once_alone(
        self,
        stop: asyncio.Event,
        group: asyncio.TaskGroup,
        names: list[str],
        start: Callable[[str], Awaitable[None]],
    ) -> None:
        """Start a part once this process holds one of `names`; stand by until then."""
        lock = Alone(self.agency, names)
        group.create_task(lock.run(stop), name=f"lock {names[0]}")
        await until_set(lock.held, stop)
        if lock.name is not None:
            await start(lock.name)

    async def _start_relays(self, stop: asyncio.Event, group: asyncio.TaskGroup, _: str) -> None:
        async with self.agency.store.transaction() as tx:
            heads = await outgoing.heads(tx)
        for head in heads:
            relay = Relay(self.agency, head.stream, Lane(head.lane), self.publisher)
            self.relays.append(relay)
            group.create_task(relay.run(stop), name=f"relay {head.stream}")
        upkeep = Upkeep(self.agency, self.publisher)
        group.create_task(_every(stop, "upkeep", upkeep.step), name="upkeep")
        group.create_task(_every(stop, "heads", Heads(self.agency).step), name="heads")
        witness = Witness(self.agency)

        async def show() -> None:
            # A witness may take its time; whoever stops us has none.
            await unless_stopped(witness.step(), stop)

        group.create_task(_every(stop, "witness", show), name="witness")

    async def _start_readers(
        self, stop: asyncio.Event, group: asyncio.TaskGroup, consumer: str
    ) -> None:
        delivery = delivery_of(self.agency, self.effects)
        idle = IdleConsumers(self.agency)

        async def look_after() -> None:
            # A party file trusted since may name more partitions.
            for stream in incoming_streams(self.agency):
                if stream not in {reader.stream for reader in self.readers}:
                    self._read(stream, consumer, delivery, stop, group)
            await self._look_after_incoming()

        async def remove_idle() -> None:
            await idle.step(incoming_streams(self.agency))

        group.create_task(_every(stop, "incoming", look_after), name="incoming")
        group.create_task(_every(stop, "consumers", remove_idle), name="consumers")

    def _read(
        self,
        stream: str,
        consumer: str,
        delivery: Delivery,
        stop: asyncio.Event,
        group: asyncio.TaskGroup,
    ) -> None:
        """Read one stream from now on."""
        reader = Reader(
            self.agency.settings.redis_url_required,
            stream=stream,
            group=self.agency.name,
            consumer=consumer,
            take=delivery.take,
            failed=delivery.failed,
            settings=self.agency.settings,
        )
        self.readers.append(reader)
        group.create_task(reader.run(stop), name=f"reader {stream}")

    async def _look_after_incoming(self) -> None:
        while await held.apply_held(self.agency, self.effects):
            pass
        await gaps.ask(self.agency)
        await unauthenticated.record_ended_minutes(self.agency)

    async def _listen(self, stop: asyncio.Event) -> None:
        """Wake what waits, whoever committed: this process or another."""
        while not stop.is_set():
            try:
                channels = [
                    *OUTBOX_CHANNELS.values(),
                    WINDOW_CHANNEL,
                    PARTY_CHANNEL,
                    ANCHORED_CHANNEL,
                ]
                async for channel in self.agency.store.listen(channels, stop):
                    if channel == PARTY_CHANNEL:
                        await self.agency.reload()
                        if self.sealer is not None:
                            ring = self.agency.ring
                            self.sealer.sign_with(ring.log_key, ring.log_also)
                    for relay in self.relays:
                        if relay.woken_by(channel):
                            relay.wake.set()
            except UnavailableError as error:
                log.warning("listener waits", code=error.code)
                await pause(stop, 0.5)

    def probes(self, only: Collection[str]) -> dict[str, Callable[[], Probe | Awaitable[Probe]]]:
        """Return what `/ready` asks: whether traffic can be taken now, and is answered.

        Store and bus answer, every part in `only` works, groups exist and keep up, no answer is
        overdue.
        """
        status = Status(self.agency, self.publisher)
        probes: dict[str, Callable[[], Probe | Awaitable[Probe]]] = {
            "store": status.store,
            "bus": status.bus,
        }
        if "relay" in only:
            probes["relay"] = lambda: _alive({r.stream: r.healthy for r in self.relays})
            probes["answers"] = status.answers
        if "delivery" in only:
            probes["reader"] = lambda: _alive({r.stream: r.healthy for r in self.readers})
            probes["groups"] = lambda: status.groups(incoming_streams(self.agency))
        if "sealer" in only:
            probes["sealer"] = lambda: _alive({"log": bool(self.sealer and self.sealer.healthy)})
        return probes


def _alive(healthy: dict[str, bool]) -> Probe:
    broken = sorted(name for name, ok in healthy.items() if not ok)
    if broken or not healthy:
        return Probe(ok=False, detail=f"not running: {', '.join(broken) or 'all of it'}")
    return Probe(ok=True, detail=f"{len(healthy)} running")


async def _every(stop: asyncio.Event, what: str, step: Callable[[], Awaitable[None]]) -> None:
    """Run `step` about once a second until `stop`; an outage of a peer is waited out."""
    while not stop.is_set():
        try:
            await step()
        except UnavailableError as error:
            log.warning("waits for a peer", what=what, code=error.code)
        await pause(stop, _UPKEEP_SECONDS)


async def serve(
    settings: Settings,
    *,
    effects_of: Callable[[Agency], Effects],
    only: Collection[str] = PARTS,
    stop: asyncio.Event | None = None,
) -> None:
    """Run an agency's parts until SIGTERM, SIGINT or `stop`; health and metrics over HTTP."""
    collect_seldom()
    share_often()
    ending = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with (
        open_agency(settings) as agency,
        Publisher.open(settings.redis_url_required, settings=settings.bus) as publisher,
    ):
        process = Process(agency, effects_of(agency), publisher)
        running = asyncio.create_task(process.run(ending, only))
        gauges = Gauges(agency, tuple(incoming_streams(agency)))
        refreshes = [gauges.of_store, gauges.of_bus]
        try:
            async with HealthServer(
                settings.http,
                process.probes(only),
                refreshes=refreshes,
                routers=[log_routes(agency.store, agency.hold_to_anchor)],
            ):
                log.info("agency runs", parts=",".join(only))
                await running
        finally:
            # Whatever ends us, the parts end before the store closes under them.
            ending.set()
            await asyncio.gather(running, return_exceptions=True)
    log.info("agency stopped")
