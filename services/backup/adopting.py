"""Adopt a restored store: a new generation begins, and says of the old one where it ended.

The restored log is kept as evidence and never continued: what came after the backup was signed too,
and the other agency has seen it, so a log that went on from here would be a fork. The new log has
an origin, a key and a first record of its own; that record names the old origin, size and root.
Every outgoing stream begins again at 1 in the new generation. Messages of the old one that wait for
an answer go again as they are.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import structlog
from uuid_utils.compat import uuid7

from schemas.canonical import b64, canonical, format_time, parse
from schemas.checkpoint import sign_checkpoint
from schemas.envelope import Kind
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.proof import EMPTY_ROOT, leaf_hash, root_of
from schemas.proof import append as grow
from services.backup import seen
from services.backup.recovery import Recovered, Recovery, alarm
from services.backup.seen import Streams
from services.backup.snapshot import signers
from services.backup.store import adopting as store
from services.backup.store import recovery as losses
from services.backup.store.adopting import Restoration
from services.backup.store.snapshot import facts
from services.exchange import outbox, parties
from services.exchange.agency import Directory, read_directory
from services.exchange.anchors import own_anchor
from services.exchange.beginnings import beginning
from services.exchange.store import incoming, outgoing
from services.keys import KeyRing
from services.ledger.anchor import Anchor, look
from services.ledger.records import Record, make_record
from services.ledger.sealer import SEALER_LOCK
from services.ledger.store import Store, Transaction, anchored, append, append_returning
from services.ledger.store import log as ledger
from services.settings import Settings

log = structlog.get_logger()

SECONDS = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A generation that began: the log that ended, and what came back; None without a file."""

    generation: int
    origin: str
    old_origin: str
    old_size: int
    old_root: bytes
    again: int
    recovered: Recovered | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """The log that ends."""

    origin: str
    generation: int
    size: int
    root: bytes


async def adopt(
    database: Store, settings: Settings, *, file: Path | None, actor: str, reason: str
) -> Adopted:
    """Begin a new generation on a store that was restored, or that is not what its anchor says.

    `file` is what the other agency has seen. Without one a person decided to go on blind: what was
    sent since the backup is not known here. Safe to repeat until it has succeeded. Raises
    `ConflictError` NB-5045 when nothing waits to be adopted, NB-3004 while a sealer is at work, and
    what `seen.check` and `Recovery.run` raise.
    """
    ring = KeyRing.load(settings.keys_folder)
    directory = await read_directory(database, settings.peer)
    async with database.transaction() as tx:
        anchor = await own_anchor(tx, settings, ring)
        waiting = await _waiting(tx, anchor)
        known = await facts(tx)
    if not waiting:
        raise ConflictError("NB-5045")
    streams = None
    if file is not None:
        streams = seen.check(file, ring, directory, peer=settings.peer)
    generation = waiting[0].generation
    if generation is None or generation < ring.generation:
        generation = 1 + max(ring.generation, known.generation, _told(streams))
        async with database.transaction() as tx:
            await store.decide(tx, generation)
    former = ring.log_key.name
    # What came after the backup is asked for again, in the bytes that it had.
    KeyRing.bring_back(settings.keys_folder)
    ring = KeyRing.begin_generation(settings.keys_folder, generation)
    async with database.transaction(seconds=SECONDS) as tx:
        now = datetime.now(UTC)
        await store.thaw(tx)
        if not await store.lock_log(tx, SEALER_LOCK):
            raise ConflictError("NB-3004")
        head = await ledger.head(tx, lock=True)
        ending = _Ending(
            origin=former if head is None else head.origin,
            generation=known.generation,
            size=0 if head is None else head.size,
            root=EMPTY_ROOT if head is None else head.root,
        )
        await store.end_log(tx, origin=ending.origin, generation=ending.generation, now=now)
        again = await store.begin_streams(tx, generation=generation, now=now)
        first = _first_record(ending, waiting[0], generation, actor, reason, now)
        await _begin_log(tx, ring, first, now)
        await parties.register_own(tx, ring.party(partitions=settings.partitions))
        await outbox.declare_streams(
            tx,
            sender=settings.agency,
            recipient=settings.peer,
            partitions=settings.partitions,
            generation=generation,
        )
        await _tell_end(tx, first, now)
        recovered = None
        if file is not None and streams is not None:
            recovered = await _recovery(tx, ring, directory, settings, now).run(file, streams)
        else:
            await _blind(tx, ending.generation, now)
        await store.adopted(tx, now)
        await anchored.mark(tx, origin=ring.log_key.name, size=0, now=now)
        begun = await ledger.checkpoint_covering(tx, 1)
    assert begun is not None
    # Killed before this, the next start anchors it: the store is ahead by a generation.
    await asyncio.to_thread(anchor.write, begun[1])
    log.info("restore adopted", generation=generation)
    return Adopted(
        generation=generation,
        origin=ring.log_key.name,
        old_origin=ending.origin,
        old_size=ending.size,
        old_root=ending.root,
        again=again,
        recovered=recovered,
    )


async def _waiting(tx: Transaction, anchor: Anchor) -> list[Restoration]:
    """Return what waits to be adopted; a store that contradicts its anchor does from here on."""
    waiting = [each for each in await store.restorations(tx) if each.adopted_at is None]
    if waiting:
        return waiting
    found = await look(tx, anchor)
    if found.error() is None:
        return []
    await store.went_back(tx, anchor=found.note, found=found.newest, now=datetime.now(UTC))
    return await _waiting(tx, anchor)


async def recover(
    database: Store, settings: Settings, *, file: Path, actor: str, reason: str
) -> Recovered:
    """Take a (further) file of what the other agency has seen, into a store that was adopted.

    Raises `ConflictError` NB-5045 when it was never restored, what `seen.check` and `Recovery.run`
    raise.
    """
    ring = KeyRing.load(settings.keys_folder)
    directory = await read_directory(database, settings.peer)
    streams = seen.check(file, ring, directory, peer=settings.peer)
    async with database.transaction(seconds=SECONDS) as tx:
        if not await store.restorations(tx):
            raise ConflictError("NB-5045")
        now = datetime.now(UTC)
        done = await _recovery(tx, ring, directory, settings, now).run(file, streams)
        await append(
            tx,
            [
                make_record(
                    "restore.recovered",
                    time=now,
                    actor=actor,
                    text=reason,
                    detail={"recovered": done.recovered, "lost": done.lost, "asked": done.asked},
                )
            ],
        )
    return done


def _recovery(
    tx: Transaction, ring: KeyRing, directory: Directory, settings: Settings, now: datetime
) -> Recovery:
    return Recovery(
        tx=tx, ring=ring, directory=directory, peer=settings.peer, signers=signers(ring), now=now
    )


def _told(streams: Streams | None) -> int:
    """Return the highest generation of ours that the other agency knows of."""
    if streams is None:
        return 0
    return max([streams.generation, *(reached.generation for reached in streams.read)])


def _first_record(
    ending: _Ending,
    restored: Restoration,
    generation: int,
    actor: str,
    reason: str,
    now: datetime,
) -> Record:
    made_from: dict[str, int | str] = {"backup_made_at": format_time(restored.backup_made_at)}
    if restored.backup_digest is not None:
        made_from["backup"] = b64(restored.backup_digest)
    if restored.anchor is not None:
        made_from["anchor"] = b64(sha256(restored.anchor.encode()).digest())
    return make_record(
        "ledger.adopted",
        time=now,
        generation=generation,
        actor=actor,
        text=reason,
        detail={
            "origin": ending.origin,
            "size": ending.size,
            "root": b64(ending.root),
            "restored_at": format_time(restored.restored_at),
            **made_from,
        },
    )


async def _begin_log(tx: Transaction, ring: KeyRing, record: Record, now: datetime) -> None:
    """Make the new log with this record at index 0, whatever else waits to be sealed."""
    [record_id] = await append_returning(tx, [record])
    frontier = grow([], 0, [leaf_hash(record.record)])
    root = root_of(frontier, 1)
    await ledger.begin(tx, origin=ring.log_key.name, root=EMPTY_ROOT)
    await ledger.extend(
        tx,
        before=0,
        records=[record_id],
        frontier=frontier,
        root=root,
        note=sign_checkpoint(1, root, ring.log_key),
        sealed_at=now,
    )


async def _tell_end(tx: Transaction, record: Record, now: datetime) -> None:
    """Tell the other agency where the old log ended: the new one's first record, with its proof.

    It is said before any other receipt of the new log, and leaves once that log is anchored.
    """
    begun = await ledger.checkpoint_covering(tx, 1)
    assert begun is not None
    message_id = uuid7()
    body = {
        "schema_version": "receipts/1.0",
        "index": 0,
        "frontier": [],
        "entries": [{"record": parse(record.record)}],
        "checkpoint": begun[1],
    }
    await outbox.say(
        tx,
        message_id=message_id,
        kind=Kind.RECEIPTS,
        body=canonical(body),
        correlation_id=message_id,
        causation_id=None,
        made_at=now,
        checkpoint_size=1,
    )
    await incoming.keep_answer_batch(tx, first_index=0, size=1, message_id=message_id)


async def _blind(tx: Transaction, generation: int, now: datetime) -> None:
    """Name every stream of ours of which nobody said how far it went."""
    heads = [head for head in await outgoing.heads(tx) if head.lane != "control"]
    await losses.lose(
        tx,
        [
            losses.Lost(
                lost_id=uuid7(),
                cause="unknown",
                stream=head.stream,
                generation=generation,
                first_sequence=await losses.next_sequence(
                    tx, stream=head.stream, generation=generation
                ),
                found_at=now,
            )
            for head in heads
        ],
    )
    await alarm(tx, now)


async def resolve(database: Store, chosen: str, *, actor: str, reason: str) -> list[losses.Lost]:
    """Note that a person dealt with something lost, by the beginning of its id, or with `all`.

    Raises `NotFoundError` NB-5050 when none is open, NB-6120 for no beginning of an id;
    `RejectedError` NB-7009 when several begin so.
    """
    now = datetime.now(UTC)
    begins = None if chosen == "all" else beginning(chosen)
    async with database.transaction() as tx:
        open_ = await losses.lost(tx)
        found = [each for each in open_ if begins is None or begins.of(each.lost_id)]
        if not found:
            raise NotFoundError("NB-5050", value=chosen)
        if begins is not None and len(found) > 1:
            raise RejectedError("NB-7009", value=chosen, count="several", what="losses")
        done = await losses.resolve(tx, [each.lost_id for each in found], now)
        await append(
            tx,
            [
                make_record(
                    "restore.resolved",
                    time=now,
                    notice_id=each.notice_id,
                    message_id=each.message_id,
                    stream=each.stream,
                    generation=each.generation,
                    sequence=each.first_sequence,
                    reason=each.cause.upper(),
                    actor=actor,
                    text=reason,
                    detail={"lost": str(each.lost_id)},
                )
                for each in done
            ],
        )
        await alarm(tx, now)
    return done
