"""Forks and rollbacks of the peer's log: an alarm that stays until a person resolves it.

Two roots at one size, a log that did not grow out of what was seen, a smaller size under a later
sequence: whichever shows it, both notes are kept, signed as they are. Receipts from there on are
not believed and their obligations stay open; notices, other logs and everything else go on.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from uuid_utils.compat import uuid7

from schemas.catalog import parse_body
from schemas.checkpoint import Checkpoint
from schemas.envelope import Attributes, Lane, read, stream_name, verify
from schemas.errors import EvidenceError, NotFoundError, RejectedError
from schemas.reply import Receipts
from services.exchange.agency import Agency
from services.exchange.beginnings import beginning
from services.exchange.receipts import Batch, verify_batch
from services.exchange.store import conflicts as store
from services.exchange.store import dead
from services.exchange.store.conflicts import Conflict, Note
from services.ledger.records import make_record
from services.ledger.store import Store, Transaction, append, together

log = structlog.get_logger()

FORKED = "NB-3021"
NOT_GROWN = "NB-3023"
WENT_BACK = "NB-3157"
IN_DOUBT = "NB-3158"


class ContradictionError(EvidenceError):
    """What arrived contradicts a note that is known here; both are to be kept."""

    def __init__(self, code: str, checkpoint: Checkpoint, *, known: str, told: str) -> None:
        super().__init__(code, origin=checkpoint.origin, size=checkpoint.size)
        self.checkpoint, self.known, self.told = checkpoint, known, told


async def keep(
    tx: Transaction,
    code: str,
    checkpoint: Checkpoint,
    *,
    known: str,
    told: str,
    now: datetime,
) -> None:
    """Keep two notes that contradict each other: alarm, and a record the first time."""
    new = await store.keep(
        tx,
        conflict_id=uuid7(),
        code=code,
        origin=checkpoint.origin,
        size=checkpoint.size,
        known=known,
        told=told,
        now=now,
    )
    await dead.raise_alarm(tx, code, checkpoint.origin, now)
    if new:
        detail: dict[str, int | str] = {"origin": checkpoint.origin, "size": checkpoint.size}
        await append(tx, [make_record("conflict.found", time=now, reason=code, detail=detail)])
    log.error("notes contradict each other", code=code, origin=checkpoint.origin)


async def keep_apart(database: Store, found: ContradictionError) -> None:
    """Keep what made a message fail, in a transaction of its own."""
    async with database.transaction() as tx:
        await keep(
            tx,
            found.code,
            found.checkpoint,
            known=found.known,
            told=found.told,
            now=datetime.now(UTC),
        )


async def check_batch(
    tx: Transaction, agency: Agency, batch: Batch, attributes: Attributes
) -> None:
    """Hold a batch of receipts to everything that is known of its log.

    Raises `ContradictionError` NB-3021 or NB-3157, `EvidenceError` NB-3158 for one that builds upon
    what is in doubt.
    """
    checkpoint = batch.checkpoint
    doubt, known, shown, larger = await together(
        store.doubt(tx, checkpoint.origin),
        store.known_between(tx, checkpoint.origin, batch.first_index, checkpoint.size),
        _shown(tx, agency, checkpoint),
        store.larger_before(
            tx,
            checkpoint.origin,
            checkpoint.size,
            generation=attributes.generation,
            sequence=attributes.sequence,
        ),
    )
    for each in known:
        _hold(each, checkpoint.origin, batch.root_at(each.size), told=batch.note)
    if larger is not None:
        # What names a cause is said again, under a new id, because the key that signed it was
        # revoked. That alone proves nothing: it has to be in the log that told of more since.
        there = [*known, *shown]
        proven = any((each.size, each.root) == (checkpoint.size, checkpoint.root) for each in there)
        proven = proven or (batch.grown is not None and batch.grown[0].size >= larger.size)
        if attributes.causationid is None or not proven:
            raise ContradictionError(WENT_BACK, checkpoint, known=larger.note, told=batch.note)
    for each in shown:
        _hold(each, checkpoint.origin, checkpoint.root, told=batch.note)
    if batch.grown is not None:
        grown, note = batch.grown
        known = await store.known_between(tx, grown.origin, grown.size, grown.size)
        for each in [*known, *await _shown(tx, agency, grown)]:
            _hold(each, grown.origin, grown.root, told=note)
    if doubt is not None and checkpoint.size >= doubt:
        raise EvidenceError(IN_DOUBT, origin=checkpoint.origin, size=doubt)


async def _shown(tx: Transaction, agency: Agency, point: Checkpoint) -> list[Note]:
    """Return what larger receipts that were believed show of the log at this size, if they do."""
    stream = stream_name(agency.peer, agency.name, Lane.CONTROL, 0)
    above = await store.believed_above(tx, point.origin, point.size, stream=stream)
    if above is None:
        return []
    envelope = verify(read(above), agency.directory.verify_keys)
    body = parse_body(envelope.attributes.kind, envelope.attributes.version, envelope.plain())
    assert isinstance(body, Receipts)
    batch = verify_batch(body, agency)
    if batch.first_index > point.size:
        return []
    return [Note(point.size, batch.root_at(point.size), batch.note)]


def _hold(known: Note, origin: str, root: bytes, *, told: str) -> None:
    """Refuse another root for a size that is known. Raises `ContradictionError` NB-3021."""
    if known.root != root:
        at = Checkpoint(origin, known.size, known.root)
        raise ContradictionError(FORKED, at, known=known.note, told=told)


async def listed(database: Store, *, resolved: bool = False) -> list[Conflict]:
    """Return the open conflicts, oldest first; with `resolved` all that ever were."""
    async with database.transaction() as tx:
        return await store.listed(tx, resolved=resolved)


async def resolve(database: Store, chosen: str, *, actor: str, reason: str) -> Sequence[Conflict]:
    """Note that a person resolved a conflict, by the beginning of its id, or with `all`.

    Receipts that were not believed are taken when they are redriven, unless they contradict what is
    known by themselves. Raises `NotFoundError` NB-3159 when none is open under that id, NB-6120 for
    no beginning of an id; `RejectedError` NB-7009 when several begin so.
    """
    now = datetime.now(UTC)
    begins = None if chosen == "all" else beginning(chosen)
    async with database.transaction() as tx:
        open_ = await store.listed(tx)
        found = [each for each in open_ if begins is None or begins.of(each.conflict_id)]
        if not found:
            raise NotFoundError("NB-3159", value=chosen)
        if begins is not None and len(found) > 1:
            raise RejectedError("NB-7009", value=chosen, count="several", what="conflicts")
        for each in found:
            await store.resolve(tx, each.conflict_id, now)
            await dead.clear_alarm(tx, each.code, each.origin, now)
        await append(
            tx,
            [
                make_record(
                    "conflict.resolved",
                    time=now,
                    reason=each.code,
                    actor=actor,
                    text=reason,
                    detail={"origin": each.origin, "size": each.size},
                )
                for each in found
            ],
        )
    return found
