"""Watching: pages of the audit log as they are sealed, through outages of the store, to lines."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog

from schemas.canonical import parse
from schemas.envelope import read
from schemas.errors import ConflictError, EvidenceError, RejectedError, UnavailableError
from services.exchange.waiting import pause
from services.ledger.store import SEALED_CHANNEL, Session, Store, Transaction, log
from services.watch import store as statements
from services.watch.lines import Cursor, Line, lines_of
from services.watch.store import Told, Watched

logger = structlog.get_logger()

PAGE = 500
# The net below the notifications: how often the log is looked at when nobody rings.
POLL_SECONDS = 5.0
BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 5.0
# Records that wait longer than this for a sealer, wait for one that does not run.
UNSEALED_SECONDS_MAX = 5.0
_RECEIPTS = "receipts.verified"


class Turn(StrEnum):
    """What became of watching itself: all is shown so far; the store went away, or came back.

    `UNSEALED`: records wait for a sealer, so that lines are missing at the end.
    """

    LIVE = "live"
    AWAY = "away"
    BACK = "back"
    UNSEALED = "unsealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """Which lines are wanted; what is empty or None lets all through."""

    notice_id: UUID | None = None
    offices: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    lanes: frozenset[str] = frozenset()

    def wants(self, line: Line) -> bool:
        """Return whether a line fits."""
        return (
            (self.notice_id is None or line.notice_id == self.notice_id)
            and (not self.offices or line.office in self.offices)
            and (not self.kinds or line.kind in self.kinds)
            and (not self.lanes or line.lane in self.lanes)
        )


async def watch(
    store: Store,
    agency: str,
    *,
    after: Cursor | None = None,
    since: datetime | None = None,
    only: Only | None = None,
    follow: bool = True,
    stop: asyncio.Event | None = None,
    told: Callable[[Turn, Cursor, int], None] | None = None,
) -> AsyncGenerator[Line, None]:
    """Yield what happened at an agency in the ledger's order, and go on as more is sealed.

    Begins after a cursor, or with what was sealed at `since` or later, or else now. Ends at `stop`,
    or without `follow` at the ledger's present end. `told` hears of each `Turn`: the cursor up to
    which all was yielded, and for `UNSEALED` how many records wait. An outage of the store is
    waited out, except at the beginning or without `follow`: then `UnavailableError` is raised.

    Raises `RejectedError` NB-7031 for another agency's cursor, `ConflictError` NB-7032 for one of
    another ledger, also when a restore puts one in its place meanwhile, `EvidenceError` NB-7033
    where the log has a gap. To leave early, close it: `async with aclosing(watch(...)) as lines`.
    """
    wanted, ending = only or Only(), stop or asyncio.Event()
    tell = told or (lambda *_: None)
    wake = asyncio.Event()
    stopping = asyncio.create_task(_wake_at(ending, wake))
    at: Cursor | None = None
    patience, away = BACKOFF_SECONDS_MIN, False
    try:
        while not ending.is_set():
            try:
                async with store.session() as session:
                    # Listen first: what is sealed between looking and waiting rings all the same.
                    await session.listen([SEALED_CHANNEL])
                    at = at or await _begin(session, agency, after=after, since=since)
                    rung = False
                    while not ending.is_set():
                        found = await _page(session, at)
                        patience = BACKOFF_SECONDS_MIN
                        if away:
                            away = False
                            tell(Turn.BACK, at, 0)
                        for row, receipts in found:
                            for line in lines_of(row, receipts, cursor=at):
                                if wanted.wants(line):
                                    yield line
                            at = Cursor(at.agency, at.generation, row.record_index + 1)
                        if len(found) == PAGE:
                            continue
                        tell(Turn.LIVE, at, 0)
                        if not rung and (waiting := await unsealed(session)):
                            tell(Turn.UNSEALED, at, waiting)
                        if not follow:
                            return
                        rung = bool(await session.heard(wake, seconds=POLL_SECONDS))
            except UnavailableError as error:
                if at is None or not follow:
                    raise
                if not away:
                    away = True
                    logger.warning("watch waits for the store", code=error.code)
                    tell(Turn.AWAY, at, 0)
                await pause(ending, patience)
                patience = min(patience * 2, BACKOFF_SECONDS_MAX)
    finally:
        stopping.cancel()


async def _begin(
    session: Session, agency: str, *, after: Cursor | None, since: datetime | None
) -> Cursor:
    """Return where to begin, in the log as it is now."""
    async with session.transaction() as tx:
        generation, size = await _head(tx)
        if after is None:
            before = await statements.size_before(tx, since) if since is not None else None
            return Cursor(agency, generation, size if before is None else before)
    if after.agency != agency:
        raise RejectedError("NB-7031", cursor=str(after), other=after.agency, agency=agency)
    if after.generation != generation or after.behind + bool(after.part) > size:
        raise _another_ledger(after, generation, size)
    return after


async def _head(tx: Transaction) -> tuple[int, int]:
    """Return generation and size of the log as it is now."""
    head = await log.head(tx)
    # A log that was never sealed is the first one, and empty.
    return (int(head.origin.rpartition("/")[2]), head.size) if head else (1, 0)


def _another_ledger(cursor: Cursor, generation: int, size: int) -> ConflictError:
    return ConflictError(
        "NB-7032", cursor=str(cursor), generation=generation, agency=cursor.agency, size=size
    )


async def _page(session: Session, at: Cursor) -> list[tuple[Watched, Sequence[Told]]]:
    """Return the next records from a cursor on, each with what it says was receipted."""
    async with session.transaction() as tx:
        # The size first: what is sealed between the two is more than it says, never less.
        generation, size = await _head(tx)
        if generation != at.generation or at.behind > size:
            raise _another_ledger(at, generation, size)
        rows = await statements.page(tx, at.agency, first=at.behind, limit=PAGE)
        receipts = await _receipts(tx, at.agency, [r for r in rows if r.action == _RECEIPTS])
    for index, row in enumerate(rows, at.behind):
        if row.record_index != index:
            raise EvidenceError("NB-7033", index=index, size=max(size, row.record_index + 1))
    if at.behind + len(rows) < min(size, at.behind + PAGE):
        raise EvidenceError("NB-7033", index=at.behind + len(rows), size=size)
    return [(row, receipts.get(row.message_id, ()) if row.message_id else ()) for row in rows]


async def _receipts(
    tx: Transaction, agency: str, rows: Sequence[Watched]
) -> dict[UUID, list[Told]]:
    """Return, by the message that brought them, which of our messages the receipts name.

    Read from the bytes that arrived, in their order, so that it is the same whenever it is asked.
    """
    messages = [row.message_id for row in rows if row.message_id is not None]
    if not messages:
        return {}
    named = {
        message_id: _named(envelope)
        for message_id, envelope in (await statements.envelopes(tx, messages)).items()
    }
    ours = await statements.sent(
        tx, agency, [told.message_id for each in named.values() for told in each]
    )
    return {
        message_id: [ours.get(told.message_id, told) for told in each]
        for message_id, each in named.items()
    }


def _named(envelope: bytes) -> list[Told]:
    """Return what a receipts message names, as its records have it; it was verified on arrival."""
    entries: Any = parse(read(envelope).payload)["data"]["entries"]
    records = [entry["record"] for entry in entries if "record" in entry]
    return [
        Told(
            message_id=UUID(record["message_id"]),
            notice_id=UUID(record["notice_id"]) if "notice_id" in record else None,
            kind=None,
            revision=None,
            office=None,
            stream=record.get("stream"),
            sequence=record.get("sequence"),
        )
        for record in records
        if record["action"] == "message.received"
    ]


async def unsealed(store: Store | Session) -> int:
    """Return how many records have waited too long for a sealer."""
    async with store.transaction() as tx:
        moment = datetime.now(UTC) - timedelta(seconds=UNSEALED_SECONDS_MAX)
        return await statements.unsealed_before(tx, moment)


async def _wake_at(stop: asyncio.Event, wake: asyncio.Event) -> None:
    await stop.wait()
    wake.set()
