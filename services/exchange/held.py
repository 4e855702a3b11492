"""Apply messages that were held until the earlier revisions of their notice had come."""

from datetime import UTC, datetime

from schemas.envelope import read, verify
from services.bus import Entry
from services.exchange.agency import Agency
from services.exchange.delivery import open_message
from services.exchange.effects import Effects
from services.exchange.intake import Arrived, as_taken
from services.exchange.store import incoming
from services.ledger.records import make_record
from services.ledger.store import append


async def apply_held(agency: Agency, effects: Effects) -> int:
    """Apply held messages whose turn has come, in one transaction; returns how many."""
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        held = await incoming.next_held(tx)
        if not held:
            return 0
        # The stored bytes are opened as on arrival: what is applied is what was receipted.
        keys = agency.directory.verify_keys
        opened = [
            open_message(
                agency,
                Arrived(
                    entry=Entry(stream="", entry_id="", jws=message.envelope, delivered=1),
                    envelope=verify(read(message.envelope), keys),
                ),
            )
            for message in held
        ]
        await incoming.apply_held(tx, [message.message_id for message in held])
        await incoming.advance(tx, {message.notice_id: message.revision for message in held})
        await effects.apply(
            tx,
            [as_taken(m, h.received_at) for m, h in zip(opened, held, strict=True)],
        )
        await append(
            tx,
            [
                make_record(
                    "message.applied",
                    time=now,
                    notice_id=message.notice_id,
                    message_id=message.message_id,
                    detail={"revision": message.revision},
                )
                for message in held
            ],
        )
    return len(held)
