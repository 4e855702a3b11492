"""Accept messages for the other agency: from here on nothing is lost.

A message is accepted when the transaction that wrote it has committed. It has no sequence yet; the
relay numbers it, signs it and keeps the bytes before anything reaches the bus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schemas.envelope import Kind, Lane, commitment, partition_of, stream_name
from schemas.errors import RejectedError, UnavailableError
from services.exchange.store import outgoing
from services.ledger.store import Transaction, notify

# Base64 twice over, once encrypted and once signed, makes an envelope of 256 KiB out of this.
BODY_BYTES_MAX = 140_000

# Who is woken by a commit: the relays of a lane, or those whose window was full.
OUTBOX_CHANNELS = {lane: f"outbox_{lane}" for lane in Lane}
WINDOW_CHANNEL = "window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One message as its maker wants it said: `body` is canonical JSON, `salt` 32 random bytes."""

    message_id: UUID
    kind: Kind
    lane: Lane
    notice_id: UUID | None
    revision: int | None
    body: bytes
    salt: bytes
    correlation_id: UUID
    causation_id: UUID | None = None
    made_at: datetime

    @property
    def commitment(self) -> bytes:
        """Return what binds this message's record and envelope to its content."""
        return commitment(self.salt, self.body)


async def declare_streams(
    tx: Transaction,
    *,
    sender: str,
    recipient: str,
    partitions: Mapping[str, int],
    generation: int = 1,
) -> None:
    """Make sure that every stream from `sender` to `recipient` has its row; safe to repeat."""
    streams = [
        (stream_name(sender, recipient, lane, number), str(lane), number)
        for lane in Lane
        for number in range(1 if lane is Lane.CONTROL else partitions.get(lane, 1))
    ]
    await outgoing.declare(tx, streams, generation)


async def accept(tx: Transaction, drafts: Sequence[Draft]) -> None:
    """Write messages into the outbox, each for its lane and notice, and wake the relay.

    The caller writes the ledger record in the same transaction. Raises `RejectedError` NB-2156 for
    content that no envelope can carry, `UnavailableError` when this agency has no streams yet.
    """
    for draft in drafts:
        if len(draft.body) > BODY_BYTES_MAX:
            raise RejectedError("NB-2156", size=len(draft.body), limit=BODY_BYTES_MAX)
    streams = await outgoing.streams_by_lane(tx)
    if not streams:
        raise UnavailableError("NB-4010")
    rows = []
    for draft in drafts:
        lane_streams = streams[draft.lane]
        partition = (
            partition_of(draft.notice_id, len(lane_streams)) if draft.notice_id is not None else 0
        )
        rows.append(
            outgoing.OutboxRow(
                stream=lane_streams[partition],
                message_id=draft.message_id,
                kind=str(draft.kind),
                notice_id=draft.notice_id,
                revision=draft.revision,
                correlation_id=draft.correlation_id,
                causation_id=draft.causation_id,
                commitment=draft.commitment,
                made_at=draft.made_at,
            )
        )
    await outgoing.add(tx, rows)
    await outgoing.keep_payloads(tx, [(d.message_id, d.salt, d.body) for d in drafts])
    for lane in sorted({draft.lane for draft in drafts}):
        await notify(tx, OUTBOX_CHANNELS[lane])


async def say(
    tx: Transaction,
    *,
    message_id: UUID,
    kind: Kind,
    body: bytes,
    correlation_id: UUID,
    causation_id: UUID | None,
    made_at: datetime,
    checkpoint_size: int | None = None,
) -> None:
    """Put one control message (signed, not encrypted, owed no answer) into the outbox.

    One that rests on a checkpoint of ours leaves, and wakes the relay, once that one is anchored.
    """
    await outgoing.say(
        tx,
        message_id=message_id,
        kind=str(kind),
        correlation_id=correlation_id,
        causation_id=causation_id,
        made_at=made_at,
        body=body,
        checkpoint_size=checkpoint_size,
    )
    if checkpoint_size is None:
        await notify(tx, OUTBOX_CHANNELS[Lane.CONTROL])
