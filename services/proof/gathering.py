"""Gather what this agency has of some notices, each record with its proof under one checkpoint.

All of it is read in one snapshot. The peer's receipts are proven again from its stored answers:
what a bundle shows of them is the record, its inclusion proof and the checkpoint, and nothing of
the other notices that the same answer was about.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schemas.canonical import canonical
from schemas.catalog import parse_body
from schemas.checkpoint import Checkpoint
from schemas.cosignature import with_cosignatures
from schemas.ending import Disputed
from schemas.envelope import read, verify
from schemas.errors import ConflictError, EvidenceError
from schemas.proof import batch_proofs, tlog_proof
from schemas.reply import Receipts
from services.exchange import parties
from services.exchange.agency import Agency
from services.exchange.receipts import Batch, verify_batch
from services.exchange.store import conflicts, heads
from services.exchange.store.conflicts import Conflict
from services.exchange.store.parties import PartyRow
from services.ledger import tree
from services.ledger.store import Transaction, log
from services.proof import store
from services.proof.counting import Counting
from services.proof.store import Answer, Content, Message, Recorded
from services.proof.tying import Tie, tie

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Proven:
    """The bytes of a record, its index, and the text of its tlog-proof."""

    index: int
    record: bytes
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Everything a bundle is made of; `records` are proven under `note`, by record id.

    `witnesses` are the vkeys of third witnesses that cosigned one of `notes`. `receipts` are by
    message id: the peer's for what we sent, ours for what it sent. `left_out` are messages whose
    key had ended, and of which nothing shows that they were there before: they prove nothing.
    `disputed` are, by message id, signatures that the other agency would take back. `ties` has, by
    message id, the checkpoint of each receipt of the peer's, and what ties it to a cosigned one.
    `conflicts` is what the peer signed and cannot both be true, as far as no person resolved it.
    """

    notices: Sequence[UUID]
    origin: str
    size: int
    note: str
    messages: Sequence[Message]
    left_out: Sequence[Message]
    disputed: Sequence[tuple[UUID, Disputed]]
    recorded: Sequence[Recorded]
    key_records: Sequence[Recorded]
    records: Mapping[int, Proven]
    receipts: Mapping[UUID, Proven]
    refusals: Mapping[UUID, bytes]
    contents: Sequence[Content]
    parties: Sequence[PartyRow]
    consistency: Mapping[int, Sequence[bytes]]
    notes: Mapping[int, str]
    peer_notes: Sequence[tuple[str, int, str]]
    ties: Mapping[UUID, tuple[Checkpoint, Tie]]
    witnesses: Sequence[str]
    conflicts: Sequence[Conflict]


@dataclass(slots=True)
class _Batches:
    """The peer's answers, each verified once and taken apart into proofs."""

    agency: Agency
    answers: Mapping[UUID, Answer]
    proofs: dict[UUID, dict[int, Proven]] = field(default_factory=dict)
    shown: dict[UUID, Batch] = field(default_factory=dict)

    def receipt(self, message: Message) -> Proven:
        """Return the peer's receipt of a message. Raises `EvidenceError` NB-3080 without it."""
        answer = message.answer_message
        if answer is not None and answer in self.answers and answer not in self.proofs:
            self.proofs[answer] = self._proofs(self.answers[answer])
        found = self.proofs.get(answer, {}) if answer is not None else {}
        if message.answer_index not in found:
            raise EvidenceError("NB-3080", message_id=message.message_id)
        return found[message.answer_index]

    def _proofs(self, answer: Answer) -> dict[int, Proven]:
        envelope = verify(read(answer.envelope), self.agency.directory.verify_keys)
        body = parse_body(envelope.attributes.kind, envelope.attributes.version, envelope.plain())
        if not isinstance(body, Receipts):
            return {}
        batch = self.shown[answer.message_id] = verify_batch(body, self.agency)
        proofs = batch_proofs(batch.frontier_before, body.index, batch.leaves)
        return {
            index: Proven(
                index,
                canonical(dict(record)),
                tlog_proof(index, proofs[index - body.index], batch.note),
            )
            for index, record in batch.records
        }


async def gather(
    tx: Transaction, agency: Agency, notices: Sequence[UUID], *, reveal: bool
) -> Gathered:
    """Return what this agency has of these notices; their contents only if `reveal`.

    The transaction is one that holds still, so that all of it is of one moment.

    Raises `ConflictError` NB-3108 before anything was sealed, `EvidenceError` for what the store
    holds and cannot prove.
    """
    newest = await log.newest_checkpoint(tx)
    head = await tree.head(tx)
    if newest is None or head is None:
        raise ConflictError("NB-3108")
    size, note = newest
    recorded = await store.records(tx, notices)
    key_records = await store.key_records(tx)
    counting = await Counting.read(tx, recorded)
    messages, left_out = await counting.divide(tx, await store.messages(tx, notices))
    ours = await _own_receipts(tx, messages, head.origin)
    answers = sorted(
        {m.answer_message for m in messages if m.answer == "receipt" and m.answer_message}
    )
    batches = _Batches(agency, {each.message_id: each for each in await store.answers(tx, answers)})
    theirs = {
        message.message_id: batches.receipt(message)
        for message in messages
        if message.direction == "sent" and message.answer == "receipt"
    }
    refused = {m.message_id: m.answer_message for m in messages if m.answer == "refusal"}
    # One of ours went out, and one of the peer's came in: both are kept as they were signed.
    bodies = await store.envelopes(tx, [each for each in refused.values() if each is not None])
    refusals = {
        message_id: bodies[answer]
        for message_id, answer in refused.items()
        if answer in bodies and await counting.refusal_holds(tx, message_id, bodies[answer])
    }
    sizes = {m.batch_size for m in messages if m.batch_size}
    sizes |= {each for each, _ in counting.weighing.cosigned}
    sizes |= {each.size for _, each in counting.disputed}
    notes = await _notes(tx, sizes | {size}, head.origin)
    peer_notes = {each[:2]: each[2] for each in await store.newest_of_peer(tx)}
    ties: dict[UUID | None, tuple[Checkpoint, Tie]] = {}
    for answer, batch in batches.shown.items():
        point = batch.checkpoint
        peer_notes[point.origin, point.size] = batch.note
        ties[answer] = (point, await tie(tx, batches.answers[answer], point))
    for point, found in ties.values():
        if found.why_not is None:
            # With our own line under it: we saw it, and that it only grew.
            peer_notes[point.origin, found.size] = found.note
    for newest_head in await heads.peer_heads(tx):
        cosigned = with_cosignatures(newest_head.note, [newest_head.line])
        peer_notes[newest_head.origin, newest_head.size] = cosigned
    return Gathered(
        notices=sorted(notices),
        origin=head.origin,
        size=size,
        note=note,
        messages=messages,
        left_out=left_out,
        disputed=counting.disputed,
        recorded=recorded,
        key_records=key_records,
        records=await _proven(tx, [*recorded, *key_records], size, note),
        receipts={**ours, **theirs},
        refusals=refusals,
        contents=await store.contents(tx, [m.message_id for m in messages]) if reveal else [],
        parties=await parties.listed(tx),
        consistency={each: await tree.consistency(tx, each, size) for each in notes},
        notes=notes,
        peer_notes=[(*place, peer_notes[place]) for place in sorted(peer_notes)],
        ties={
            message.message_id: ties[message.answer_message]
            for message in messages
            if message.message_id in theirs
        },
        witnesses=await _third_witnesses(tx, sorted(notes)),
        conflicts=await conflicts.listed(tx),
    )


async def _notes(tx: Transaction, sizes: set[int], origin: str) -> dict[int, str]:
    """Return our checkpoints of these sizes and the newest that each witness cosigned.

    Their cosignatures are under them. Raises `EvidenceError` NB-3240 for one that was cosigned and
    is not here.
    """
    last = max(sizes)
    sizes = sizes | {each.size for each in await heads.newest_of_each(tx) if each.size <= last}
    notes = await store.notes(tx, sorted(sizes))
    for size in sorted(sizes - notes.keys()):
        for each in await heads.cosignatures_of(tx, size):
            raise EvidenceError("NB-3240", name=each.name, size=size, origin=origin)
    return {
        size: with_cosignatures(note, [each.line for each in await heads.cosignatures_of(tx, size)])
        for size, note in notes.items()
    }


async def _third_witnesses(tx: Transaction, sizes: Sequence[int]) -> list[str]:
    kept = [each for size in sizes for each in await heads.cosignatures_of(tx, size)]
    return sorted({each.vkey for each in kept if each.vkey is not None})


async def _proven(
    tx: Transaction, recorded: Sequence[Recorded], size: int, note: str
) -> dict[int, Proven]:
    """Return the proof of each record that the checkpoint covers, by record id."""
    sealed = [
        (each, each.record_index)
        for each in recorded
        if each.record_index is not None and each.record_index < size
    ]
    proofs = await tree.inclusions(tx, [index for _, index in sealed], size)
    return {
        each.record_id: Proven(index, each.record, tlog_proof(index, proof, note))
        for (each, index), proof in zip(sealed, proofs, strict=True)
    }


async def _own_receipts(
    tx: Transaction, messages: Sequence[Message], origin: str
) -> dict[UUID, Proven]:
    """Return our receipts as we gave them: under the checkpoint that they went out with.

    Raises `EvidenceError` NB-3241 where that one is missing, NB-3030 where the record is.
    """
    given: dict[int, list[tuple[Message, int]]] = {}
    for message in messages:
        if message.batch_size is not None and message.record_index is not None:
            given.setdefault(message.batch_size, []).append((message, message.record_index))
    notes = await store.notes(tx, sorted(given))
    receipts: dict[UUID, Proven] = {}
    for size, of_batch in given.items():
        indexes = [index for _, index in of_batch]
        if size not in notes:
            raise EvidenceError("NB-3241", index=min(indexes), size=size, origin=origin)
        proofs = await tree.inclusions(tx, indexes, size)
        rows = {index: await log.records(tx, first=index, end=index + 1) for index in indexes}
        for (message, index), proof in zip(of_batch, proofs, strict=True):
            if not rows[index]:
                raise EvidenceError("NB-3030", index=index)
            ((_, record),) = rows[index]
            receipts[message.message_id] = Proven(
                index, record, tlog_proof(index, proof, notes[size])
            )
    return receipts
