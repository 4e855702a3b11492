"""Write everything a message means in one transaction, once.

Inbox row, exact bytes, content, effect, ledger record and the debt of an answer stand or fall
together. A message that came before is answered by publishing its stored answer again. Messages of
one notice are applied in order of `revision`: one that comes early is held, and visible as held.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import structlog
from pydantic import BaseModel

from schemas.envelope import Attributes, Envelope, Lane
from schemas.errors import RejectedError
from services.bus import Entry
from services.exchange import gaps
from services.exchange.agency import Agency
from services.exchange.effects import Effects, Taken
from services.exchange.outbox import OUTBOX_CHANNELS
from services.exchange.store import dead, incoming, outgoing
from services.exchange.store.incoming import InboxRow, Known
from services.exchange.store.published import republish_messages
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify
from services.telemetry.metrics import MESSAGES_RECEIVED

log = structlog.get_logger()

# A sender's clock ahead of ours by more raises an alarm; no message is refused for its time.
_SKEW_MAX = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An entry whose signature and attributes hold; not opened yet."""

    entry: Entry
    envelope: Envelope
    redriven: bool = False

    def is_new(self, before: Known | None) -> bool:
        """Return whether it is to be taken: unknown, or refused before and redriven now."""
        return before is None or (before.state == "refused" and self.redriven)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An arrived message with its content: `plain` is the canonical body, `body` its model."""

    arrived: Arrived
    salt: bytes
    plain: bytes
    body: BaseModel

    @property
    def attributes(self) -> Attributes:
        """The message's verified attributes."""
        return self.arrived.envelope.attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The transaction that takes messages."""

    agency: Agency
    effects: Effects

    async def commit(self, arrived: Sequence[Arrived], contents: Mapping[str, Opened]) -> None:
        """Take messages of one stream and generation; `contents` by entry id, for the new ones.

        Raises `RejectedError` when one of them can never be taken: then nothing was written.
        """
        now = datetime.now(UTC)
        stream = arrived[0].entry.stream
        generation = arrived[0].envelope.attributes.generation
        async with self.agency.store.transaction() as tx:
            highest = await incoming.lock_stream(tx, stream, generation)
            fresh = await self._new_ones(tx, arrived, contents, now)
            if fresh:
                await self._take(tx, fresh, now)
                sequences = [message.attributes.sequence for message in fresh]
                await gaps.note_arrivals(tx, stream, generation, highest, sequences, now)
        if fresh:
            lane = fresh[0].attributes.lane
            for kind, count in Counter(message.attributes.kind for message in fresh).items():
                MESSAGES_RECEIVED.labels(lane, kind).inc(count)
            log.info("messages taken", stream=stream, count=len(fresh))

    async def _new_ones(
        self,
        tx: Transaction,
        arrived: Sequence[Arrived],
        contents: Mapping[str, Opened],
        now: datetime,
    ) -> list[Opened]:
        """Answer duplicates with their stored answer; return what is new, one of each id.

        Raises `RejectedError` for a twin: other bytes under a known id or sequence.
        """
        attributes = [message.envelope.attributes for message in arrived]
        known = await incoming.known(tx, [a.id for a in attributes])
        holders = await incoming.taken_sequences(
            tx, arrived[0].entry.stream, attributes[0].generation, [a.sequence for a in attributes]
        )
        hashes = {message_id: before.envelope_hash for message_id, before in known.items()}
        fresh: dict[object, Opened] = {}
        duplicates: list[Known] = []
        for message in arrived:
            message_id = message.envelope.attributes.id
            sequence = message.envelope.attributes.sequence
            _refuse_twin(
                message,
                first=hashes.setdefault(message_id, message.envelope.hash),
                holder=holders.setdefault(sequence, message_id),
            )
            before = known.get(message_id)
            if message.is_new(before):
                fresh.setdefault(message_id, contents[message.entry.entry_id])
            elif before is not None:
                duplicates.append(before)
        await answer_again(tx, duplicates, now)
        return list(fresh.values())

    async def _take(self, tx: Transaction, fresh: Sequence[Opened], now: datetime) -> None:
        """Write inbox, bytes, content, records and effect of new messages."""
        turn = await self._whose_turn(tx, fresh)
        ready = {message.attributes.id for message in turn}
        stream = fresh[0].arrived.entry.stream
        generation = fresh[0].attributes.generation
        records = await append(
            tx,
            [
                make_record(
                    "message.received",
                    time=now,
                    result="taken" if message.attributes.id in ready else "held",
                    notice_id=message.attributes.subject,
                    message_id=message.attributes.id,
                    stream=stream,
                    generation=generation,
                    sequence=message.attributes.sequence,
                    envelope=message.arrived.envelope.hash,
                    commitment=message.attributes.commitment,
                )
                for message in fresh
            ],
            owes=self.agency.peer,
        )
        # Nothing here waits for the one before: it is one conversation with the server.
        async with tx.pipeline():
            await incoming.add(
                tx,
                stream,
                generation,
                [
                    InboxRow(
                        message_id=message.attributes.id,
                        sequence=message.attributes.sequence,
                        kind=str(message.attributes.kind),
                        notice_id=message.attributes.subject,
                        revision=message.attributes.revision,
                        envelope_hash=message.arrived.envelope.hash,
                        state="applied" if message.attributes.id in ready else "held",
                        record_id=record_id,
                    )
                    for message, record_id in zip(fresh, records, strict=True)
                ],
                now,
            )
            await outgoing.keep_envelopes(
                tx, [(message.attributes.id, message.arrived.entry.jws) for message in fresh]
            )
            await outgoing.keep_payloads(
                tx, [(message.attributes.id, message.salt, message.plain) for message in fresh]
            )
        await self.effects.apply(tx, [as_taken(message, now) for message in turn])
        if any(message.attributes.time - now > _SKEW_MAX for message in fresh):
            await dead.raise_alarm(tx, "NB-2121", stream, now)
        if await dead.any_open(tx):
            await dead.resolve(tx, [sha256(m.arrived.entry.jws).digest() for m in fresh], now)

    async def _whose_turn(self, tx: Transaction, fresh: Sequence[Opened]) -> list[Opened]:
        """Return the messages to apply now, in order, and note how far each notice came.

        Raises `RejectedError` for another message under a revision that was applied already.
        """
        notices = {m.attributes.subject for m in fresh if m.attributes.subject is not None}
        revisions = await incoming.applied(tx, sorted(notices))
        changed: dict[object, int] = {}
        turn: list[Opened] = []
        for message in sorted(fresh, key=lambda m: m.attributes.revision or 0):
            notice_id, revision = message.attributes.subject, message.attributes.revision
            if notice_id is None or revision is None:
                turn.append(message)
                continue
            done = revisions.get(notice_id, 0)
            if revision <= done:
                raise RejectedError("NB-2153", message_id=message.attributes.id, revision=revision)
            if revision == done + 1:
                turn.append(message)
                revisions[notice_id] = changed[notice_id] = revision
        if changed and not await incoming.advance(
            tx, {n: revisions[n] for n in notices if n in changed}
        ):
            # Another stream was faster with the same revision; tried alone, the culprit is found.
            first = turn[0].attributes
            raise RejectedError("NB-2153", message_id=first.id, revision=first.revision)
        return turn


async def first_taken(tx: Transaction, message: Arrived) -> Known | None:
    """Return what the inbox holds of a message, None if nothing; the caller holds its stream.

    Raises `RejectedError` NB-2151 or NB-2152 when it is a twin of what the inbox holds.
    """
    attributes = message.envelope.attributes
    before = (await incoming.known(tx, [attributes.id])).get(attributes.id)
    holders = await incoming.taken_sequences(
        tx, message.entry.stream, attributes.generation, [attributes.sequence]
    )
    _refuse_twin(
        message,
        first=message.envelope.hash if before is None else before.envelope_hash,
        holder=holders.get(attributes.sequence, attributes.id),
    )
    return before


async def answer_again(tx: Transaction, duplicates: Sequence[Known], now: datetime) -> None:
    """Ask for the stored answers to messages that came before, byte for byte."""
    if not duplicates:
        return
    answers = [d.answered_by for d in duplicates if d.answered_by is not None]
    records = [d.record_id for d in duplicates if d.record_id is not None]
    # An answer that is not sealed yet needs no repetition: it will go out by itself.
    answers += await incoming.answers_of(tx, records)
    if answers and await republish_messages(tx, answers, now):
        await notify(tx, OUTBOX_CHANNELS[Lane.CONTROL])


def _refuse_twin(message: Arrived, *, first: bytes, holder: UUID) -> None:
    """Raise if other bytes came first under its id, or another message under its sequence."""
    attributes = message.envelope.attributes
    if first != message.envelope.hash:
        raise RejectedError("NB-2151", message_id=attributes.id)
    if holder != attributes.id:
        raise RejectedError("NB-2152", message_id=attributes.id, sequence=attributes.sequence)


def as_taken(message: Opened, received_at: datetime) -> Taken:
    """Return a message as the agency's effects see it."""
    attributes = message.attributes
    return Taken(
        message_id=attributes.id,
        kind=attributes.kind,
        notice_id=attributes.subject,
        revision=attributes.revision,
        body=message.body,
        attributes=attributes,
        received_at=received_at,
    )
