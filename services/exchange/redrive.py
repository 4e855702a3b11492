"""Try dead letters again: one, many or a group, in batches, beside live traffic.

Redrive is an act of a person on the recipient's side: the stored bytes go through delivery as on
arrival. What is taken is receipted, and its sender's obligation discharged; what fails again stays
a dead letter, with its cause. An order names its letters once and for all and keeps what came of
each, so that it goes on where it stopped, however it ended. Today's children go before a backlog.

Batches are small, and each is followed by a rest, because a batch holds what live messages need:
their stream's row, the sealer, a processor. One poisonous letter stops nobody: its batch is halved
until it stands alone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from schemas.errors import (
    ConflictError,
    NotFoundError,
    NoticeBusError,
    RejectedError,
    UnavailableError,
)
from services.bus import Entry
from services.exchange import aside
from services.exchange.agency import Agency
from services.exchange.beginnings import beginning
from services.exchange.delivery import Delivery
from services.exchange.forecast import Outcome
from services.exchange.store import redrives as store
from services.exchange.store.redrives import Chosen, Item, RedriveRow, Standing
from services.ledger.records import Record, make_record
from services.ledger.store import append

log = structlog.get_logger()

BATCH = 20
# A batch is followed by a rest of as many times its own length, unless a rate is asked for.
_REST = 4.0
_LOCK = int.from_bytes(sha256(b"noticebus redrive").digest()[:8], "big") >> 1

Progress = Callable[[RedriveRow], None]


async def begin(
    agency: Agency,
    letters: Sequence[UUID],
    *,
    actor: str,
    reason: str,
    rate: int | None = None,
) -> UUID:
    """Order the redrive of open letters, and of discarded ones; nothing is tried yet.

    Returns the order's id. Raises `ConflictError` NB-6003 for a letter that cannot be redriven.
    """
    now = datetime.now(UTC)
    redrive_id = uuid7()
    async with agency.store.transaction() as tx:
        ordered = await store.in_order(tx, letters)
        for dead_id, letter in (await store.hold(tx, ordered)).items():
            if letter.state not in ("open", "discarded"):
                raise ConflictError("NB-6003", dead_id=dead_id, state=letter.state)
        await store.open_again(tx, ordered, now)
        await store.begin(tx, redrive_id, ordered, actor=actor, reason=reason, rate=rate, now=now)
        record = make_record(
            "dead.redrive_begun",
            time=now,
            actor=actor,
            text=reason,
            detail={"redrive_id": str(redrive_id), "count": len(ordered)},
        )
        await append(tx, [record])
    return redrive_id


async def find(agency: Agency, text: str) -> RedriveRow:
    """Return a redrive by its id or the beginning of it.

    Raises `NotFoundError` NB-6072, NB-6120 for no beginning of an id; `RejectedError` NB-7009 when
    there are several.
    """
    begins = beginning(text)
    async with agency.store.transaction() as tx:
        found = await store.redrives(tx, begins=begins, limit=2)
    if not found:
        raise NotFoundError("NB-6072", redrive_id=text)
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="redrives")
    return found[0]


async def listed(agency: Agency, *, limit: int = 1_000) -> list[RedriveRow]:
    """Return redrives, newest first, with what came of them."""
    async with agency.store.transaction() as tx:
        return await store.redrives(tx, limit=limit)


async def chosen(agency: Agency, which: Chosen) -> list[UUID]:
    """Return the dead letters that are meant, in the order in which they are tried."""
    async with agency.store.transaction() as tx:
        return await store.chosen_ids(tx, which)


async def failed(
    agency: Agency, redrive_id: UUID, *, limit: int
) -> tuple[list[tuple[str, str | None, int]], list[tuple[UUID, str | None, str]]]:
    """Return what failed again in a redrive: (group, cause, count), and (id, cause, group)."""
    async with agency.store.transaction() as tx:
        return (
            await store.failures(tx, redrive_id),
            await store.failed_letters(tx, redrive_id, limit),
        )


async def run(
    delivery: Delivery, redrive_id: UUID, *, progress: Progress | None = None
) -> RedriveRow:
    """Try every letter of an order that was not tried yet, and return what came of all of them.

    Raises `ConflictError` NB-6073 while another redrive runs here, `UnavailableError` when the
    store goes away: what was tried is on record, and the same call goes on from there.
    """
    agency = delivery.agency
    async with agency.store.holding(_LOCK) as (alone, _):
        if not alone:
            raise ConflictError("NB-6073")
        order = await find(agency, str(redrive_id))
        pace = _Pace(order.rate)
        while True:
            async with agency.store.transaction() as tx:
                items = await store.next_items(tx, redrive_id, min(BATCH, order.rate or BATCH))
            if not items:
                return await _end(agency, redrive_id)
            began = time.monotonic()
            outcomes = await _try(delivery, order, items)
            order = replace(
                order, **{name: getattr(order, name) + n for name, n in outcomes.items()}
            )
            if progress is not None:
                progress(order)
            await pace.rest(len(items), time.monotonic() - began)


@dataclass(slots=True)
class _Pace:
    """How fast letters are tried: so many a second, or with most of the time left to others."""

    rate: int | None

    async def rest(self, tried: int, took: float) -> None:
        """Wait until the next batch may be tried."""
        wanted = took * _REST if self.rate is None else tried / self.rate - took
        await asyncio.sleep(max(0.0, wanted))


async def _try(
    delivery: Delivery, order: RedriveRow, items: Sequence[Item]
) -> Mapping[Outcome, int]:
    """Try letters, note what came of each, and count it; what is not open any more is not tried."""
    agency = delivery.agency
    failures: dict[UUID, str] = {}
    waiting = [item for item in items if item.state == "open"]
    for stream in dict.fromkeys(item.stream for item in waiting):
        failures |= await _take(delivery, [item for item in waiting if item.stream == stream])
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        after = await store.standing(tx, [item.dead_id for item in items])
        outcomes = {
            item.dead_id: _outcome(after[item.dead_id], failures.get(item.dead_id))
            for item in items
        }
        await store.note_outcomes(
            tx,
            order.redrive_id,
            [(dead_id, str(outcome), cause) for dead_id, (outcome, cause) in outcomes.items()],
            now,
        )
        await append(
            tx,
            [
                _record(order, after[dead_id], outcome, cause, now)
                for dead_id, (outcome, cause) in outcomes.items()
            ],
        )
    return Counter(outcome for outcome, _ in outcomes.values())


async def _take(delivery: Delivery, items: Sequence[Item]) -> Mapping[UUID, str]:
    """Let delivery take letters of one stream; returns why some could not even be tried.

    What delivery refuses it sets aside itself. Whatever else goes wrong is some letter's doing:
    the batch is halved until that one stands alone. Raises `UnavailableError`.
    """
    entries = [Entry(item.stream, item.entry_id, item.envelope, 1) for item in items]
    try:
        await delivery.redrive(entries)
    except UnavailableError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever it is: one letter must not stop the rest)
        if len(items) == 1:
            await aside.count_attempt(delivery.agency, entries[0], error)
            async with delivery.agency.store.transaction() as tx:
                await store.blame_attempts(tx, items[0].dead_id)
            cause = error.code if isinstance(error, NoticeBusError) else type(error).__name__
            return {items[0].dead_id: cause}
        half = len(items) // 2
        return {
            **await _take(delivery, items[:half]),
            **await _take(delivery, items[half:]),
        }
    return {}


def _outcome(letter: Standing, failure: str | None) -> tuple[Outcome, str | None]:
    """Return what came of a letter, and why it failed if it did."""
    match letter.state:
        case "redriven":
            return (Outcome.HELD if letter.inbox == "held" else Outcome.TAKEN), None
        case "corrected" | "discarded":
            return Outcome.PASSED, None
        case "open" if letter.inbox == "superseded":
            return Outcome.PASSED, None
        case _:
            return Outcome.FAILED, failure or letter.cause


_RESULTS = {
    Outcome.TAKEN: "taken",
    Outcome.HELD: "held",
    Outcome.FAILED: "refused",
    Outcome.PASSED: "passed",
}


def _record(
    order: RedriveRow, letter: Standing, outcome: Outcome, cause: str | None, now: datetime
) -> Record:
    return make_record(
        "dead.redriven",
        time=now,
        result=_RESULTS[outcome],
        notice_id=letter.notice_id if letter.authentic else None,
        message_id=letter.message_id if letter.authentic else None,
        actor=order.actor,
        reason=cause or letter.cause,
        detail={"dead_id": str(letter.dead_id), "redrive_id": str(order.redrive_id)},
    )


async def _end(agency: Agency, redrive_id: UUID) -> RedriveRow:
    """Note that an order is done, once, and return it."""
    now = datetime.now(UTC)
    order = await find(agency, str(redrive_id))
    async with agency.store.transaction() as tx:
        if await store.end(tx, redrive_id, now):
            counts = {
                name: getattr(order, name)
                for name in ("asked", "taken", "held", "failed", "passed")
            }
            detail = {"redrive_id": str(redrive_id), **counts}
            record = make_record("dead.redrive_ended", time=now, actor=order.actor, detail=detail)
            await append(tx, [record])
            log.info("dead letters redriven", **counts)
    return await find(agency, str(redrive_id))
