"""Take control messages: receipts, refusals, resend requests, voids and heads.

They are signed, hold no personal data, and owe no answer. A receipt is believed only when the root
recomputed from its batch is the one in a checkpoint signed by the peer's log key; what does not fit
raises `EvidenceError`, the obligations stay open, and both sides' bytes are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import structlog
from pydantic import BaseModel

from schemas.canonical import parse_time, unb64
from schemas.catalog import parse_body
from schemas.envelope import Attributes, Kind
from schemas.errors import EvidenceError, RejectedError
from schemas.reply import Head, Receipts, Refusal, Resend, Void
from services.exchange import conflicts, ended, gaps, heads, refusals, resending
from services.exchange.agency import Agency
from services.exchange.effects import Answered, Effects
from services.exchange.intake import Arrived, sort_out
from services.exchange.outbox import WINDOW_CHANNEL
from services.exchange.receipts import Batch, verify_batch
from services.exchange.store import answered, dead, incoming, voided
from services.exchange.store.incoming import InboxRow
from services.exchange.store.renewals import SIGNED_BY_REVOKED
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify, together
from services.telemetry.metrics import MESSAGES_RECEIVED

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Takes the peer's control stream: refusals together, any other message by itself."""

    agency: Agency
    effects: Effects

    async def take(self, arrived: Sequence[Arrived]) -> None:
        """Take one control message, or several refusals of one generation, in one transaction.

        What was taken before has no effect. Raises `RejectedError` for a body that breaks its
        schema and for a twin, `EvidenceError` for a receipt that proves nothing; nothing is
        written then, but both notes where it contradicts what was signed before.
        """
        try:
            await self._take(arrived)
        except conflicts.ContradictionError as found:
            await conflicts.keep_apart(self.agency.store, found)
            raise

    async def _take(self, arrived: Sequence[Arrived]) -> None:
        now = datetime.now(UTC)
        bodies = {message.envelope.attributes.id: _body(message) for message in arrived}
        stream = arrived[0].entry.stream
        generation = arrived[0].envelope.attributes.generation
        named = [message.envelope.attributes for message in arrived]
        async with self.agency.store.pipelined() as tx:
            highest, (known, holders), waited = await together(
                incoming.lock_stream(tx, stream, generation),
                incoming.before(
                    tx, stream, generation, [e.id for e in named], [e.sequence for e in named]
                ),
                dead.any_open(tx),
            )
            fresh, _ = sort_out(arrived, known, holders)
            if not fresh:
                return
            attributes = [message.envelope.attributes for message in fresh]
            if attributes[0].kind is Kind.REFUSAL:
                carried = [(each.id, _refusal(bodies[each.id])) for each in attributes]
                await refusals.take(tx, self.agency, self.effects, carried, now)
            else:
                (message,) = fresh
                await self._take_one(tx, message, bodies[attributes[0].id], now)
            # Last: what asks for control messages that came before finds none of these.
            rows = [
                InboxRow(
                    message_id=message.envelope.attributes.id,
                    sequence=message.envelope.attributes.sequence,
                    kind=str(message.envelope.attributes.kind),
                    notice_id=None,
                    revision=None,
                    envelope_hash=message.envelope.hash,
                    state="control",
                    envelope=message.entry.jws,
                )
                for message in fresh
            ]
            await incoming.add(tx, stream, generation, rows, now)
            if waited:
                hashes = [sha256(message.entry.jws).digest() for message in fresh]
                await dead.resolve(tx, hashes, now)
            sequences = [each.sequence for each in attributes]
            await gaps.note_arrivals(tx, stream, generation, highest, sequences, now)
        MESSAGES_RECEIVED.labels(attributes[0].lane, attributes[0].kind).inc(len(fresh))

    async def _take_one(
        self, tx: Transaction, message: Arrived, body: BaseModel, now: datetime
    ) -> None:
        attributes = message.envelope.attributes
        match body:
            case Receipts():
                await self._receipts(tx, attributes, message.envelope.hash, body, now)
            case Resend():
                await self._resend(tx, attributes, body, now)
            case Void():
                await self._void(tx, attributes, body, now)
            case Head():
                await heads.take(tx, self.agency, body, attributes, now)
            case _:
                raise AssertionError(attributes.kind)

    async def _receipts(
        self,
        tx: Transaction,
        attributes: Attributes,
        envelope_hash: bytes,
        receipts: Receipts,
        now: datetime,
    ) -> None:
        batch = verify_batch(receipts, self.agency)
        checkpoint = batch.checkpoint
        named = [
            (UUID(record["message_id"]), unb64(record["envelope"]), index)
            for index, record in batch.records
            if record.get("action") == "message.received"
        ]
        _, _, ours = await together(
            ended.check(tx, batch),
            conflicts.check_batch(tx, self.agency, batch, attributes),
            answered.known_hashes(tx, [message_id for message_id, _, _ in named]),
        )
        await ended.take(tx, self.agency, batch, now)
        place = attributes.generation, attributes.sequence
        await answered.keep_peer_checkpoint(tx, checkpoint, batch.note, place=place, now=now)
        if batch.grown is not None:
            await answered.keep_peer_checkpoint(tx, *batch.grown, place=None, now=now)
        if any(ours.get(message_id) != envelope for message_id, envelope, _ in named):
            raise EvidenceError("NB-3022", index=receipts.index)
        overtaken = await _overtaken(tx, batch)
        discharged = await answered.receipted(
            tx,
            answer_message=attributes.id,
            receipts=[receipt for receipt in named if receipt[0] not in overtaken],
            now=now,
        )
        await append(
            tx,
            [
                make_record(
                    "receipts.verified",
                    time=now,
                    message_id=attributes.id,
                    envelope=envelope_hash,
                    detail={
                        "index": receipts.index,
                        "size": checkpoint.size,
                        "receipts": len(named),
                    },
                )
            ],
        )
        await self.effects.answered(
            tx,
            [
                Answered(
                    message_id=message_id,
                    notice_id=notice_id,
                    kind=Kind(kind),
                    receipt=True,
                    code=None,
                    answered_at=now,
                )
                for message_id, notice_id, kind in discharged
            ],
        )
        # The window has room again.
        await notify(tx, WINDOW_CHANNEL)
        log.debug("receipts verified", count=len(named), size=checkpoint.size)

    async def _resend(
        self, tx: Transaction, attributes: Attributes, resend: Resend, now: datetime
    ) -> None:
        """Give again what the peer misses, as far as it is here."""
        provided = await resending.provide(tx, resend, now=now)
        await append(
            tx,
            [
                make_record(
                    "resend.asked",
                    time=now,
                    message_id=attributes.id,
                    stream=resend.stream,
                    generation=resend.generation,
                    detail={
                        "first": resend.first,
                        "last": resend.last,
                        "count": provided.asked,
                        "void": provided.void,
                    },
                )
            ],
        )

    async def _void(
        self, tx: Transaction, attributes: Attributes, void: Void, now: datetime
    ) -> None:
        """Close a gap that the sender says will never be filled; a person learns of it."""
        if not void.stream.startswith(f"{{{self.agency.peer}.{self.agency.name}."):
            raise RejectedError("NB-5023", stream=void.stream)
        highest = await incoming.lock_stream(tx, void.stream, void.generation)
        missing = await gaps.note_void(
            tx, void.stream, void.generation, highest, first=void.first, last=void.last, now=now
        )
        await voided.keep(tx, void, attributes.id, now)
        await append(
            tx,
            [
                make_record(
                    "gap.voided",
                    time=now,
                    message_id=attributes.id,
                    stream=void.stream,
                    generation=void.generation,
                    reason=void.code,
                    detail={"first": void.first, "last": void.last, "missing": missing},
                )
            ],
        )
        again = void.code == SIGNED_BY_REVOKED
        if missing and not again:
            await dead.raise_alarm(tx, "NB-5021", void.stream, now)
        tell = log.warning if again else log.error
        tell(
            "messages will never arrive",
            stream=void.stream,
            first=void.first,
            last=void.last,
            code=void.code,
        )


def _body(message: Arrived) -> BaseModel:
    attributes = message.envelope.attributes
    return parse_body(attributes.kind, attributes.version, message.envelope.plain())


def _refusal(body: BaseModel) -> Refusal:
    assert isinstance(body, Refusal), type(body)
    return body


async def _overtaken(tx: Transaction, batch: Batch) -> set[UUID]:
    """Return the messages of a batch that were held, and refused since: their refusal stands."""
    held = {
        UUID(record["message_id"]): parse_time(record["time"])
        for _, record in batch.records
        if record.get("action") == "message.received" and record.get("result") == "held"
    }
    return await answered.refused_since(tx, held) if held else set()
