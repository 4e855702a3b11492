"""Dead letters: look at what was set aside, in groups and one by one, and decide about it.

A group is what shares its cause and schema version, and for attempts that were used up the error
behind them: what one mend may cure. A person redrives letters (`services.exchange.redrive`), or
discards them with a reason. A discard deletes nothing: the exact bytes stay for ever, the sender
was told by its refusal, and the clocks of the notice run on until it is corrected or withdrawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from schemas import codes
from schemas.errors import ConflictError, NotFoundError, RejectedError
from services.exchange import redrive as redriving
from services.exchange.agency import Agency
from services.exchange.beginnings import beginning
from services.exchange.delivery import Delivery
from services.exchange.forecast import Outcome
from services.exchange.store import dead as store
from services.exchange.store import redrives
from services.exchange.store.dead import Attempt, DeadLetter
from services.exchange.store.redrives import Act, Chosen, Group
from services.ledger.records import make_record
from services.ledger.store import append

__all__ = [
    "Chosen",
    "Detail",
    "Group",
    "Redriven",
    "discard",
    "groups",
    "listed",
    "redrive",
    "show",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What came of one redrive: `state` is redriven, or open with the cause that stopped it."""

    dead_id: UUID
    state: str
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One dead letter with its failed attempts and what people did with it."""

    letter: DeadLetter
    attempts: Sequence[Attempt]
    history: Sequence[Act]


async def listed(
    agency: Agency,
    *,
    state: str | None = "open",
    cause: str | None = None,
    chosen: Chosen | None = None,
    limit: int = 1000,
) -> list[DeadLetter]:
    """Return dead letters, newest first; `state` None means all, `chosen` says it in full."""
    chosen = chosen or Chosen(state=state, cause=cause)
    async with agency.store.transaction() as tx:
        return await store.letters(tx, chosen, limit=limit)


async def groups(agency: Agency, chosen: Chosen) -> list[Group]:
    """Return the groups of dead letters, the largest first."""
    async with agency.store.transaction() as tx:
        return await redrives.groups(tx, chosen)


async def show(agency: Agency, dead_id: str) -> Detail:
    """Return one dead letter, by its id or the beginning of it.

    Raises `NotFoundError` NB-6001, NB-6120 for no beginning of an id; `ConflictError` NB-6002 when
    several begin so.
    """
    begins = beginning(dead_id)
    async with agency.store.transaction() as tx:
        found = await store.named(tx, begins)
        if not found:
            raise NotFoundError("NB-6001", dead_id=dead_id)
        if len(found) > 1:
            raise ConflictError("NB-6002", dead_id=dead_id)
        [letter] = await store.by_ids(tx, found)
        return Detail(
            letter=letter,
            attempts=await store.attempts(tx, letter.bytes_hash),
            history=await redrives.history(tx, letter.dead_id),
        )


async def redrive(delivery: Delivery, letter: DeadLetter, *, actor: str, reason: str) -> Redriven:
    """Try one dead letter's bytes again.

    Raises `ConflictError` NB-6003 for one that is not open: a wrong signature stays wrong.
    """
    agency = delivery.agency
    order = await redriving.begin(agency, [letter.dead_id], actor=actor, reason=reason)
    await redriving.run(delivery, order)
    async with agency.store.transaction() as tx:
        act = (await redrives.history(tx, letter.dead_id))[-1]
        [after] = await store.by_ids(tx, [letter.dead_id])
    failed = act.outcome == Outcome.FAILED
    return Redriven(dead_id=letter.dead_id, state=after.state, cause=act.cause if failed else None)


async def discard(
    agency: Agency, letters: Sequence[UUID], *, code: str, reason: str, actor: str
) -> int:
    """Decide that open dead letters will never be taken; returns how many were not so before.

    `code` is of the closed list of reasons, `reason` says it in words. All or none: raises
    `RejectedError` NB-6070 for a code that is not in the list, `ConflictError` NB-6071 for a letter
    that is neither open nor discarded.
    """
    listed_codes = codes.discards()
    if code not in listed_codes:
        raise RejectedError("NB-6070", known=", ".join(listed_codes))
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        standing = await redrives.hold(tx, letters)
        for dead_id, letter in standing.items():
            if letter.state not in ("open", "discarded"):
                raise ConflictError("NB-6071", dead_id=dead_id, state=letter.state)
        fresh = [letter for letter in standing.values() if letter.state == "open"]
        await redrives.discard(
            tx,
            [letter.dead_id for letter in fresh],
            code=code,
            reason=reason,
            actor=actor,
            now=now,
        )
        await append(
            tx,
            [
                make_record(
                    "dead.discarded",
                    time=now,
                    notice_id=letter.notice_id if letter.authentic else None,
                    message_id=letter.message_id if letter.authentic else None,
                    actor=actor,
                    text=reason,
                    reason=code,
                    detail={"dead_id": str(letter.dead_id)},
                )
                for letter in fresh
            ],
        )
    return len(fresh)
