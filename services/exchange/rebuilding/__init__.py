"""Make projections again from what they are derived from: records, and the content they commit to.

What is primary, and stays as it is: `record` and `opening`, `payload` and `envelope` (contents and
exact bytes), the audit log over them, party files, and the state of transport and operation
(`outbox`, `stream_in`, `stream_out`, `publication`, `republish`, `gap`, `inbox` and `applied`,
which let a message in once and in its turn, `answer_batch`, `refusal`, `voided`, dead letters and
what was done with them, alarms, plans, which docket release was read how far).
What is derived, and is made again here: `sent` with its answers, for every message that can have
one; the numbering of control messages is transport. What each agency derives beside that is said
in `services.ice.rebuilding` and `services.hhs.rebuilding`.

All of it happens in a schema of its own, inside one transaction that sees the store at one moment
and is always rolled back. So nothing of it is ever visible to others, nothing remains after an
interruption, even of the server, and live traffic goes on. Set based, with contents read in
batches: memory does not grow with the store, time and the server's disk do.

A content counts only under the commitment of its record, a name only under the record's salted
commitment, an answer only from bytes with the recorded hash. What was erased is a tombstone: what
derives from it is taken as it stands.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from schemas.canonical import parse, parse_time, unb64
from schemas.catalog import parse_body
from schemas.envelope import SALT_BYTES, Kind, commitment, read
from schemas.errors import RejectedError
from schemas.notice import Notice
from schemas.reply import Acknowledgement, Action, Disposition, Outcome
from services.exchange.rebuilding import store
from services.exchange.rebuilding.store import Content, ReceiptRow, SaidRow, ToldRow
from services.ledger.records import opening_holds
from services.ledger.store import Store, Transaction

__all__ = ["Progress", "Rebuild", "Rebuilding", "State", "rebuilding", "told"]

Progress = Callable[[str, int], None]
"""Called with what is being done, and how many are done of it."""


_KINDS = frozenset(map(str, Kind))


class State(StrEnum):
    """What there is of a content or a name that a record commits to.

    An unreadable content is what was committed to, and breaks the schema that this build knows.
    """

    WHOLE = "whole"
    ERASED = "erased"
    LOST = "lost"
    ALTERED = "altered"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """One agency's projections being made again; tables of `schema` come before the live ones.

    `until` leaves out what was recorded later; `notice_id` all that is about others.
    """

    tx: Transaction
    schema: str
    until: datetime | None = None
    notice_id: UUID | None = None
    progress: Progress | None = None
    counted: dict[str, int] = field(default_factory=dict)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Give out the transaction in which the projections were made again, to read in."""
        yield self.tx

    def tell(self, what: str, more: int) -> None:
        """Count what was done, and say so."""
        self.counted[what] = self.counted.get(what, 0) + more
        if self.progress is not None:
            self.progress(what, self.counted[what])


Rebuild = Callable[[Rebuilding], Awaitable[None]]
"""Makes one agency's projections."""


@asynccontextmanager
async def rebuilding(
    database: Store,
    rebuild: Rebuild,
    *,
    until: datetime | None = None,
    notice_id: UUID | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[Rebuilding]:
    """Give out the projections made again, in a transaction that leaves nothing behind.

    Inside, a table's bare name is the one made again where there is such a one; `public` has the
    live one. Raises `UnavailableError` when the store goes away, `NotFoundError` NB-3070 where
    records that are needed are in an archive.
    """
    async with store.scratch(database) as (tx, schema):
        work = Rebuilding(tx=tx, schema=schema, until=until, notice_id=notice_id, progress=progress)
        await store.take_acts(tx, until=until, notice_id=notice_id)
        await _take_contents(work)
        await _take_receipts(work)
        await rebuild(work)
        await store.look_at(tx, schema)
        yield work


async def rebuild_sent(work: Rebuilding, *, revisions: str) -> None:
    """Make `sent` again; `revisions` is a table of the revision of messages that do not say it."""
    await store.rebuild_sent(work.tx, revisions=revisions)


async def take_names(work: Rebuilding, actions: Sequence[str]) -> None:
    """Open what records of these acts commit to: who acted, and what they wrote."""
    async for batch in store.openings(work.tx, actions):
        rows = [told(record_id, record, opened) for record_id, record, opened in batch]
        await store.keep_told(work.tx, rows)
        work.tell("names", len(rows))


async def _take_contents(work: Rebuilding) -> None:
    """Read every content that a record commits to, each held to its commitment."""
    async for batch in store.contents(work.tx):
        await store.keep_said(work.tx, [_said(content) for content in batch])
        work.tell("contents", len(batch))
    await store.contents_taken(work.tx)


async def _take_receipts(work: Rebuilding) -> None:
    """Read which messages each verified receipts message answered, from its exact bytes."""
    async for record_id, message_id, digest, jws in store.receipts(
        work.tx, notice_id=work.notice_id
    ):
        rows = _receipts(record_id, message_id, digest, jws)
        await store.keep_receipts(work.tx, rows)
        work.tell("receipts", len(rows))


def _said(content: Content) -> SaidRow:
    if content.body is None or content.salt is None:
        state = State.ERASED if content.erased else State.LOST
        return _named_only(content, state)
    if len(content.salt) != SALT_BYTES or commitment(content.salt, content.body) != content.bound:
        return _named_only(content, State.ALTERED)
    kind = _kind_of(content.body)
    if kind is None:
        # Not a message: what a court's row says of an obligation is read by its own room.
        return SaidRow(message_id=content.message_id, state=State.WHOLE)
    try:
        body = parse_body(kind, 1, content.body)
    except RejectedError:
        return SaidRow(message_id=content.message_id, state=State.UNREADABLE, kind=str(kind))
    return SaidRow(
        message_id=content.message_id, state=State.WHOLE, kind=str(kind), **_members(body)
    )


def _named_only(content: Content, state: State) -> SaidRow:
    """Return what the envelope alone says of a message whose content is not to be had."""
    claims = None
    if content.envelope is not None:
        try:
            claims = read(content.envelope).claims
        except RejectedError:
            claims = None
    return SaidRow(
        message_id=content.message_id,
        state=state,
        kind=None if claims is None else str(claims.kind),
        revision=None if claims is None else claims.revision,
    )


def _kind_of(body: bytes) -> Kind | None:
    said = parse(body)
    named = str(said.get("schema_version", "")).partition("/")[0]
    return Kind(named) if named in _KINDS else None


def _members(body: BaseModel) -> dict[str, Any]:
    match body:
        case Notice():
            return notice_members(body)
        case Disposition():
            code = str(body.disposition if body.code is None else body.code)
            return {"code": code, "happened_at": body.at}
        case Action() | Outcome():
            return {"code": str(body.code), "happened_at": body.at}
        case Acknowledgement():
            return {"happened_at": body.at}
        case _:
            return {}


def notice_members(notice: Notice) -> dict[str, Any]:
    """Return what projections take over from a notice, by the columns of `said`."""
    return {
        "revision": notice.revision,
        "notice_kind": str(notice.notice_kind),
        "reason_code": None if notice.reason_code is None else str(notice.reason_code),
        "a_number": notice.a_number,
        "base_city": notice.base_city_code,
        "hearing_on": notice.hearing_on,
        "hearing_at": notice.hearing_at,
        "hearing_zone": notice.hearing_zone,
        "outcome": str(notice.outcome),
        "office": notice.aor_code,
        "priority": str(notice.priority),
        "source_release": notice.source_release,
        "eoir_case_key": notice.eoir_case_key,
        "eoir_proceeding_key": notice.eoir_proceeding_key,
        "eoir_schedule_key": notice.eoir_schedule_key,
    }


def told(record_id: int, record: bytes, opened: Mapping[str, Any] | None) -> ToldRow:
    """Return who acted and what they wrote, as far as it was not erased and is what was meant."""
    said = parse(record)
    committed = [name for name in ("actor", "text") if name in said]
    if opened is not None and not opening_holds(said, opened):
        return ToldRow(record_id=record_id, state=State.ALTERED)
    found = {name: opened[name]["value"] for name in committed if opened and name in opened}
    state = State.WHOLE if len(found) == len(committed) else State.ERASED
    return ToldRow(
        record_id=record_id, state=state, actor=found.get("actor"), text=found.get("text")
    )


def _receipts(
    record_id: int, message_id: UUID, digest: bytes, jws: bytes | None
) -> list[ReceiptRow]:
    """Return what a receipts message answered; nothing where its bytes are not the recorded ones.

    Its root was recomputed when it was taken, and `ledger verify` and a trace do so again; here
    its signed bytes count as they are.
    """
    if jws is None:
        return []
    try:
        envelope = read(jws)
        said = parse(envelope.payload)["data"] if envelope.hash == digest else {}
    except (RejectedError, KeyError, TypeError):
        return []
    return [
        ReceiptRow(
            message_id=UUID(record["message_id"]),
            envelope_hash=unb64(record["envelope"]),
            record_index=index,
            record_id=record_id,
            answer_message=message_id,
            held_at=parse_time(record["time"]) if record.get("result") == "held" else None,
        )
        for index, entry in enumerate(said.get("entries", ()), said.get("index", 0))
        for record in [entry.get("record", {})]
        if record.get("action") == "message.received"
    ]
