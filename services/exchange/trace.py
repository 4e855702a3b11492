"""Trace one notice: every step on this side, each verified where it stands.

A step is a record of our own ledger or the peer's verified answer to a message of ours. A record is
verified by its inclusion in the tree under our newest signed checkpoint, and by what stands beside
it; a receipt by recomputing its batch and finding the root in the peer's signed checkpoint. What is
not sealed yet is said to be so, and is no failure. A record of a log that a restore ended is
verified in that log, under the last checkpoint that it had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from schemas.canonical import b64, parse_time
from schemas.checkpoint import Checkpoint, verify_checkpoint
from schemas.errors import EvidenceError, NotFoundError, NoticeBusError, RejectedError
from schemas.proof import leaf_hash, verify_inclusion
from services.exchange import parties
from services.exchange.agency import Agency
from services.exchange.beginnings import beginning
from services.exchange.receipts import receipted_record
from services.exchange.store import traced
from services.exchange.store.traced import TracedMessage, TracedRecord
from services.ledger import tree
from services.ledger.records import differing_column, opening_holds, read_record
from services.ledger.store import Store, Transaction, log

RECEIPT = "receipt"
# Records that only say again what a step of another kind shows.
_SHOWN_AS_ANSWERS = frozenset({"receipts.verified"})


class Verified(StrEnum):
    """Whether a step is proven: yes, not sealed yet, or not, which is an alarm."""

    YES = "yes"
    NOT_YET = "not yet"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a notice. `agency` is whose ledger holds the record at `record_index`.

    `former` is the origin of that ledger where it is one that a restore ended.
    `peer_at` is when the peer took the message, by its own clock, as the receipt proves it.
    `actor` and `office` are None where the record has none or its opening was erased; `fault` names
    what does not fit when `verified` is FAILED.
    """

    step: str
    agency: str
    at: datetime
    result: str
    record_index: int | None
    verified: Verified
    peer_at: datetime | None = None
    message_id: UUID | None = None
    kind: str | None = None
    revision: int | None = None
    stream: str | None = None
    sequence: int | None = None
    published: bool | None = None
    reason: str | None = None
    actor: str | None = None
    office: str | None = None
    fault: str | None = None
    former: str | None = None


@dataclass(frozen=True, slots=True)
class _Log:
    """One of our logs: its newest checkpoint, or why that cannot be believed."""

    checkpoint: Checkpoint | None
    broken: str | None

    @property
    def size(self) -> int:
        return self.checkpoint.size if self.checkpoint else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The steps of a notice in order, and the checkpoint that ours were verified under.

    `state` is where the notice stands on this side, with the code that says more of it; None where
    nothing was made of it. `set_aside` are open dead letters that name it.
    """

    notice_id: UUID
    steps: Sequence[Step]
    origin: str | None
    size: int
    state: str | None = None
    state_code: str | None = None
    set_aside: Sequence[UUID] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing failed; steps that are not sealed yet do not count against it."""
        return all(step.verified is not Verified.FAILED for step in self.steps)


async def resolve(store: Store, text: str, *, agency: str) -> UUID:
    """Return the notice that an id or its beginning names, if this side ever heard of it.

    Raises `NotFoundError` NB-7012, NB-6120 for no beginning of an id; `RejectedError` NB-7009 when
    there are several.
    """
    begins = beginning(text)
    async with store.transaction() as tx:
        found = await traced.named(tx, begins)
    if not found:
        listing = f"noticebus {'notice' if agency == 'ice' else 'queue'} list"
        raise NotFoundError("NB-7012", what="notice", value=text, listing=listing)
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="notices")
    return found[0]


async def trace(agency: Agency, notice_id: UUID) -> Trace:
    """Return what this side knows of a notice, step by step; no steps for an unknown one.

    `state` is that of what the peer sent; an agency that makes more of notices knows better.
    """
    async with agency.store.transaction() as tx:
        records = await traced.records_of(tx, notice_id)
        messages = await traced.messages_of(tx, notice_id)
        kinds = await traced.kinds_of(tx, notice_id)
        logs = {
            former: await _log(tx, agency, former)
            for former in {None, *(record.former for record in records)}
        }
        faults = await _faults(tx, records, logs)
        state = await traced.arrived_state(tx, notice_id)
        set_aside = await traced.set_aside(tx, notice_id)
    ours = {message.message_id: message for message in messages}
    steps = [
        _record_step(
            record,
            agency=agency.name,
            kind=kinds.get(record.message_id) if record.message_id else None,
            message=ours.get(record.message_id) if record.message_id else None,
            fault=logs[record.former].broken or faults.get(record.record_id),
            sealed=logs[record.former].size,
        )
        for record in records
        if record.action not in _SHOWN_AS_ANSWERS
    ]
    steps += [_receipt_step(agency, message) for message in messages if message.answer == RECEIPT]
    checkpoint = logs[None].checkpoint
    return Trace(
        notice_id=notice_id,
        # What happened at one moment keeps the order in which it was written.
        steps=sorted(steps, key=lambda step: step.at),
        origin=checkpoint.origin if checkpoint else None,
        size=checkpoint.size if checkpoint else 0,
        state=state,
        set_aside=set_aside,
    )


async def _log(tx: Transaction, agency: Agency, former: str | None) -> _Log:
    """Return where our log stands, or the `former` one of that origin ended."""
    newest = await log.newest_checkpoint(tx, former=former)
    if newest is None:
        return _Log(None, None)
    own = agency.ring.log_verifiers
    keys = own if former is None else await parties.published_log_keys(tx, agency.name)
    try:
        return _Log(verify_checkpoint(newest[1], keys), None)
    except EvidenceError as error:
        return _Log(None, error.code)


async def _faults(
    tx: Transaction, records: Sequence[TracedRecord], logs: Mapping[str | None, _Log]
) -> dict[int, str]:
    """Return, by record id, the code of what does not fit; records that hold are absent."""
    faults: dict[int, str] = {}
    for former, kept in logs.items():
        if kept.checkpoint is None:
            continue
        sealed = [
            (record, record.record_index)
            for record in records
            if record.former == former
            and record.record_index is not None
            and record.record_index < kept.size
        ]
        try:
            indexes = [index for _, index in sealed]
            proofs = await tree.inclusions(tx, indexes, kept.size, former=former)
        except EvidenceError as error:
            faults |= {record.record_id: error.code for record, _ in sealed}
            continue
        for (record, index), proof in zip(sealed, proofs, strict=True):
            fault = _fault(record, index, kept.checkpoint, proof)
            if fault is not None:
                faults[record.record_id] = fault
    return faults


def _fault(
    record: TracedRecord, index: int, checkpoint: Checkpoint, proof: Sequence[bytes]
) -> str | None:
    try:
        verify_inclusion(
            leaf_hash(record.record),
            index=index,
            size=checkpoint.size,
            proof=proof,
            root=checkpoint.root,
        )
        said = read_record(record.record, index=index)
    except EvidenceError as error:
        return error.code
    column = differing_column(
        said,
        action=record.action,
        notice_id=record.notice_id,
        message_id=record.message_id,
        recorded_at=record.recorded_at,
    )
    if column is not None:
        return "NB-3033"
    if record.opened is not None and not opening_holds(said, record.opened):
        return "NB-3034"
    return None


def _record_step(
    record: TracedRecord,
    *,
    agency: str,
    kind: tuple[str, int | None] | None,
    message: TracedMessage | None,
    fault: str | None,
    sealed: int,
) -> Step:
    said = _read(record)
    covered = record.record_index is not None and record.record_index < sealed
    state = Verified.YES if covered else Verified.NOT_YET
    opened: Mapping[str, Any] = record.opened or {}
    detail: Mapping[str, Any] = said.get("detail", {})
    return Step(
        step=record.action,
        agency=agency,
        at=record.recorded_at,
        result=said.get("result", ""),
        record_index=record.record_index,
        verified=Verified.FAILED if fault else state,
        message_id=record.message_id,
        kind=kind[0] if kind else None,
        revision=detail.get("revision") or (kind[1] if kind else None),
        stream=said.get("stream"),
        sequence=said.get("sequence"),
        published=message.published if message and record.action == "message.sent" else None,
        reason=said.get("reason"),
        actor=_value(opened, "actor"),
        office=_value(opened, "office"),
        fault=fault,
        former=record.former,
    )


def _read(record: TracedRecord) -> Mapping[str, Any]:
    try:
        return read_record(record.record, index=record.record_index or 0)
    except EvidenceError:
        # The step is shown with its fault; what its bytes say can no longer be read.
        return {}


def _value(opened: Mapping[str, Any], name: str) -> str | None:
    opening = opened.get(name)
    return opening.get("value") if isinstance(opening, Mapping) else None


def _receipt_step(agency: Agency, message: TracedMessage) -> Step:
    """Return the peer's receipt of a message of ours, verified again from the stored bytes."""
    assert message.answered_at is not None, "an answer has its time"
    fault: str | None = None
    peer_at: datetime | None = None
    try:
        peer_at = _received_at(agency, message)
    except NoticeBusError as error:
        fault = error.code
    return Step(
        step="message.receipted",
        agency=agency.peer,
        at=message.answered_at,
        peer_at=peer_at,
        result="ok",
        record_index=message.answer_index,
        verified=Verified.FAILED if fault else Verified.YES,
        message_id=message.message_id,
        kind=message.kind,
        revision=message.revision,
        stream=message.stream,
        sequence=message.sequence,
        fault=fault,
    )


def _received_at(agency: Agency, message: TracedMessage) -> datetime:
    """Return when the peer took a message, from the record that its receipt proves.

    Raises `EvidenceError` NB-3080 when the stored answer does not prove this message's receipt.
    """
    if message.answer_envelope is None:
        raise EvidenceError("NB-3080", message_id=message.message_id)
    record = None
    if message.answer_index is not None:
        record = receipted_record(agency, message.answer_envelope, message.answer_index)
    if record is not None:
        named = (record.get("message_id"), record.get("envelope"), record.get("action"))
        sent = (str(message.message_id), b64(message.envelope_hash), "message.received")
        if named == sent:
            return parse_time(str(record["time"]))
    raise EvidenceError("NB-3080", message_id=message.message_id)
