"""Answer what was taken: receipts made from sealed records, one message for each sealed batch.

A receipt is an inclusion proof: the recipient's record of the message under a signed checkpoint.
They travel together (records, the frontier before them, the checkpoint), and the other side
recomputes the root and derives each proof. The sealer calls `answer` inside the transaction that
stores the checkpoint, so that no answer rests on a checkpoint that was rolled back.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from uuid_utils.compat import uuid7

from schemas.canonical import b64, canonical, parse
from schemas.envelope import Kind
from schemas.proof import leaf_hash
from services.exchange import outbox
from services.exchange.agency import Agency
from services.exchange.store import incoming
from services.ledger.sealer import Sealed
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True)
class Answers:
    """Makes the receipts that a sealed batch owes."""

    agency: Agency

    async def answer(self, tx: Transaction, sealed: Sealed) -> None:
        """Put the receipts of a sealed batch into the outbox, as one control message."""
        message_id = uuid7()
        # Others' records appear as leaf hashes: the reader needs them for the root, not to read.
        entries = [
            {"record": parse(record.record)}
            if record.owes == self.agency.peer
            else {"leaf": b64(leaf_hash(record.record))}
            for record in sealed.records
        ]
        body = canonical(
            {
                "schema_version": "receipts/1.0",
                "index": sealed.first_index,
                "frontier": [b64(node) for node in sealed.frontier_before],
                "entries": entries,
                "checkpoint": sealed.checkpoint,
            }
        )
        await outbox.say(
            tx,
            message_id=message_id,
            kind=Kind.RECEIPTS,
            body=body,
            correlation_id=message_id,
            causation_id=None,
            made_at=datetime.now(UTC),
            checkpoint_size=sealed.size,
        )
        await incoming.keep_answer_batch(
            tx, first_index=sealed.first_index, size=sealed.size, message_id=message_id
        )
