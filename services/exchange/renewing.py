"""Say again, under new ids, what was under way when its key was revoked.

The peer refuses everything that a revoked key signed, so bytes that are not answered yet will never
be. The same content goes out once more: same salt, same commitment, a new id that names the old one
as its cause, signed by the key of today. The old sequences are void. Whether the peer had taken the
old message is not known here; it knows a content that took effect by its commitment, and answers
without a second effect.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from schemas.canonical import b64, canonical, parse
from schemas.checkpoint import parse_checkpoint
from schemas.envelope import Attributes, Kind, Lane, begin_of, commitment, read
from services.exchange import outbox
from services.exchange.gaps import ranges_of
from services.exchange.outbox import OUTBOX_CHANNELS
from services.exchange.resending import declare_void
from services.exchange.store import heads, outgoing, renewals
from services.exchange.store.outgoing import OutboxRow
from services.exchange.store.renewals import SIGNED_BY_REVOKED, Signed
from services.ledger import tree
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify
from services.ledger.store import log as ledger

# What a control message told and nobody tells again by itself. A request is made again while its
# gap lasts; a head is told anew, with the cosignature that it may have carried.
_TOLD = frozenset({Kind.RECEIPTS, Kind.REFUSAL, Kind.VOID})


@dataclass(frozen=True, slots=True)
class Renewed:
    """How many messages go again under new ids, and how many control messages beside them."""

    messages: int
    control: int


async def renew(tx: Transaction, kid: str, *, now: datetime) -> Renewed:
    """Put into the outbox again what a revoked key of ours signed and nobody answered.

    The caller holds all streams, so nothing is numbered meanwhile.
    """
    begin = begin_of(kid)
    lost = await renewals.unanswered(tx, begin)
    unread = await renewals.unread(tx, begin)
    told = [each for each in unread if each.kind in _TOLD]
    if lost:
        await _again(tx, lost, now)
    if told:
        await _tell_again(tx, told, now)
    if any(each.kind == Kind.HEAD for each in unread):
        await heads.tell_anew(tx)
    for (stream, generation), signed in _by_stream([*lost, *unread]).items():
        ranges = ranges_of([each.sequence for each in signed])
        await declare_void(tx, stream, generation, ranges, now=now, code=SIGNED_BY_REVOKED)
    return Renewed(len(lost), len(told))


async def _again(tx: Transaction, lost: Sequence[Signed], now: datetime) -> None:
    said = {each.message_id: _said(each) for each in lost}
    causes = {a.causationid for a in said.values() if a.causationid is not None}
    corrected = await renewals.corrects(tx, sorted(causes))
    rows, payloads, records, pairs = [], [], [], []
    for each in lost:
        attributes, new = said[each.message_id], uuid7()
        assert each.salt is not None
        assert each.body is not None
        cause = each.message_id
        if corrected.get(attributes.causationid or cause, 2**31) < (each.revision or 0):
            # It stands in for a message that was refused, which only its own cause tells the peer.
            cause = attributes.causationid or cause
        bound = commitment(each.salt, each.body)
        rows.append(
            OutboxRow(
                stream=each.stream,
                message_id=new,
                kind=each.kind,
                notice_id=each.notice_id,
                revision=each.revision,
                correlation_id=attributes.correlationid,
                causation_id=cause,
                commitment=bound,
                made_at=attributes.time,
            )
        )
        payloads.append((new, each.salt, each.body))
        pairs.append((each.message_id, new))
        detail: dict[str, int | str] = {"former": str(each.message_id)}
        if each.revision is not None:
            detail["revision"] = each.revision
        records.append(
            make_record(
                "message.renewed",
                time=now,
                notice_id=each.notice_id,
                message_id=new,
                commitment=bound,
                detail=detail,
            )
        )
    await outgoing.add(tx, rows)
    await outgoing.keep_payloads(tx, payloads)
    await renewals.note(tx, pairs, now)
    await append(tx, records)
    for lane, _ in Counter(a.lane for a in said.values()).items():
        await notify(tx, OUTBOX_CHANNELS[lane])


async def _tell_again(tx: Transaction, told: Sequence[Signed], now: datetime) -> None:
    pairs: list[tuple[UUID, UUID]] = []
    # Held, so that receipts which are sealed from here on come later in the outbox too.
    head = await ledger.head(tx, lock=True)
    newest = None if head is None else await ledger.checkpoint_covering(tx, head.size)
    for each in told:
        attributes, new = _said(each), uuid7()
        body = parse(read(each.envelope).payload)["data"]
        grown = None
        if each.kind == Kind.RECEIPTS and newest is not None:
            grown = await _grown(tx, body, *newest)
        await outbox.say(
            tx,
            message_id=new,
            kind=Kind(each.kind),
            body=canonical(grown or body),
            correlation_id=attributes.correlationid,
            causation_id=each.message_id,
            made_at=now,
            checkpoint_size=None if grown is None or newest is None else newest[0],
        )
        pairs.append((each.message_id, new))
    await renewals.answer_by(tx, pairs)
    await renewals.note(tx, pairs, now)
    await notify(tx, OUTBOX_CHANNELS[Lane.CONTROL])


async def _grown(
    tx: Transaction, body: dict[str, Any], size: int, note: str
) -> dict[str, Any] | None:
    """Return receipts with the proof that their log has grown from their checkpoint to this one.

    The peer may have read later receipts and not these: it would take the log for one that went
    back. None for those of a log that a restore ended, and where nothing came after them.
    """
    old = parse_checkpoint(body["checkpoint"]).checkpoint
    if old.origin != parse_checkpoint(note).checkpoint.origin or old.size >= size:
        return None
    proof = [b64(each) for each in await tree.consistency(tx, old.size, size)]
    return body | {"schema_version": "receipts/1.1", "grown": note, "consistency": proof}


def _said(each: Signed) -> Attributes:
    attributes = read(each.envelope).claims
    # Our own bytes, which were numbered with exactly these attributes.
    assert attributes is not None, each.message_id
    return attributes


def _by_stream(signed: Sequence[Signed]) -> dict[tuple[str, int], list[Signed]]:
    found: dict[tuple[str, int], list[Signed]] = {}
    for each in signed:
        found.setdefault((each.stream, each.generation), []).append(each)
    return found
