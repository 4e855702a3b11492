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

from schemas.canonical import unb64
from schemas.catalog import parse_body
from schemas.checkpoint import verify_checkpoint
from schemas.envelope import Attributes, Kind
from schemas.errors import EvidenceError
from schemas.reply import Head, Receipts, Refusal, Resend, Void
from services.exchange import gaps
from services.exchange.agency import Agency
from services.exchange.effects import Answered, Effects
from services.exchange.intake import Arrived, first_taken
from services.exchange.outbox import OUTBOX_CHANNELS, WINDOW_CHANNEL
from services.exchange.receipts import verify_batch
from services.exchange.store import answered, dead, incoming, outgoing, published
from services.exchange.store.incoming import InboxRow
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify
from services.telemetry.metrics import MESSAGES_RECEIVED

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Takes the peer's control stream, one message a transaction."""

    agency: Agency
    effects: Effects

    async def take(self, arrived: Sequence[Arrived]) -> None:
        """Take one control message; one that was taken before has no effect.

        Raises `RejectedError` for a body that breaks its schema and for a twin, `EvidenceError`
        for a receipt that proves nothing.
        """
        (message,) = arrived
        now = datetime.now(UTC)
        attributes = message.envelope.attributes
        body = parse_body(attributes.kind, attributes.version, message.envelope.plain())
        async with self.agency.store.transaction() as tx:
            stream = message.entry.stream
            highest = await incoming.lock_stream(tx, stream, attributes.generation)
            if not message.is_new(await first_taken(tx, message)):
                return
            await outgoing.keep_envelopes(tx, [(attributes.id, message.entry.jws)])
            match body:
                case Receipts():
                    await self._receipts(tx, attributes, message.envelope.hash, body, now)
                case Refusal():
                    await self._refusal(tx, attributes, body, now)
                case Resend():
                    await self._resend(tx, attributes, body, now)
                case Void():
                    await self._void(tx, attributes, body, now)
                case Head():
                    verify_checkpoint(body.checkpoint, self.agency.directory.log_keys)
                case _:
                    raise AssertionError(attributes.kind)
            row = InboxRow(
                message_id=attributes.id,
                sequence=attributes.sequence,
                kind=str(attributes.kind),
                notice_id=None,
                revision=None,
                envelope_hash=message.envelope.hash,
                state="control",
            )
            await incoming.add(tx, stream, attributes.generation, [row], now)
            if await dead.any_open(tx):
                await dead.resolve(tx, [sha256(message.entry.jws).digest()], now)
            await gaps.note_arrivals(
                tx, stream, attributes.generation, highest, [attributes.sequence], now
            )
        MESSAGES_RECEIVED.labels(attributes.lane, attributes.kind).inc()

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
        earlier = await answered.keep_peer_checkpoint(
            tx,
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root,
            note=batch.note,
            now=now,
        )
        if earlier != checkpoint.root:
            raise EvidenceError("NB-3021", origin=checkpoint.origin, size=checkpoint.size)
        named = [
            (UUID(record["message_id"]), unb64(record["envelope"]), index)
            for index, record in batch.records
            if record.get("action") == "message.received"
        ]
        ours = await answered.known_hashes(tx, [message_id for message_id, _, _ in named])
        if any(ours.get(message_id) != envelope for message_id, envelope, _ in named):
            raise EvidenceError("NB-3022", index=receipts.index)
        discharged = await answered.receipted(
            tx, answer_message=attributes.id, receipts=named, now=now
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
        log.info("receipts verified", count=len(named), size=checkpoint.size)

    async def _refusal(
        self, tx: Transaction, attributes: Attributes, refusal: Refusal, now: datetime
    ) -> None:
        refused = await answered.refused(
            tx,
            message_id=refusal.message_id,
            envelope_hash=unb64(refusal.envelope),
            answer_message=attributes.id,
            code=refusal.code,
            now=now,
        )
        if refused is None:
            # Answered already, or bytes that we never sent: nothing of ours is refused by it.
            log.warning("refusal names nothing open", message_id=str(refusal.message_id))
            return
        notice_id, kind = refused
        await append(
            tx,
            [
                make_record(
                    "refusal.received",
                    time=now,
                    result="dead",
                    notice_id=notice_id,
                    message_id=refusal.message_id,
                    stream=refusal.stream,
                    generation=refusal.generation,
                    sequence=refusal.sequence,
                    reason=refusal.code,
                )
            ],
        )
        await self.effects.answered(
            tx,
            [
                Answered(
                    message_id=refusal.message_id,
                    notice_id=notice_id,
                    kind=Kind(kind),
                    receipt=False,
                    code=refusal.code,
                    answered_at=now,
                )
            ],
        )
        await notify(tx, WINDOW_CHANNEL)
        log.error("message refused by peer", message_id=str(refusal.message_id), code=refusal.code)

    async def _resend(
        self, tx: Transaction, attributes: Attributes, resend: Resend, now: datetime
    ) -> None:
        """Ask the relay for a range's stored bytes, and declare void what has none."""
        asked = await published.republish(
            tx,
            stream=resend.stream,
            generation=resend.generation,
            first=resend.first,
            last=resend.last,
            cause="resend",
            now=now,
            unanswered_only=False,
        )
        await append(
            tx,
            [
                make_record(
                    "resend.asked",
                    time=now,
                    message_id=attributes.id,
                    stream=resend.stream,
                    generation=resend.generation,
                    detail={"first": resend.first, "last": resend.last, "count": asked},
                )
            ],
        )
        for channel in OUTBOX_CHANNELS.values():
            await notify(tx, channel)

    async def _void(
        self, tx: Transaction, attributes: Attributes, void: Void, now: datetime
    ) -> None:
        """Close a gap that the sender says will never be filled."""
        highest = await incoming.lock_stream(tx, void.stream, void.generation)
        await gaps.note_void(
            tx, void.stream, void.generation, highest, first=void.first, last=void.last, now=now
        )
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
                    detail={"first": void.first, "last": void.last},
                )
            ],
        )
