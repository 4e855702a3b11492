"""What an agency knew at a moment: its projections as its records by then make them.

The same work as the shadow rebuild, with all that was recorded later left out; so what is told of
the past rests on the ledger, and on nothing that was changed since. A moment is that of the records
of this agency, not of what happened elsewhere: a receipt that was on its way was not known. With it
goes the checkpoint of that time, the newest one sealed by then. Contents that were erased since are
gone for the past as well; what they decided is taken as it stands.

A report costs a rebuild of everything up to then; one notice costs its own records.
"""

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from schemas.canonical import format_time
from schemas.errors import NotFoundError, RejectedError
from services.exchange.rebuilding import Progress, rebuilding
from services.hhs import cases
from services.hhs import rebuilding as hhs
from services.hhs.cases import CaseDetail
from services.ice import rebuilding as ice
from services.ice.notices import NoticeDetail
from services.ice.notices.views import detail_of, masked, revealed
from services.ledger.store import Reading, Store, log

__all__ = [
    "Known",
    "Progress",
    "Sealed",
    "Then",
    "case_then",
    "knowing",
    "notice_then",
    "said_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A checkpoint: how many records it covers, their root hash, and when it was sealed."""

    size: int
    root: bytes
    sealed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """A moment that was asked about, and its checkpoint; None before the first seal."""

    at: datetime
    checkpoint: Sealed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was known then: `reading` is where to read it."""

    then: Then
    reading: Reading


@asynccontextmanager
async def knowing(
    database: Store,
    agency: str,
    at: datetime,
    *,
    notice_id: UUID | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[Known]:
    """Give out what an agency knew at a moment, of everything or of one notice.

    Raises `RejectedError` NB-6060 for a moment that is not over; `NotFoundError` NB-6061 for one
    before the first record, NB-6062 where the notice was not on record by then.
    """
    if at > datetime.now(UTC):
        raise RejectedError("NB-6060", at=format_time(at))
    async with database.transaction() as tx:
        begun = await log.first_recorded(tx)
        if begun is None or begun > at:
            said = "has no record" if begun is None else f"begins {format_time(begun)}"
            raise NotFoundError("NB-6061", at=format_time(at), agency=agency, begins=said)
        if notice_id is not None:
            first = await log.first_recorded(tx, notice_id)
            if first is not None and first > at:
                raise NotFoundError(
                    "NB-6062", notice_id=notice_id, at=format_time(at), first=format_time(first)
                )
        row = await log.checkpoint_at(tx, at)
    sealed = None if row is None else Sealed(size=row.size, root=row.root, sealed_at=row.sealed_at)
    rebuild = ice.rebuild if agency == "ice" else hhs.rebuild
    async with rebuilding(
        database, rebuild, until=at, notice_id=notice_id, progress=progress
    ) as reading:
        yield Known(then=Then(at=at, checkpoint=sealed), reading=reading)


async def notice_then(
    database: Store, notice_id: UUID, at: datetime, *, actor: str, reveal: bool = False
) -> tuple[NoticeDetail, Then]:
    """Return all that ICE knew of a notice at a moment; with `reveal` the child's identity too.

    Revealing is on record, now. Raises what `knowing` raises.
    """
    async with (
        knowing(database, "ice", at, notice_id=notice_id) as known,
        known.reading.transaction() as tx,
    ):
        detail = await detail_of(tx, notice_id)
    if not reveal:
        return masked(detail), known.then
    async with database.transaction() as tx:
        await revealed(tx, detail, actor=actor)
    return detail, known.then


async def case_then(
    database: Store, notice_id: UUID, at: datetime, *, actor: str, reveal: bool = False
) -> tuple[CaseDetail, Then]:
    """Return all that HHS knew of a case at a moment; with `reveal` the child's identity too.

    Revealing is on record, now. Raises what `knowing` raises, `NotFoundError` NB-8010 where a
    notice was on record by then, and no case of it.
    """
    async with (
        knowing(database, "hhs", at, notice_id=notice_id) as known,
        known.reading.transaction() as tx,
    ):
        detail = await cases.detail_of(tx, notice_id, now=at)
    if not reveal:
        return cases.masked(detail), known.then
    async with database.transaction() as tx:
        await cases.revealed(tx, notice_id, actor=actor)
    return detail, known.then


def said_of(then: Then) -> dict[str, Any]:
    """Return a moment and its checkpoint by name; the root hash in Base64, as in checkpoints."""
    sealed = then.checkpoint
    return {
        "at": then.at,
        "checkpoint": None
        if sealed is None
        else {
            "size": sealed.size,
            "root": b64encode(sealed.root).decode("ascii"),
            "sealed_at": sealed.sealed_at,
        },
    }
