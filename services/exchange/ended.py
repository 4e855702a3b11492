"""The peer's database was restored: what it lost is void here, and goes there again.

The first record of its new log names the old one, and where that ended. It comes as the first
receipts of the new generation, in full, under a checkpoint that the new log key signed. Receipts
for records from there on proved what is no more: they are marked void by restore, their messages
are open and go again as they are. That a database was restored is an alarm until a person says so.
"""

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog

from schemas.canonical import b64, unb64
from schemas.catalog import parse_body
from schemas.checkpoint import Checkpoint
from schemas.envelope import read, verify
from schemas.errors import EvidenceError
from schemas.reply import Receipts, Resend
from services.exchange import conflicts, resending
from services.exchange.agency import Agency
from services.exchange.gaps import ranges_of
from services.exchange.receipts import Batch, verify_batch
from services.exchange.store import answered, heads
from services.exchange.store import conflicts as notes
from services.exchange.store import ended as store
from services.exchange.store.ended import Voided
from services.ledger.records import Record, make_record
from services.ledger.store import Transaction, append

log = structlog.get_logger()

RESTORED = "NB-3161"
VOID_BY_RESTORE = "NB-3162"
SIZE_MAX = 2**63 - 1


async def check(tx: Transaction, batch: Batch) -> None:
    """Refuse receipts of a log that ended before. Raises `EvidenceError` NB-3162."""
    end = await store.size_of(tx, batch.checkpoint.origin)
    if end is not None and batch.checkpoint.size > end:
        raise EvidenceError(VOID_BY_RESTORE, origin=batch.checkpoint.origin, size=end)


async def take(tx: Transaction, agency: Agency, batch: Batch, now: datetime) -> None:
    """Void what ended with the log that the first record of this batch names, if it names one.

    Raises `EvidenceError` NB-3163 for a record that names no earlier log of the same agency.
    """
    first = dict(batch.records).get(0)
    if first is None or first.get("action") != "ledger.adopted":
        return
    old = _former(batch.checkpoint, first)
    if not await store.keep(
        tx, origin=old.origin, size=old.size, root=old.root, note=batch.note, now=now
    ):
        return
    # What it had read it may have lost again, and nobody may take that for read.
    await heads.forget_peer_read(tx)
    known = await notes.known_between(tx, old.origin, old.size, SIZE_MAX)
    beside = known[-1].note if known else ""
    at = Checkpoint(old.origin, old.size, old.root)
    forked = [each for each in known if each.size == old.size and each.root != old.root]
    code = conflicts.FORKED if forked else RESTORED
    await conflicts.keep(
        tx, code, at, known=forked[0].note if forked else beside, told=batch.note, now=now
    )
    generation = _generation(old.origin)
    voided = await store.void(tx, origin=old.origin, generation=generation, size=old.size, now=now)
    await append(tx, [_record(each, old, now) for each in voided])
    again = await _receipted_since(tx, agency, generation, voided, now)
    open_ = [each for each in voided if each.message_id not in again]
    for (stream, of), group in groupby(open_, key=lambda each: (each.stream, each.generation)):
        for start, end in ranges_of(each.sequence for each in group):
            ask = Resend(stream=stream, generation=of, first=start, last=end)
            await resending.provide(tx, ask, now=now)
    log.error("peer restored its store", origin=old.origin, size=old.size, count=len(voided))


def _former(checkpoint: Checkpoint, record: Mapping[str, Any]) -> Checkpoint:
    """Return the log that ended, as the new log's first record says."""
    detail = record.get("detail", {})
    origin, size, root = detail.get("origin"), detail.get("size"), detail.get("root")
    if not isinstance(origin, str) or not isinstance(size, int) or not isinstance(root, str):
        raise EvidenceError("NB-3163", origin=checkpoint.origin)
    same = origin.rpartition("/")[0] == checkpoint.origin.rpartition("/")[0]
    if not same or _generation(origin) >= _generation(checkpoint.origin):
        raise EvidenceError("NB-3163", origin=checkpoint.origin)
    return Checkpoint(origin, size, unb64(root))


def _generation(origin: str) -> int:
    last = origin.rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() else 0


def _record(each: Voided, old: Checkpoint, now: datetime) -> Record:
    return make_record(
        "receipt.voided",
        time=now,
        notice_id=each.notice_id,
        message_id=each.message_id,
        stream=each.stream,
        generation=each.generation,
        sequence=each.sequence,
        reason="RESTORE",
        detail={
            "answer": str(each.answer_message),
            "index": each.answer_index,
            "origin": old.origin,
            "size": old.size,
            "root": b64(old.root),
        },
    )


async def _receipted_since(
    tx: Transaction, agency: Agency, generation: int, voided: list[Voided], now: datetime
) -> set[UUID]:
    """Believe receipts of the new log that came before its first record did; returns whose."""
    wanted = {each.message_id for each in voided}
    found: set[UUID] = set()
    for answer, jws in await store.taken_since(tx, generation) if wanted else ():
        envelope = verify(read(jws), agency.directory.verify_keys)
        body = parse_body(envelope.attributes.kind, envelope.attributes.version, envelope.plain())
        assert isinstance(body, Receipts)
        named = [
            (message_id, unb64(record["envelope"]), index)
            for index, record in verify_batch(body, agency).records
            if record.get("action") == "message.received"
            and (message_id := UUID(record["message_id"])) in wanted
        ]
        if named:
            done = await answered.receipted(tx, answer_message=answer, receipts=named, now=now)
            found |= {message_id for message_id, _, _ in done}
            detail: dict[str, int | str] = {"receipts": len(named)}
            record = make_record(
                "receipts.verified",
                time=now,
                message_id=answer,
                envelope=envelope.hash,
                detail=detail,
            )
            await append(tx, [record])
    return found
