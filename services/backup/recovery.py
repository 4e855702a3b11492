"""Fill what a restore lost from what the other agency has seen, and name what stays lost.

Our own messages come back as they were: same id, sequence and bytes, proven by our own signature,
and their content by the commitment that we signed. So they count as sent, receipts for them are
believed when they come again, and what ICE had sent has its obligation. What the other agency sent
is asked for again, from the highest sequence here up to the one it wrote. A person has to see to
the rest: replies whose case work is gone, content that was erased, sequences that nobody has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from uuid_utils.compat import uuid7

from schemas.canonical import format_time
from schemas.catalog import parse_body
from schemas.envelope import Attributes, Kind, Lane, commitment, read, verify
from schemas.errors import EvidenceError, RejectedError
from schemas.jose import VerifyKey
from schemas.notice import Notice
from services.backup import seen
from services.backup.seen import Reached, Received, Streams
from services.backup.store import recovery as store
from services.backup.store.recovery import Lost, SentRow
from services.exchange import gaps
from services.exchange.agency import Directory
from services.exchange.resending import declare_void
from services.exchange.store import dead, outgoing
from services.ice import recovery as ice
from services.keys import KeyRing
from services.ledger.records import Record, make_record
from services.ledger.store import Transaction, append

_BATCH = 500
# Work of people at HHS that its own messages told of, and that they cannot bring back.
_REPLIES = frozenset({Kind.ACKNOWLEDGEMENT, Kind.DISPOSITION, Kind.ACTION, Kind.OUTCOME})
ALARM, ALARM_SUBJECT = "NB-3064", "restore"


@dataclass(slots=True)
class Recovered:
    """What a file brought back: our messages, by whether they were known here, and gaps opened."""

    known: int = 0
    recovered: int = 0
    lost: int = 0
    asked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ours:
    """One message of ours as the other agency received it."""

    jws: bytes
    hash: bytes
    attributes: Attributes
    salt: bytes | None
    body: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One file's way into our store, inside the transaction that adopts it, or later."""

    tx: Transaction
    ring: KeyRing
    directory: Directory
    peer: str
    signers: dict[str, VerifyKey]
    now: datetime
    done: Recovered = field(default_factory=Recovered)

    async def run(self, path: Path, streams: Streams) -> Recovered:
        """Take a file that `seen.check` has read. Raises `EvidenceError` NB-3063."""
        arriving = seen.messages(path, self.ring, self.directory)
        while batch := list(islice(arriving, _BATCH)):
            await self._take([self._ours(message, path) for message in batch], path)
        for reached in streams.read:
            await self._close(reached)
        for reached in streams.wrote:
            self.done.asked += await gaps.note_written(
                self.tx, reached.stream, reached.generation, reached.highest, self.now
            )
        await alarm(self.tx, self.now)
        return self.done

    def _ours(self, message: Received, path: Path) -> _Ours:
        """Hold a message to our signature, and its content to our commitment."""
        try:
            envelope = verify(read(message.envelope), self.signers)
        except RejectedError as error:
            raise EvidenceError("NB-3063", path=path, cause=error.code) from None
        attributes = envelope.attributes
        if attributes.sender != self.ring.agency or attributes.recipient != self.peer:
            raise EvidenceError("NB-3063", path=path, cause="NB-2013")
        salt, body = message.salt, message.body
        if salt is not None and body is not None and attributes.commitment is not None:
            if commitment(salt, body) != attributes.commitment:
                raise EvidenceError("NB-3063", path=path, cause="NB-2027")
        else:
            salt = body = None
        return _Ours(
            jws=message.envelope, hash=envelope.hash, attributes=attributes, salt=salt, body=body
        )

    async def _take(self, messages: Sequence[_Ours], path: Path) -> None:
        known = await store.known(self.tx, [m.attributes.id for m in messages])
        if any(known.get(m.attributes.id, m.hash) != m.hash for m in messages):
            raise EvidenceError("NB-3063", path=path, cause="NB-2151")
        fresh = [m for m in messages if m.attributes.id not in known]
        self.done.known += len(messages) - len(fresh)
        if not fresh:
            return
        waiting = await store.leave_outbox(self.tx, [m.attributes.id for m in fresh])
        numbered = await store.number(self.tx, [_row(message) for message in fresh])
        if len(numbered) != len(fresh):
            raise EvidenceError("NB-3063", path=path, cause="NB-2152")
        await outgoing.keep_envelopes(self.tx, [(m.attributes.id, m.jws) for m in fresh])
        await outgoing.keep_payloads(
            self.tx,
            [
                (m.attributes.id, m.salt, m.body)
                for m in fresh
                if m.salt is not None and m.body is not None
            ],
        )
        await append(self.tx, [_record(message, self.now) for message in fresh])
        self.done.recovered += len(fresh)
        # What stood in the outbox has its obligation or case, as the backup has it.
        await self._place([m for m in fresh if m.attributes.id not in waiting])

    async def _place(self, messages: Sequence[_Ours]) -> None:
        """Let an agency's own tables say again what its messages said; name what cannot."""
        data = [m for m in messages if m.attributes.lane is not Lane.CONTROL]
        notices: list[tuple[Attributes, Notice]] = []
        lost: list[Lost] = []
        for message in data:
            attributes = message.attributes
            if message.body is None:
                lost.append(self._lost("content", message))
            elif attributes.kind in _REPLIES:
                lost.append(self._lost("work", message))
            elif attributes.kind is Kind.FTA:
                body = parse_body(attributes.kind, attributes.version, message.body)
                assert isinstance(body, Notice)
                notices.append((attributes, body))
        homeless = await ice.rebuild(self.tx, notices) if notices else set()
        placed = [(a, n) for a, n in notices if a.id not in homeless]
        placed.sort(key=lambda each: (each[1].notice_id, each[1].revision))
        await append(self.tx, [_placed(*each, now=self.now) for each in placed])
        lost += [self._lost("work", m) for m in data if m.attributes.id in homeless]
        await self._lose(lost)

    async def _close(self, reached: Reached) -> None:
        """Declare void what the other agency waits for and nobody has."""
        ranges = await store.nowhere(
            self.tx,
            stream=reached.stream,
            generation=reached.generation,
            last=reached.highest,
        )
        await declare_void(self.tx, reached.stream, reached.generation, ranges, now=self.now)
        await self._lose(
            [
                Lost(
                    lost_id=uuid7(),
                    cause="nowhere",
                    stream=reached.stream,
                    generation=reached.generation,
                    first_sequence=first,
                    last_sequence=last,
                    found_at=self.now,
                )
                for first, last in ranges
            ]
        )

    def _lost(self, cause: str, message: _Ours) -> Lost:
        attributes = message.attributes
        return Lost(
            lost_id=uuid7(),
            cause=cause,
            stream=attributes.stream,
            generation=attributes.generation,
            first_sequence=attributes.sequence,
            last_sequence=attributes.sequence,
            message_id=attributes.id,
            kind=str(attributes.kind),
            notice_id=attributes.subject,
            revision=attributes.revision,
            said_at=attributes.time,
            found_at=self.now,
        )

    async def _lose(self, losses: Sequence[Lost]) -> None:
        await store.lose(self.tx, losses)
        self.done.lost += len(losses)


async def alarm(tx: Transaction, now: datetime) -> None:
    """Let the alarm stand exactly as long as something lost waits for a person."""
    if await store.lost(tx):
        await dead.raise_alarm(tx, ALARM, ALARM_SUBJECT, now)
    else:
        await dead.clear_alarm(tx, ALARM, ALARM_SUBJECT, now)


def _row(message: _Ours) -> SentRow:
    attributes = message.attributes
    return SentRow(
        stream=attributes.stream,
        generation=attributes.generation,
        sequence=attributes.sequence,
        message_id=attributes.id,
        kind=str(attributes.kind),
        notice_id=attributes.subject,
        revision=attributes.revision,
        envelope_hash=message.hash,
        sequenced_at=attributes.time,
        answer="none" if attributes.lane is Lane.CONTROL else None,
    )


def _record(message: _Ours, now: datetime) -> Record:
    attributes = message.attributes
    return make_record(
        "message.recovered",
        time=now,
        notice_id=attributes.subject,
        message_id=attributes.id,
        stream=attributes.stream,
        generation=attributes.generation,
        sequence=attributes.sequence,
        envelope=message.hash,
        commitment=attributes.commitment,
        detail=_said(attributes),
    )


def _said(attributes: Attributes) -> dict[str, int | str]:
    """Return what a record says of a message that was made and numbered before the restore."""
    said: dict[str, int | str] = {"sent_at": format_time(attributes.time)}
    return said if attributes.revision is None else {**said, "revision": attributes.revision}


def _placed(attributes: Attributes, notice: Notice, *, now: datetime) -> Record:
    """Return the record of a revision that stands with its obligation again."""
    return make_record(
        "notice.recovered",
        time=now,
        notice_id=notice.notice_id,
        message_id=attributes.id,
        reason=None if notice.reason_code is None else str(notice.reason_code),
        detail={
            "revision": notice.revision,
            "lane": str(attributes.lane),
            "kind": str(notice.notice_kind),
            "made_at": format_time(attributes.time),
            "detected_at": format_time(notice.detected_at),
        },
    )
