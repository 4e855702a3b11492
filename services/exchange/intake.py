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

from schemas import codes
from schemas.canonical import b64
from schemas.envelope import Attributes, Envelope, Lane
from schemas.errors import RejectedError
from services.bus import Entry
from services.exchange import gaps, superseding
from services.exchange.agency import Agency
from services.exchange.effects import Effects, Taken
from services.exchange.outbox import OUTBOX_CHANNELS
from services.exchange.store import dead, incoming
from services.exchange.store.incoming import InboxRow, Known
from services.exchange.store.published import republish_messages
from services.exchange.store.renewals import Content, repeated
from services.ledger.records import make_record
from services.ledger.store import Transaction, append_returning, notify, together
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
    """An arrived message with its content: `plain` is the canonical body, `body` its model.

    `casetag` is what we made of the content, None without an index key.
    """

    arrived: Arrived
    salt: bytes
    plain: bytes
    body: BaseModel
    casetag: bytes | None = None

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
        named = [message.envelope.attributes for message in arrived]
        notices = {each.subject for each in named if each.subject is not None}
        async with self.agency.store.pipelined() as tx:
            highest, (known, holders), reached, waited = await together(
                incoming.lock_stream(tx, stream, generation),
                incoming.before(
                    tx, stream, generation, [e.id for e in named], [e.sequence for e in named]
                ),
                incoming.applied(tx, sorted(notices)),
                dead.any_open(tx),
            )
            new, duplicates = sort_out(arrived, known, holders)
            await answer_again(tx, duplicates, now)
            fresh = [contents[message.entry.entry_id] for message in new]
            if fresh:
                await self._take(tx, fresh, reached, now, waited=waited)
                sequences = [message.attributes.sequence for message in fresh]
                await gaps.note_arrivals(tx, stream, generation, highest, sequences, now)
        if fresh:
            lane = fresh[0].attributes.lane
            for kind, count in Counter(message.attributes.kind for message in fresh).items():
                MESSAGES_RECEIVED.labels(lane, kind).inc(count)
            log.debug("messages taken", stream=stream, count=len(fresh))

    async def _take(
        self,
        tx: Transaction,
        fresh: Sequence[Opened],
        reached: dict[UUID, int],
        now: datetime,
        *,
        waited: bool,
    ) -> None:
        """Write inbox, bytes, content, records and effect of new messages.

        `reached` says how far the revisions of their notices came, `waited` whether any dead letter
        is open.
        """
        known = await _repeated(tx, fresh)
        turn, changed = await self._whose_turn(
            tx, [message for message in fresh if message.attributes.id not in known], reached
        )
        arrived = await self._first_arrivals(tx, fresh) if waited else {}
        passed = await superseding.arrivals(tx, [message.attributes for message in turn])
        began = {**arrived, **passed}
        ready = {message.attributes.id for message in turn} | known
        stream = fresh[0].arrived.entry.stream
        generation = fresh[0].attributes.generation
        records = [
            make_record(
                "message.received",
                time=now,
                result=(
                    "repeated"
                    if message.attributes.id in known
                    else "taken"
                    if message.attributes.id in ready
                    else "held"
                ),
                notice_id=message.attributes.subject,
                message_id=message.attributes.id,
                stream=stream,
                generation=generation,
                sequence=message.attributes.sequence,
                envelope=message.arrived.envelope.hash,
                commitment=message.attributes.commitment,
                # What it opens is due by this version's clocks, whatever is in force later.
                policy=codes.policy().version,
                casetag=message.casetag,
                detail=superseding.said(began.get(message.attributes.id)),
            )
            for message in fresh
        ]
        advanced, record_ids = await together(
            incoming.advance(tx, changed),
            append_returning(tx, records, owes=self.agency.peer),
        )
        if not advanced:
            # Another stream was faster with the same revision; tried alone, the culprit is found.
            first = (turn or fresh)[0].attributes
            raise RejectedError("NB-2153", message_id=first.id, revision=first.revision)
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
                    envelope=message.arrived.entry.jws,
                    salt=message.salt,
                    plain=message.plain,
                )
                for message, record_id in zip(fresh, record_ids, strict=True)
            ],
            now,
        )
        if arrived:
            await incoming.set_arrived(tx, arrived)
        await self.effects.apply(
            tx,
            [
                as_taken(
                    message,
                    now,
                    since=began.get(message.attributes.id),
                    stands_in=message.attributes.id in passed,
                )
                for message in turn
            ],
        )
        if any(message.attributes.time - now > _SKEW_MAX for message in fresh):
            await dead.raise_alarm(tx, "NB-2121", stream, now)
        if waited:
            await dead.resolve(tx, [_bytes_hash(message) for message in fresh], now)
            await superseding.resolve(tx, [message.attributes for message in turn], now)

    async def _first_arrivals(
        self, tx: Transaction, fresh: Sequence[Opened]
    ) -> dict[UUID, datetime]:
        """Return when messages that were set aside first arrived: redrive restarts no clock."""
        by_bytes = {_bytes_hash(message): message.attributes.id for message in fresh}
        first = await dead.first_arrivals(tx, list(by_bytes))
        return {by_bytes[bytes_hash]: at for bytes_hash, at in first.items()}

    async def _whose_turn(
        self, tx: Transaction, fresh: Sequence[Opened], reached: dict[UUID, int]
    ) -> tuple[list[Opened], dict[UUID, int]]:
        """Return the messages to apply now, in order, and how far each notice comes by them.

        `reached` says how far each came before. Raises `RejectedError` for another message under a
        revision that was applied already.
        """
        revisions = dict(reached)
        changed = await superseding.step_over(tx, [m.attributes for m in fresh], revisions)
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
        return turn, changed


async def _repeated(tx: Transaction, fresh: Sequence[Opened]) -> set[UUID]:
    """Return the messages whose content took effect under another id: their key was revoked.

    They are receipted and have no effect. Only what names a cause can be one.
    """
    contents = [
        Content(
            message_id=each.id,
            notice_id=each.subject,
            revision=each.revision,
            commitment=b64(each.commitment),
        )
        for each in (message.attributes for message in fresh)
        if each.causationid is not None
        and each.subject is not None
        and each.revision is not None
        and each.commitment is not None
    ]
    return await repeated(tx, contents) if contents else set()


def sort_out(
    arrived: Sequence[Arrived], known: Mapping[UUID, Known], holders: dict[int, UUID]
) -> tuple[list[Arrived], list[Known]]:
    """Return what is new of a stream's messages, one of each id, and what came before.

    `known` and `holders` say what the inbox holds under their ids and sequences, read while the
    stream is held. Raises `RejectedError` NB-2151 or NB-2152 for a twin: other bytes under a known
    id or sequence.
    """
    hashes = {message_id: before.envelope_hash for message_id, before in known.items()}
    fresh: dict[UUID, Arrived] = {}
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
            fresh.setdefault(message_id, message)
        elif before is not None:
            duplicates.append(before)
    return list(fresh.values()), duplicates


async def first_taken(tx: Transaction, message: Arrived) -> Known | None:
    """Return what the inbox holds of a message, None if nothing; the caller holds its stream.

    Raises `RejectedError` NB-2151 or NB-2152 when it is a twin of what the inbox holds.
    """
    attributes = message.envelope.attributes
    known, holders = await incoming.before(
        tx,
        message.entry.stream,
        attributes.generation,
        [attributes.id],
        [attributes.sequence],
    )
    before = known.get(attributes.id)
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


def _bytes_hash(message: Opened) -> bytes:
    return sha256(message.arrived.entry.jws).digest()


def as_taken(
    message: Opened,
    received_at: datetime,
    *,
    since: datetime | None = None,
    stands_in: bool = False,
) -> Taken:
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
        since=since,
        stands_in=stands_in,
    )
