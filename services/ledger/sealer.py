"""Seal committed records: number them, grow the tree, sign its root, hand out the receipts owed.

One sealer works for each agency (an advisory lock, and the head row locked); a second one stands
by. Records get gapless indexes in the order of record ids, as far as they are visible: a serial
column is no log position, because an earlier id may commit later. Everything of a batch is one
transaction, and a signature leaves it only after its commit. A checkpoint signed for a transaction
that was rolled back would be a fork of our own making, so nothing is carried from one batch to the
next but hashes that the head's size and root vouch for: the head is read again before anything is
signed, above all when a commit's outcome is unknown.

After the commit the checkpoint is anchored outside the database, and only then marked as one that
may leave: receipts, heads and proofs under it wait for that mark. A head that is behind what was
anchored, or is another history, stops the sealer.

Costs one commit and one synced file a batch; Ed25519 and about four SHA-256 a record.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog

from schemas.checkpoint import Checkpoint, Signer, Verifier, sign_checkpoint
from schemas.errors import ConflictError, EvidenceError, UnavailableError
from schemas.proof import EMPTY_ROOT, leaf_hash, root_of
from schemas.proof import append as grow_frontier
from services.ledger import anchor, tree
from services.ledger.anchor import ERRORS, Anchor, State
from services.ledger.store import (
    UNSEALED_CHANNEL,
    Session,
    Store,
    Transaction,
    anchored,
    log,
    together,
)
from services.ledger.store.connection import TRANSACTION_SECONDS
from services.ledger.store.log import Head, Waiting
from services.ledger.tiles import Edge, grow
from services.settings import SealerSettings
from services.telemetry.metrics import LEDGER_SIZE, SEAL_SECONDS

logger = structlog.get_logger()

# What one answer may hold: the message that carries it is at most 256 KiB after base64 and framing.
ANSWER_RECORDS_MAX = 500
ANSWER_BYTES_MAX = 170 * 1024
LEAF_BYTES = 50

SEALER_LOCK = 0x6E62_7365_616C
STANDBY_SECONDS = 1.0
BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 5.0
# How long the end of a process may take for the last seal.
LAST_SECONDS = 5.0
# Unhealthy after this long without a look at the store.
SILENT_SECONDS_MAX = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRecord:
    """A record in its place in the audit log; `owes` names the agency that waits for a receipt."""

    record_index: int
    record_id: int
    record: bytes
    message_id: UUID | None
    owes: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A sealed batch: records first_index to size - 1, the frontier before them, the checkpoint."""

    first_index: int
    size: int
    frontier_before: list[bytes]
    records: list[SealedRecord]
    checkpoint: str
    root: bytes


Answer = Callable[[Transaction, Sealed], Awaitable[None]]


class Sealer:
    """Seals one agency's ledger. `answer` writes what a batch owes into the same transaction.

    While the log key is renewed, the one before it signs each checkpoint `also`.
    """

    def __init__(
        self,
        store: Store,
        *,
        log_key: Signer,
        settings: SealerSettings,
        answer: Answer,
        anchor: Anchor,
        also: Signer | None = None,
    ) -> None:
        self._store = store
        self._log_key, self._also = log_key, also
        self._settings = settings
        self._answer = answer
        self._anchor = anchor.under(*_public(log_key, also))
        # The newest checkpoint that is anchored; None until this session has compared.
        self._anchored: tuple[int, bytes] | None = None
        self._edge: tuple[int, bytes, Edge] | None = None
        self._looked_at: float | None = None
        self.last_sealed_at: datetime | None = None
        # Set by whoever committed in this process and cannot wait for the notification.
        self.wake = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Whether the sealer is running and the store answers; a sealer standing by is healthy."""
        silent_max = SILENT_SECONDS_MAX + self._settings.interval_seconds
        return self._looked_at is not None and time.monotonic() - self._looked_at < silent_max

    def sign_with(self, log_key: Signer, also: Signer | None = None) -> None:
        """Sign with these keys of the same log from the next batch on."""
        self._log_key, self._also = log_key, also
        self._anchor = self._anchor.under(*_public(log_key, also))

    async def run(self, stop: asyncio.Event) -> None:
        """Seal until `stop`: at once when an answer is owed, else every `interval_seconds`.

        What was committed before `stop` is sealed before this returns, unless that takes longer
        than `LAST_SECONDS`; it is then the next sealer's. Waits out an outage of the store. Raises
        `EvidenceError` when the stored head cannot be ours or contradicts the tree: then nothing
        more is signed.
        """
        stopping = asyncio.create_task(self._wake_at(stop))
        backoff = BACKOFF_SECONDS_MIN
        try:
            while not stop.is_set():
                try:
                    async with self._store.session() as session:
                        if await self._stand_by(session, stop):
                            await self._moor(session)
                            await session.listen([UNSEALED_CHANNEL])
                            while not stop.is_set():
                                _, more = await self._seal(session)
                                backoff = BACKOFF_SECONDS_MIN
                                if not more:
                                    await session.heard(
                                        self.wake, seconds=self._settings.interval_seconds
                                    )
                            await self._seal_the_rest(session)
                except UnavailableError as error:
                    logger.warning("sealer waits for the store", code=error.code)
                    await _pause(stop, backoff)
                    backoff = min(backoff * 2, BACKOFF_SECONDS_MAX)
        finally:
            stopping.cancel()
            self._looked_at = None

    async def seal_once(self) -> Sealed | None:
        """Seal one batch, if there is any; for tests and tools.

        Raises `ConflictError` NB-3004 while another sealer is at work.
        """
        async with self._store.holding(SEALER_LOCK) as (ours, session):
            if not ours:
                raise ConflictError("NB-3004")
            await self._moor(session)
            sealed, _ = await self._seal(session)
            return sealed

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.wake.set()

    async def _stand_by(self, session: Session, stop: asyncio.Event) -> bool:
        """Return True once this session is the one that seals, False when told to stop."""
        while not stop.is_set():
            if await session.try_lock(SEALER_LOCK):
                return True
            self._looked_at = time.monotonic()
            await session.heard(self.wake, seconds=STANDBY_SECONDS)
        return False

    async def _seal_the_rest(self, session: Session) -> None:
        """Seal what is committed now, so that a ledger at rest is a sealed one."""
        deadline = time.monotonic() + LAST_SECONDS
        more = True
        while more and (left := deadline - time.monotonic()) > 0:
            _, more = await self._seal(session, seconds=left)

    async def _seal(
        self, session: Session, *, seconds: float = TRANSACTION_SECONDS
    ) -> tuple[Sealed | None, bool]:
        """Seal one batch in one transaction; also tell whether more was waiting than fitted."""
        started = time.perf_counter()
        sealed, grown = None, None
        with log.gapless() as numbering:
            async with session.pipelined(seconds=seconds) as tx:
                found, waiting = await together(
                    log.head(tx, lock=True), log.waiting(tx, after=0, limit=ANSWER_RECORDS_MAX)
                )
                head = await self._checked(tx, found)
                numbering.size = head.size
                batch, more = await self._next_batch(tx, waiting)
                if batch:
                    edge = await self._edge_of(tx, head)
                    # Out of date from here on, unless the commit below is known to have happened.
                    self._edge = None
                    sealed, grown = await self._write(tx, head, edge, batch)
        if sealed is not None and grown is not None:
            state = Checkpoint(self._log_key.name, sealed.size, sealed.root)
            await self._keep_outside(session, state, sealed.checkpoint)
            self._edge = (sealed.size, sealed.root, grown)
            self.last_sealed_at = datetime.now(UTC)
            LEDGER_SIZE.set(sealed.size)
            SEAL_SECONDS.observe(time.perf_counter() - started)
            logger.debug("records sealed", count=len(sealed.records), size=sealed.size)
        self._looked_at = time.monotonic()
        return sealed, more

    async def _checked(self, tx: Transaction, head: Head | None) -> Head:
        """Return the head if it can be ours; it is made before the first seal."""
        if head is None:
            head = await log.begin(tx, origin=self._log_key.name, root=EMPTY_ROOT)
        if head.origin != self._log_key.name:
            raise EvidenceError("NB-3003", found=head.origin, origin=self._log_key.name)
        if root_of(head.frontier, head.size) != head.root:
            raise EvidenceError("NB-3005", size=head.size)
        self._hold(head)
        return head

    def _hold(self, head: Head) -> None:
        """Refuse to go on from a head that is not where the last one was anchored."""
        if self._anchored is None:
            return
        size, root = self._anchored
        if head.size < size:
            state = State.BEHIND
        elif head.size == size and head.root != root:
            state = State.FORKED
        else:
            return
        raise EvidenceError(ERRORS[state], path=self._anchor.path, size=head.size, anchor=size)

    async def _moor(self, session: Session) -> None:
        """Hold the store to the anchor, and anchor what a crash left behind.

        Raises `EvidenceError` NB-3150 to NB-3153 for a store that does not continue its anchor.
        """
        self._anchored = None
        async with session.glance() as tx:
            found = await anchor.look(tx, self._anchor)
        if (error := found.error()) is not None:
            raise error
        if found.head is not None and found.newest is not None:
            await self._keep_outside(session, found.head, found.newest)

    async def _keep_outside(self, session: Session, sealed: Checkpoint, note: str) -> None:
        """Anchor a committed checkpoint, then let go what rests on it."""
        await asyncio.to_thread(self._anchor.write, note)
        self._anchored = (sealed.size, sealed.root)
        async with session.glance() as tx:
            await anchored.mark(tx, origin=sealed.origin, size=sealed.size, now=datetime.now(UTC))

    async def _next_batch(
        self, tx: Transaction, waiting: list[Waiting]
    ) -> tuple[list[Waiting], bool]:
        """Return what to seal next, given the first that wait, and whether more is waiting.

        Without a debt a batch may be large. With one it must fit into the one message that answers
        it: records owed go out in full, all others as leaf hashes.
        """
        more = len(waiting) == ANSWER_RECORDS_MAX
        if not any(each.owes for each in waiting):
            room = self._settings.batch_max - len(waiting)
            if not more or room <= 0:
                return waiting[: self._settings.batch_max], more or room < 0
            further = await log.waiting(tx, after=waiting[-1].record_id, limit=room)
            owed = next((at for at, each in enumerate(further) if each.owes), None)
            return waiting + further[:owed], owed is not None or len(further) == room
        answer_bytes = 0
        for at, each in enumerate(waiting):
            answer_bytes += len(each.record) if each.owes else LEAF_BYTES
            if answer_bytes > ANSWER_BYTES_MAX:
                return waiting[:at], True
        return waiting, more

    async def _edge_of(self, tx: Transaction, head: Head) -> Edge:
        """Return the hashes after the last full tiles, from the last seal or from the store."""
        if self._edge is not None and self._edge[:2] == (head.size, head.root):
            return self._edge[2]
        return await tree.edge(tx, head.size)

    async def _write(
        self, tx: Transaction, head: Head, edge: Edge, batch: Sequence[Waiting]
    ) -> tuple[Sealed, Edge]:
        """Write everything that a batch changes; the signature comes last."""
        leaves = [leaf_hash(each.record) for each in batch]
        frontier = grow_frontier(head.frontier, head.size, leaves)
        size = head.size + len(batch)
        root = root_of(frontier, size)
        grown, tiles = grow(edge, head.size, leaves)
        await log.add_tiles(tx, [(tile.level, tile.n, tile.hashes) for tile in tiles])
        note = sign_checkpoint(size, root, self._log_key, self._also)
        await log.extend(
            tx,
            before=head.size,
            records=[each.record_id for each in batch],
            frontier=frontier,
            root=root,
            note=note,
            sealed_at=datetime.now(UTC),
        )
        sealed = Sealed(
            first_index=head.size,
            size=size,
            frontier_before=head.frontier,
            records=[
                SealedRecord(
                    record_index=index,
                    record_id=each.record_id,
                    record=each.record,
                    message_id=each.message_id,
                    owes=each.owes,
                )
                for index, each in enumerate(batch, head.size)
            ],
            checkpoint=note,
            root=root,
        )
        if any(each.owes for each in batch):
            await self._answer(tx, sealed)
        return sealed, grown


def _public(*signers: Signer | None) -> list[Verifier]:
    return [each.verifier for each in signers if each is not None]


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Return after `seconds`, or at once when told to stop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
