"""One pass over the messages of a store: each is held to everything that is kept of it."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from schemas.canonical import b64, parse_time, unb64
from schemas.catalog import parse_body
from schemas.checkpoint import parse_checkpoint
from schemas.ending import Disputed
from schemas.envelope import CONTROL_KINDS, Envelope, Kind, VerifyKey, commitment, read, verify
from schemas.errors import EvidenceError, RejectedError
from schemas.reply import Receipts, Refusal
from services.exchange import parties
from services.exchange.receipts import prove_batch
from services.exchange.store import contents as store
from services.exchange.store.contents import Kept, Log, Share
from services.exchange.weighing import Weighing
from services.ledger.store import Transaction

# Answers of neighbouring messages are the same few.
ANSWERS_KEPT = 64
# For each reading all records are looked through.
EARLY_A_READ = 1_000
# Receipts messages give one receipt or thousands.
RECEIPTS_A_READ = 2_000
# Checkpoints of ours are shown in the order of their size.
NOTES_A_READ = 1_000
# What the relay puts on no record, and what shows a checkpoint of ours.
_WITHOUT_RECORD = {str(Kind.RECEIPTS), str(Kind.HEAD)}


@dataclass(slots=True, kw_only=True)
class Disowned:
    """What the other agency signed with one key and claims that others may have signed.

    `first` is the earliest of `messages` that it had cosigned itself; `told_at` is when we learned
    of the claim.
    """

    first: Disputed
    told_at: datetime
    messages: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a verified control message says: receipts by message, or one refusal."""

    taken_at: datetime
    receipts: Mapping[UUID, tuple[int, bytes]] = field(default_factory=dict)
    refusal: Refusal | None = None


@dataclass(slots=True, kw_only=True)
class Counts:
    """What was read: messages, answers that are noted, contents erased, bytes in archives.

    `receipts` are those of the answers that receipts messages were found to prove.
    """

    messages: int = 0
    answers: int = 0
    receipts: int = 0
    erased: int = 0
    archived: int = 0

    def add(self, more: "Counts") -> None:
        """Count what was read elsewhere, too."""
        self.messages += more.messages
        self.answers += more.answers
        self.receipts += more.receipts
        self.erased += more.erased
        self.archived += more.archived


@dataclass(slots=True, kw_only=True)
class Walk:
    """One pass over messages in one transaction.

    A receipts message is held against all the answers that it gave. Whether that were all that are
    noted is a matter of counting them; only where it were not, each answer is looked for on its own
    (`each_answer`), so as to name the first that nothing proves.
    """

    tx: Transaction
    each_answer: bool = False
    progress: Callable[[int], None] | None = None
    counts: Counts = field(default_factory=Counts)
    not_evidence: int = 0
    disputed: dict[str, Disowned] = field(default_factory=dict)
    verify_keys: dict[str, VerifyKey] = field(default_factory=dict)
    log_keys: dict[str, Any] = field(default_factory=dict)
    # Messages that came before they were taken, as far as their columns say.
    early: list[Kept] = field(default_factory=list)
    # Index, envelope hash and time of receipts, by the message that gave it and the one it is for.
    given: dict[tuple[UUID, UUID], tuple[int, bytes, datetime]] = field(default_factory=dict)
    known: OrderedDict[UUID, _Answer] = field(default_factory=OrderedDict)
    logs: dict[str, Log] = field(default_factory=dict)
    notes: tuple[str, dict[int, str]] = ("", {})
    _weighing: Weighing | None = None

    @property
    def weighing(self) -> Weighing:
        """How keys ended."""
        assert self._weighing is not None, "a walk begins before it reads"
        return self._weighing

    @property
    def revoked(self) -> bool:
        """Whether some key was revoked: then messages are weighed, too."""
        return any(ending.revoked is not None for ending in self.weighing.endings.values())

    async def begin(self) -> None:
        """Read what all messages are held to. Raises `EvidenceError`."""
        await self._parties()
        self.logs = await store.logs(self.tx)
        self._weighing = await Weighing.read(self.tx)

    async def read(self, share: Share) -> None:
        """Read a share of messages. Raises `EvidenceError` at the first difference."""
        self.early, self.given = [], {}
        before: UUID | None = None
        async with aclosing(store.kept(self.tx, share)) as parts:
            async for messages in parts:
                for message in messages:
                    await self._check(message, self.weighing)
                    # Several records may claim to be its own: it is held to each, counted once.
                    self.counts.messages += message.message_id != before
                    before = message.message_id
                if self.progress is not None:
                    self.progress(self.counts.messages)
        await self._compare_moments()
        await self._compare_answers()

    async def finish(self) -> None:
        """Look for what is missing. Raises `EvidenceError` for the first that is."""
        for each in self.disputed.values():
            each.first = await self.weighing.first_seen(self.tx, each.first)
        gone = await store.gone(self.tx)
        if gone is not None:
            index, message_id, action = gone
            table = "sent" if action == "message.sent" else "inbox"
            raise EvidenceError("NB-3140", table=table, message_id=message_id, index=index)
        orphan = await store.orphan(self.tx)
        if orphan is not None:
            raise EvidenceError("NB-3140", table="sent or inbox", message_id=orphan)
        lacking = await store.unnumbered(self.tx)
        if lacking is not None:
            stream, generation, sequence = lacking
            where = {"stream": stream, "generation": generation, "sequence": sequence}
            raise EvidenceError("NB-3245", **where)

    async def _parties(self) -> None:
        """Take the keys of all party files, each held to its fingerprint."""
        for row in reversed(await parties.listed(self.tx)):
            party = parties.read(row)
            self.verify_keys.update(party.verify_keys())
            self.log_keys.update({key.vkey(): key for key in party.log_verifiers()})

    async def _check(self, message: Kept, weighing: Weighing) -> None:
        if message.envelope is None:
            if message.archived or message.erased:
                self._check_away(message)
            elif message.state != "refused":
                # What was refused is kept as a dead letter, by its exact bytes.
                raise _missing("envelope", message)
            return
        try:
            envelope = verify(read(message.envelope), self.verify_keys)
        except RejectedError as error:
            raise EvidenceError(
                "NB-3141", table="envelope", message_id=message.message_id, rule=error.sentence
            ) from error
        column = _differing(message, envelope)
        if column is not None:
            raise _differs(message, column)
        if envelope.attributes.commitment is not None:
            self._weigh(message, envelope.kid, weighing)
        await self._check_record(message, envelope)
        self._check_content(message, envelope)
        if message.place == "sent":
            await self._check_answer(message)
            if message.kind in _WITHOUT_RECORD:
                await self._check_shown(message, envelope)
        elif message.kind == Kind.RECEIPTS:
            await self._check_answered(message, envelope)

    def _weigh(self, message: Kept, kid: str, weighing: Weighing) -> None:
        """Count a message whose key was revoked, unless it was cosigned before."""
        ending, index = weighing.endings.get(kid), message.record_index
        place = (message.stream, message.generation, message.sequence)
        revoked = ending is not None and ending.revoked is not None
        if not revoked or weighing.rule(kid, place=place, index=index) is None:
            return
        found = weighing.disputed(kid, index=index)
        if found is None:
            self.not_evidence += 1
            return
        kept = self.disputed.setdefault(kid, Disowned(first=found, told_at=weighing.told_at[kid]))
        kept.first = min(kept.first, found, key=lambda each: each.index)
        kept.messages += 1

    def _check_away(self, message: Kept) -> None:
        """Hold a message whose bytes were erased or archived to its record alone."""
        if message.body is not None or (message.record is None and not message.record_archived):
            raise _missing("envelope", message)
        named = b64(message.envelope_hash)
        if message.record is not None and orjson.loads(message.record).get("envelope") != named:
            raise _differs(message, "envelope_hash")
        if message.archived:
            self.counts.archived += 1
        else:
            self.counts.erased += 1

    async def _check_record(self, message: Kept, envelope: Envelope) -> None:
        """Hold a message to the record that it was sent or taken with."""
        if message.record_archived:
            return
        if message.record is None:
            exempt = message.kind in (_WITHOUT_RECORD if message.place == "sent" else CONTROL_KINDS)
            if not exempt and message.state in (None, "applied", "held"):
                raise _missing("record", message)
            return
        said = orjson.loads(message.record)
        committed, tag = envelope.attributes.commitment, envelope.attributes.casetag
        if (
            said.get("envelope") != b64(envelope.hash)
            or (committed is not None and said.get("commitment") != b64(committed))
            or (tag is not None and "casetag" in said and said["casetag"] != b64(tag))
        ):
            rule = f"record {message.record_index} names other bytes"
            raise EvidenceError(
                "NB-3141", table="envelope", message_id=message.message_id, rule=rule
            )
        # What was given back after a restore is on record later than it was numbered.
        recovered = said["action"] == "message.recovered"
        numbered_at = envelope.attributes.time if recovered else parse_time(said["time"])
        since = said.get("detail", {}).get("since")
        began = {numbered_at} if since is None else {numbered_at, parse_time(since)}
        if message.moment in began:
            return
        if message.place == "sent":
            raise _differs(message, "sequenced_at")
        self.early.append(message)
        if len(self.early) >= EARLY_A_READ:
            await self._compare_moments()

    async def _compare_moments(self) -> None:
        """See that what came before it was taken was refused or set aside when it came."""
        early, self.early = self.early, []
        came = [(message.message_id, message.moment) for message in early]
        known = await store.set_aside(self.tx, came) if came else ()
        for message in early:
            if (message.message_id, message.moment) not in known:
                raise _differs(message, "received_at")

    def _check_content(self, message: Kept, envelope: Envelope) -> None:
        committed = envelope.attributes.commitment
        if committed is None:
            return
        if not message.content:
            if message.state != "refused":
                raise _missing("payload", message)
            return
        if message.erased_at is not None and message.body is None and message.salt is None:
            self.counts.erased += 1
            return
        try:
            holds = commitment(message.salt or b"", message.body or b"") == committed
        except ValueError:
            holds = False
        if not holds or message.erased_at is not None:
            raise EvidenceError("NB-3143", message_id=message.message_id)

    async def _check_answer(self, message: Kept) -> None:
        """Hold an answer that is noted to the control message that gave it."""
        if (message.answer == "none") != (message.kind in CONTROL_KINDS):
            raise _unproven(message.message_id, "it is noted that none is owed")
        if message.answer not in ("receipt", "refusal"):
            return
        if not self.each_answer:
            self.counts.answers += 1
            if message.answer == "receipt":
                return
        if message.answer_message is None:
            raise _unproven(message.message_id, "no message is named that gave it")
        answer = await self._answer(message.answer_message, message.message_id)
        if message.answer == "refusal":
            refusal = answer.refusal
            if refusal is None or (refusal.message_id, refusal.envelope, refusal.code) != (
                message.message_id,
                b64(message.envelope_hash),
                message.answer_code,
            ):
                raise _unproven(message.message_id, "the message that gave it refuses another")
        else:
            receipt = answer.receipts.get(message.message_id)
            if receipt is None or receipt != (message.answer_index, message.envelope_hash):
                rule = "no record under the checkpoint is its receipt"
                raise _unproven(message.message_id, rule)
        if answer.taken_at != message.answered_at:
            raise _differs(message, "answered_at")

    async def _check_shown(self, message: Kept, envelope: Envelope) -> None:
        """Find the checkpoint of ours that a message showed to the other agency."""
        assert not isinstance(envelope.data, str), "control stands in clear"
        shown = parse_checkpoint(envelope.data["checkpoint"])
        point = shown.checkpoint
        log = self.logs.get(point.origin)
        if log is not None and log.former and point.size > log.size:
            # The restore lost it, and the message came back from the other agency.
            return
        name, notes = self.notes
        if name != point.origin or point.size not in notes:
            size, limit = point.size, NOTES_A_READ
            notes = await store.notes(self.tx, point.origin, size, limit=limit)
            self.notes = (point.origin, notes)
        kept = notes.get(point.size)
        if kept is None or parse_checkpoint(kept).checkpoint != point:
            rule = "there is no such checkpoint" if kept is None else "its root is another here"
            where = {"size": point.size, "origin": point.origin, "rule": rule}
            raise EvidenceError("NB-3244", message_id=message.message_id, **where)

    async def _check_answered(self, message: Kept, envelope: Envelope) -> None:
        """Prove the receipts that a message gave, to be held against what is noted."""
        if len(self.given) >= RECEIPTS_A_READ:
            await self._compare_answers()
        giver = message.message_id
        with _giving(giver, asked_by=giver):
            answer = self._said(envelope, message.moment)
        for message_id, receipt in answer.receipts.items():
            self.given[giver, message_id] = (*receipt, answer.taken_at)

    async def _compare_answers(self) -> None:
        """See that what was answered is noted as answered, and count receipts noted as given."""
        given, self.given = self.given, {}
        messages = [message_id for _, message_id in given]
        for noted in await store.answered(self.tx, messages) if messages else ():
            if noted.answer is None:
                giver = next(giver for giver, answered in given if answered == noted.message_id)
                raise _unproven(noted.message_id, f"receipts message {giver} gave one")
            if noted.answer == "receipt" and noted.answer_message is not None:
                receipt = given.get((noted.answer_message, noted.message_id))
                said = (noted.answer_index, noted.envelope_hash, noted.answered_at)
                self.counts.receipts += receipt == said

    async def _answer(self, message_id: UUID, asked_by: UUID) -> _Answer:
        """Return what a control message of the peer says, verified again."""
        found = self.known.pop(message_id, None)
        if found is None:
            found = await self._read_answer(message_id, asked_by)
        self.known[message_id] = found
        if len(self.known) > ANSWERS_KEPT:
            self.known.popitem(last=False)
        return found

    async def _read_answer(self, message_id: UUID, asked_by: UUID) -> _Answer:
        row = await store.answer(self.tx, message_id)
        if row is None or row.envelope is None:
            raise _unproven(asked_by, f"message {message_id}, which gave it, is gone")
        with _giving(message_id, asked_by=asked_by):
            return self._said(verify(read(row.envelope), self.verify_keys), row.taken_at)

    def _said(self, envelope: Envelope, taken_at: datetime) -> _Answer:
        """Return what a control message says; receipts are proven again.

        Raises `RejectedError` and `EvidenceError` for what cannot be read or is not proven.
        """
        attributes = envelope.attributes
        body = parse_body(attributes.kind, attributes.version, envelope.plain())
        if isinstance(body, Refusal):
            return _Answer(refusal=body, taken_at=taken_at)
        if not isinstance(body, Receipts):
            return _Answer(taken_at=taken_at)
        batch = prove_batch(body, tuple(self.log_keys.values()))
        receipts = {
            UUID(said["message_id"]): (index, unb64(said["envelope"]))
            for index, said in batch.records
            if said.get("action") == "message.received"
        }
        return _Answer(receipts=receipts, taken_at=taken_at)


_SIGNED = (
    "message_id",
    "envelope_hash",
    "stream",
    "generation",
    "sequence",
    "kind",
    "notice_id",
    "revision",
    "record_id",
    "state",
)


def _differing(message: Kept, envelope: Envelope) -> str | None:
    """Return the first column that says something else than the signed bytes."""
    attributes = envelope.attributes
    stored = (
        message.message_id,
        message.envelope_hash,
        message.stream,
        message.generation,
        message.sequence,
        message.kind,
        message.notice_id,
        message.revision,
        message.points_to_it,
        message.state == "control",
    )
    signed = (
        attributes.id,
        envelope.hash,
        attributes.stream,
        attributes.generation,
        attributes.sequence,
        attributes.kind,
        attributes.subject,
        attributes.revision,
        True,
        message.state is not None and _control(envelope),
    )
    if stored == signed:
        return None
    return next(
        name for name, ours, said in zip(_SIGNED, stored, signed, strict=True) if ours != said
    )


def _control(envelope: Envelope) -> bool:
    return envelope.attributes.kind in CONTROL_KINDS


def _missing(table: str, message: Kept) -> EvidenceError:
    return EvidenceError(
        "NB-3140", table=table, message_id=message.message_id, index=message.record_index
    )


def _differs(message: Kept, column: str) -> EvidenceError:
    return EvidenceError(
        "NB-3142", table=message.place, message_id=message.message_id, column=column
    )


@contextmanager
def _giving(message_id: UUID, *, asked_by: UUID) -> Iterator[None]:
    """Turn what is wrong with a message that gave an answer into what the answer lacks."""
    try:
        yield
    except (RejectedError, EvidenceError) as error:
        raise _unproven(asked_by, f"message {message_id}: {error.sentence}") from error


def _unproven(message_id: UUID, rule: str) -> EvidenceError:
    return EvidenceError("NB-3144", message_id=message_id, rule=rule)
