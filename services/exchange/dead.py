"""Dead letters: look at what was set aside, and try the same bytes again.

Redrive is an act of a person on the recipient's side: the stored bytes go through delivery as on
arrival. If they are taken, a receipt goes out and the sender's obligation is discharged; if not,
the dead letter stays as it was, with one more attempt on record.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from schemas.errors import ConflictError, NotFoundError, RejectedError
from services.bus import Entry
from services.exchange.agency import Agency
from services.exchange.delivery import Delivery
from services.exchange.store import dead as store
from services.exchange.store.dead import Attempt, DeadLetter
from services.ledger.records import make_record
from services.ledger.store import append


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What came of one redrive: `state` is redriven, or open with the cause that stopped it."""

    dead_id: UUID
    state: str
    cause: str | None


async def listed(
    agency: Agency, *, state: str | None = "open", cause: str | None = None, limit: int = 1000
) -> list[DeadLetter]:
    """Return dead letters, newest first; `state` None means all."""
    async with agency.store.transaction() as tx:
        return await store.letters(tx, state=state, cause=cause, limit=limit)


async def show(agency: Agency, dead_id: str) -> tuple[DeadLetter, list[Attempt]]:
    """Return one dead letter, by its id or the beginning of it, with its failed attempts.

    Raises `NotFoundError` NB-6001, or `ConflictError` NB-6002 when several begin so.
    """
    async with agency.store.transaction() as tx:
        found = await store.by_prefix(tx, dead_id.lower())
        if not found:
            raise NotFoundError("NB-6001", dead_id=dead_id)
        if len(found) > 1:
            raise ConflictError("NB-6002", dead_id=dead_id)
        letter = await store.letter(tx, found[0])
        assert letter is not None
        return letter, await store.attempts(tx, letter.bytes_hash)


async def redrive(delivery: Delivery, letter: DeadLetter, *, actor: str, reason: str) -> Redriven:
    """Try a dead letter's bytes again.

    Raises `ConflictError` NB-6003 for one that is not open: a wrong signature stays wrong.
    """
    if letter.state != "open":
        raise ConflictError("NB-6003", dead_id=letter.dead_id, state=letter.state)
    agency = delivery.agency
    entry = Entry(stream=letter.stream, entry_id=letter.entry_id, jws=letter.envelope, delivered=1)
    failure: str | None = None
    try:
        await delivery.redrive(entry)
    except RejectedError as error:
        failure = error.code
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        after = await store.letter(tx, letter.dead_id)
        assert after is not None
        state = after.state
        await append(
            tx,
            [
                make_record(
                    "dead.redriven",
                    time=now,
                    result="taken" if state == "redriven" else "refused",
                    notice_id=letter.notice_id if letter.authentic else None,
                    message_id=letter.message_id if letter.authentic else None,
                    actor=actor,
                    text=reason,
                    reason=failure or letter.cause,
                    detail={"dead_id": str(letter.dead_id)},
                )
            ],
        )
    cause = None if state == "redriven" else failure or after.cause
    return Redriven(dead_id=letter.dead_id, state=state, cause=cause)
