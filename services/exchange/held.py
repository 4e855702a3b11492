"""Apply messages that were held until the earlier revisions of their notice had come.

They go together; when that fails, each alone. One that can never be applied is set aside at once,
one that fails for another reason after its attempts, so that it stops neither the others nor us.
"""

from datetime import UTC, datetime
from uuid import UUID

import structlog

from schemas import codes
from schemas.envelope import read, verify
from schemas.errors import EvidenceError, RejectedError, UnavailableError
from services.bus import Entry
from services.exchange import aside, superseding
from services.exchange.agency import Agency
from services.exchange.delivery import open_message
from services.exchange.effects import Effects
from services.exchange.intake import Arrived, as_taken
from services.exchange.store import incoming
from services.exchange.store.incoming import Held
from services.ledger.records import make_record
from services.ledger.store import append

log = structlog.get_logger()


async def apply_held(agency: Agency, effects: Effects) -> int:
    """Apply held messages whose turn has come; returns how many.

    What a held message stands in for is stepped over first.

    Raises `UnavailableError` when the store is away, and nothing else.
    """
    async with agency.store.transaction() as tx:
        while await incoming.step_over(tx):
            pass
    held: list[Held] = []
    try:
        return await _apply(agency, effects, held)
    except UnavailableError:
        raise
    except Exception:  # noqa: BLE001  (whatever it is: one message must not stop the rest)
        return sum([await _apply_alone(agency, effects, message) for message in held])


async def _apply(
    agency: Agency, effects: Effects, held: list[Held], *, only: UUID | None = None
) -> int:
    """Apply what can be applied, in one transaction; `held` receives what was tried."""
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        pause = agency.settings.delivery.backoff_seconds_min
        held += await incoming.next_held(tx, now=now, pause=pause, only=only)
        if not held:
            return 0
        # The stored bytes are opened as on arrival: what is applied is what was receipted.
        opened = [open_message(agency, _arrived(agency, message)) for message in held]
        await incoming.apply_held(tx, [message.message_id for message in held])
        await incoming.advance(tx, {message.notice_id: message.revision for message in held})
        attributes = [message.attributes for message in opened]
        passed = await superseding.arrivals(tx, attributes)
        await effects.apply(
            tx,
            [
                as_taken(
                    message,
                    each.received_at,
                    since=passed.get(each.message_id),
                    stands_in=each.message_id in passed,
                )
                for message, each in zip(opened, held, strict=True)
            ],
        )
        await superseding.resolve(tx, attributes, now)
        await append(
            tx,
            [
                make_record(
                    "message.applied",
                    time=now,
                    notice_id=message.notice_id,
                    message_id=message.message_id,
                    policy=codes.policy().version,
                    detail={
                        "revision": message.revision,
                        **(superseding.said(passed.get(message.message_id)) or {}),
                    },
                )
                for message in held
            ],
        )
    return len(held)


async def _apply_alone(agency: Agency, effects: Effects, message: Held) -> int:
    try:
        arrived = _arrived(agency, message)
    except RejectedError as error:
        # It was verified on arrival: the store was changed under us. It stays held, and visible.
        log.exception(
            "held message unreadable", message_id=str(message.message_id), cause=error.code
        )
        return 0
    try:
        return await _apply(agency, effects, [], only=message.message_id)
    except UnavailableError:
        raise
    except (RejectedError, EvidenceError) as error:
        await aside.give_up_held(agency, arrived, error)
    except Exception as error:  # noqa: BLE001  (see above)
        spent = await aside.count_attempt(agency, arrived.entry, error)
        if spent is not None:
            await aside.give_up_held(agency, arrived, spent)
    return 0


def _arrived(agency: Agency, message: Held) -> Arrived:
    """Return a held message as it arrived; where in the stream it stood is not kept."""
    envelope = verify(read(message.envelope), agency.directory.verify_keys)
    stream = envelope.attributes.stream
    return Arrived(
        entry=Entry(stream=stream, entry_id="", jws=message.envelope, delivered=1),
        envelope=envelope,
    )
