"""Take the peer's refusals of our messages, as many at a time as came together.

A mistake in thousands of notices is thousands of refusals, and each in a transaction of its own
took a hundred times as long. What one of them does to its message is the same alone or among
others: it is refused if it has no answer yet, a receipt that says it was held, or an earlier
refusal.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

import structlog

from schemas.canonical import format_time, parse_time, unb64
from schemas.envelope import Kind
from schemas.reply import Refusal
from services.exchange.agency import Agency
from services.exchange.effects import Answered, Effects
from services.exchange.outbox import WINDOW_CHANNEL
from services.exchange.receipts import receipted_record
from services.exchange.store import answered
from services.exchange.store.answered import Receipt, Refused
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify

log = structlog.get_logger()

# A refusal with the id of the message that carried it.
Carried = tuple[UUID, Refusal]


async def take(
    tx: Transaction,
    agency: Agency,
    effects: Effects,
    refusals: Sequence[Carried],
    now: datetime,
) -> None:
    """Note that messages of ours are refused, in the order in which their refusals came.

    Raises `EvidenceError` for a receipt of ours that does not prove what it did when it came.
    """
    for batch in _one_a_message(refusals):
        await _take(tx, agency, effects, batch, now)
    await notify(tx, WINDOW_CHANNEL)


def _one_a_message(refusals: Sequence[Carried]) -> Iterator[list[Carried]]:
    """Split before each message that is refused again: what came first is said first."""
    batch: dict[UUID, Carried] = {}
    for carried in refusals:
        if carried[1].message_id in batch:
            yield list(batch.values())
            batch.clear()
        batch[carried[1].message_id] = carried
    yield list(batch.values())


async def _take(
    tx: Transaction,
    agency: Agency,
    effects: Effects,
    batch: Sequence[Carried],
    now: datetime,
) -> None:
    said = [refusal for _, refusal in batch]
    held = await _held_before(tx, agency, said)
    earlier = await answered.refused_before(tx, said)
    noted = await answered.refused(
        tx,
        [
            Refused(
                message_id=refusal.message_id,
                envelope_hash=unb64(refusal.envelope),
                answer_message=carrier,
                code=refusal.code,
                before="receipt"
                if refusal.message_id in held
                else "refusal"
                if refusal.message_id in earlier
                else None,
            )
            for carrier, refusal in batch
        ],
        now,
    )
    for refusal in said:
        if refusal.message_id not in noted:
            # Answered already, or bytes that we never sent: nothing of ours is refused by it.
            log.warning("refusal names nothing open", message_id=str(refusal.message_id))
    believed = [(carrier, refusal) for carrier, refusal in batch if refusal.message_id in noted]
    if not believed:
        return
    await answered.keep_refusals(
        tx,
        [(refusal, carrier, held.get(refusal.message_id)) for carrier, refusal in believed],
        now,
    )
    await append(
        tx,
        [
            make_record(
                "refusal.received",
                time=now,
                result="dead",
                notice_id=noted[refusal.message_id][0],
                message_id=refusal.message_id,
                stream=refusal.stream,
                generation=refusal.generation,
                sequence=refusal.sequence,
                reason=refusal.code,
                detail={"answer": str(carrier), "refused_at": format_time(refusal.at)},
            )
            for carrier, refusal in believed
        ],
    )
    await effects.answered(
        tx,
        [
            Answered(
                message_id=refusal.message_id,
                notice_id=noted[refusal.message_id][0],
                kind=Kind(noted[refusal.message_id][1]),
                receipt=False,
                code=refusal.code,
                answered_at=now,
            )
            for _, refusal in believed
        ],
    )
    for _, refusal in believed:
        log.error("message refused by peer", message_id=str(refusal.message_id), code=refusal.code)


async def _held_before(
    tx: Transaction, agency: Agency, refusals: Sequence[Refusal]
) -> dict[UUID, Receipt]:
    """Return the receipts of messages that were held before these refusals.

    A receipt of what was taken stands, whatever is said later.
    """
    receipts = await answered.receipts_of(tx, [refusal.message_id for refusal in refusals])
    held: dict[UUID, Receipt] = {}
    for refusal in refusals:
        receipt = receipts.get(refusal.message_id)
        if receipt is None:
            continue
        record = receipted_record(agency, receipt.envelope, receipt.index)
        if record is None or record.get("result") != "held":
            continue
        if parse_time(record["time"]) <= refusal.at:
            held[refusal.message_id] = receipt
    return held
