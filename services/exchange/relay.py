"""Number accepted messages, sign them, and move them onto their stream.

One relay for each stream. Sequence, exact bytes and ledger record are committed *before* the bus
sees anything; from then on only stored bytes are sent. So a crash between commit and publish sends
the same bytes again, and the recipient takes them once. At most `window_max` unanswered messages of
a stream are out at any time; the rest wait in the outbox.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import structlog

from schemas.catalog import dataschema_of
from schemas.envelope import Attributes, Kind, Lane, envelope_hash, seal
from schemas.errors import UnavailableError
from services.bus import Publisher
from services.exchange.agency import Agency
from services.exchange.indexing import tag_of
from services.exchange.outbox import OUTBOX_CHANNELS, WINDOW_CHANNEL
from services.exchange.store import endings, outgoing, parties, published
from services.exchange.store.outgoing import Numbered, StreamHead, Waiting, Work
from services.exchange.threads import off_the_loop
from services.exchange.waiting import pause, until_set
from services.ledger.records import Record, make_record
from services.ledger.store import ANCHORED_CHANNEL, append, together
from services.telemetry.metrics import MESSAGES_PUBLISHED, MESSAGES_REPUBLISHED

log = structlog.get_logger()

# Stored bytes that go again need no signing: what they cost is two waits for the disk a round.
_AGAIN = 2_000


class _OutdatedError(Exception):
    """Our ring or the peer's party file was replaced since they were read."""


@dataclass(slots=True)
class Relay:
    """Publishes one stream."""

    agency: Agency
    stream: str
    lane: Lane
    publisher: Publisher
    healthy: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _full: bool = False
    # Whether the last step left nothing waiting: then the next one is due when somebody rings.
    _drained: bool = False
    _publishing: asyncio.Task[None] | None = None
    # How far what goes again is on its way: (generation, sequence).
    _again_up_to: tuple[int, int] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`; an outage of store or bus is waited out, and loses nothing."""
        settings = self.agency.settings.relay
        patience = 0.1
        while not stop.is_set():
            self.wake.clear()
            try:
                worked = await self.step()
                self.healthy, patience = True, 0.1
            except UnavailableError as error:
                self.healthy = False
                log.warning("relay waits", stream=self.stream, code=error.code)
                await pause(stop, patience)
                patience = min(patience * 2, 5.0)
                continue
            if not worked or self._drained:
                await until_set(self.wake, stop, seconds=settings.poll_seconds)
        # What fails now is found in the store by the next run.
        if self._publishing is not None:
            await asyncio.gather(self._publishing, return_exceptions=True)

    def woken_by(self, channel: str) -> bool:
        """Return whether a commit that notified `channel` may be work for this relay."""
        if channel == ANCHORED_CHANNEL:
            return self.lane is Lane.CONTROL
        return channel == OUTBOX_CHANNELS[self.lane] or (channel == WINDOW_CHANNEL and self._full)

    async def step(self) -> bool:
        """Do one batch: what is asked for again, what a crash left, or what is new.

        While one batch is on its way to the bus, the next is read, or numbered and signed; batches
        reach the bus one after the other. Returns whether there was anything to do.
        """
        self._drained = False
        if self._publishing is not None and self._publishing.done():
            went_again = self._again_up_to is not None
            await self.settle()
            if went_again:
                # What was asked for meanwhile may lie below.
                return True
        async with self.agency.store.glance() as look:
            work = await outgoing.work(look, self.stream)
            head, again = work.head, list[Numbered]()
            if work.again:
                up_to = self._again_up_to
                head, again = await outgoing.asked_again(look, work.head, _AGAIN, above=up_to)
        if again:
            await self.settle()
            self._again_up_to = head.generation, again[-1].sequence
            self._publishing = asyncio.create_task(self._publish(head, again, again=True))
            return True
        if work.left and self._publishing is None:
            async with self.agency.store.glance() as look:
                batch_max = self.agency.settings.relay.batch_max
                left = await outgoing.unpublished(look, work.head, batch_max)
            await self._publish(work.head, left)
            return True
        if self._again_up_to is not None:
            # As above.
            await self.settle()
            return True
        room = self._room(work)
        numbered = await self._number(room) if work.waiting and room > 0 else []
        self._drained = len(numbered) < room
        flying = self._publishing is not None
        await self.settle()
        if numbered:
            self._publishing = asyncio.create_task(self._publish(work.head, numbered))
            self._publishing.add_done_callback(self._look_if_failed)
            # On its way first: somebody waits for it, and nobody for the next look.
            await asyncio.sleep(0)
        return bool(numbered) or flying

    def _room(self, work: Work) -> int:
        """Return how many messages may be numbered now.

        No other relay adds to what is unanswered; a restore at the peer opens answered messages
        again, whatever the window holds.
        """
        settings = self.agency.settings.relay
        if self.lane is Lane.CONTROL:
            return settings.batch_max
        left = settings.window_max - work.unanswered
        self._full = left <= 0
        return min(settings.batch_max, left)

    def _look_if_failed(self, publishing: asyncio.Task[None]) -> None:
        """Look at once why a batch did not reach the bus."""
        if not publishing.cancelled() and publishing.exception() is not None:
            self.wake.set()

    async def settle(self) -> None:
        """Wait until the batch on its way has reached the bus; raises what stopped it."""
        publishing, self._publishing = self._publishing, None
        self._again_up_to = None
        if publishing is not None:
            await publishing

    async def _number(self, limit: int) -> list[Numbered]:
        """Give waiting messages their sequence; they are durable, with their bytes, on return.

        A key that ended meanwhile signs nothing more, and to one that was replaced nothing more is
        encrypted: then ring and party file are read again first. Raises `UnavailableError` NB-3182
        while the ring has no other key.
        """
        try:
            return await self._number_once(limit)
        except _OutdatedError:
            await self.agency.reload()
        try:
            return await self._number_once(limit)
        except _OutdatedError:
            raise UnavailableError("NB-3182", kid=self.agency.ring.signing.kid) from None

    async def _number_once(self, limit: int) -> list[Numbered]:
        now = datetime.now(UTC)
        async with self.agency.store.pipelined() as tx:
            # Whoever ends a key, or trusts another file, holds all streams: with this one held, the
            # answers stand.
            head, ended, newest, waiting = await together(
                outgoing.lock_head(tx, self.stream),
                endings.has_ended(tx, self.agency.ring.signing.kid),
                parties.current(tx, self.agency.peer),
                outgoing.take(tx, self.stream, limit),
            )
            known = self.agency.directory.fingerprint
            if ended or (head.lane != Lane.CONTROL and newest != known):
                raise _OutdatedError
            if not waiting:
                return []
            # Signing and encrypting leave the loop free to answer others meanwhile.
            numbered = await off_the_loop(self._seal, head, waiting, rows=len(waiting))
            records = self._records(head, numbered, waiting, now)
            await outgoing.number(tx, head, numbered, now)
            await append(tx, records)
        return numbered

    def _seal(self, head: StreamHead, waiting: Sequence[Waiting]) -> list[Numbered]:
        agency = self.agency
        signing = agency.ring.signing
        encrypt_to = agency.directory.encrypt_to if head.lane != Lane.CONTROL else None
        numbered = []
        for sequence, message in enumerate(waiting, head.next_sequence):
            kind = Kind(message.kind)
            attributes = Attributes(
                id=message.message_id,
                kind=kind,
                version=1,
                source=agency.source,
                subject=message.notice_id,
                time=message.made_at,
                sequence=sequence,
                correlationid=message.correlation_id,
                causationid=message.causation_id,
                recipient=agency.peer,
                lane=Lane(head.lane),
                partition=head.partition,
                generation=head.generation,
                revision=message.revision,
                commitment=message.commitment,
                casetag=tag_of(kind, message.body, agency.ring.index_key),
                dataschema=dataschema_of(kind, 1),
            )
            envelope = seal(
                attributes,
                data=message.body,
                signing=signing,
                encrypt_to=encrypt_to,
                salt=message.salt,
            )
            numbered.append(
                Numbered(
                    sequence=sequence,
                    message_id=message.message_id,
                    kind=message.kind,
                    notice_id=message.notice_id,
                    revision=message.revision,
                    envelope=envelope,
                    envelope_hash=envelope_hash(envelope),
                    casetag=attributes.casetag,
                )
            )
        return numbered

    def _records(
        self,
        head: StreamHead,
        numbered: Sequence[Numbered],
        waiting: Sequence[Waiting],
        now: datetime,
    ) -> list[Record]:
        # Receipts stand on records already; one more record for each would never come to rest.
        commitments: dict[UUID, bytes | None] = {w.message_id: w.commitment for w in waiting}
        return [
            make_record(
                "message.sent",
                time=now,
                notice_id=message.notice_id,
                message_id=message.message_id,
                stream=head.stream,
                generation=head.generation,
                sequence=message.sequence,
                envelope=message.envelope_hash,
                commitment=commitments[message.message_id],
                casetag=message.casetag,
            )
            for message in numbered
            if message.kind not in (Kind.RECEIPTS, Kind.HEAD)
        ]

    async def _publish(
        self, head: StreamHead, messages: Sequence[Numbered], *, again: bool = False
    ) -> None:
        entries = await self.publisher.publish(self.stream, [m.envelope for m in messages])
        runs = (
            _runs(messages, entries)
            if again
            else [(messages[0].sequence, messages[-1].sequence, entries[0], entries[-1])]
        )
        async with self.agency.store.glance() as tx:
            await published.published(
                tx,
                head,
                runs,
                datetime.now(UTC),
                again=[m.sequence for m in messages] if again else (),
            )
        if again:
            MESSAGES_REPUBLISHED.labels("asked").inc(len(messages))
        else:
            for kind, count in Counter(message.kind for message in messages).items():
                MESSAGES_PUBLISHED.labels(head.lane, kind).inc(count)
        log.debug(
            "messages published",
            stream=self.stream,
            first=messages[0].sequence,
            last=messages[-1].sequence,
            count=len(messages),
            again=again,
        )


def _runs(messages: Sequence[Numbered], entries: Sequence[str]) -> list[tuple[int, int, str, str]]:
    """Group messages into runs of consecutive sequences: (first, last, first entry, last entry)."""
    runs: list[tuple[int, int, str, str]] = []
    for message, entry in zip(messages, entries, strict=True):
        if runs and message.sequence == runs[-1][1] + 1:
            first, _, first_entry, _ = runs[-1]
            runs[-1] = (first, message.sequence, first_entry, entry)
        else:
            runs.append((message.sequence, message.sequence, entry, entry))
    return runs
