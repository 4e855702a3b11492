"""Verify a ledger: hash what is stored, rebuild the tree, and name the first difference.

Walks the log in index order up to the head of the moment it began, in short transactions, so the
sealer goes on meanwhile. What it finds is decided by the signed checkpoints: a checkpoint that
verifies proves the records before it, and then a tile that differs is the one that was changed;
where a root does not come out, the tiles name the record. Costs a read of everything and about
four SHA-256 a record, and one Ed25519 a checkpoint.

A record whose bytes are in an archive stands in the tree by the leaf hash that stayed of it. That
proves its place and what it hashed to, and is counted: with the archive beside the store it is
hashed again.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from schemas.checkpoint import Verifier, verify_checkpoint
from schemas.errors import EvidenceError
from schemas.proof import EMPTY_ROOT, leaf_hash, root_of
from schemas.proof import append as grow_frontier
from services.ledger.records import COMMITTED, differing_column, opening_holds, read_record
from services.ledger.store import Store, audit, log
from services.ledger.store.kept import Kept, LiveLog
from services.ledger.tiles import TILE_WIDTH, Edge, Tile, frontier_of, grow, split
from services.ledger.times import Times

RECORDS_A_READ = 2_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was walked through, and the first difference, None if there is none.

    `verified` is the number of records proven by the last checkpoint that fitted; `erased` counts
    records with a commitment whose opening is gone, which is allowed; `archived` counts those whose
    bytes are in archives, and which were therefore not hashed again.
    """

    size: int
    root: bytes
    verified: int
    checkpoints: int
    tiles: int
    openings: int
    erased: int
    archived: int
    unsealed: int
    difference: EvidenceError | None


async def verify(
    ledger: Store | Kept,
    *,
    log_keys: Sequence[Verifier],
    also: Sequence[str] = (),
    times: Times | None = None,
    tree_only: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Verify a whole ledger against its own checkpoints, and against further ones in `also`.

    A store stands for the log that grows in it. With `tree_only` records are hashed and proven, and
    what stands beside them (columns, openings) is not looked at.
    `also` holds signed notes of this ledger that were kept elsewhere: they show a ledger that was
    cut off or rolled back as a whole. `times` holds what records say of time to when others saw
    them. `progress` is called with records done and records in all.
    Raises `UnavailableError` when the store is away; a difference is returned, not raised.
    """
    kept = LiveLog(ledger) if isinstance(ledger, Store) else ledger
    walk = _Walk(kept=kept, log_keys=log_keys, times=times, tree_only=tree_only, progress=progress)
    difference: EvidenceError | None = None
    try:
        await walk.run(also)
    except EvidenceError as error:
        difference = error
    unsealed = await kept.unsealed()
    return Report(
        size=walk.size,
        root=walk.root,
        verified=walk.proven,
        checkpoints=walk.checkpoints,
        tiles=walk.tiles,
        openings=walk.openings,
        erased=walk.erased,
        archived=walk.archived,
        unsealed=unsealed,
        difference=difference,
    )


@dataclass(slots=True, kw_only=True)
class _Walk:
    """One pass over a ledger; `proven` records are under a checkpoint that fitted."""

    kept: Kept
    log_keys: Sequence[Verifier]
    times: Times | None
    tree_only: bool
    progress: Progress | None
    size: int = 0
    root: bytes = EMPTY_ROOT
    origin: str | None = None
    proven: int = 0
    checkpoints: int = 0
    tiles: int = 0
    openings: int = 0
    erased: int = 0
    archived: int = 0
    frontier: list[bytes] = field(default_factory=list)
    edge: Edge = ()
    # Leaf hashes of records that no checkpoint has proven yet, the first of them at `proven`.
    pending: list[bytes] = field(default_factory=list)
    # What was found wrong with a pending record itself. It is told only when the checkpoint has
    # shown that nothing before it differs.
    held: EvidenceError | None = None
    ahead: deque[audit.Entry | audit.Bare] = field(default_factory=deque)

    async def run(self, also: Sequence[str]) -> None:
        """Walk from index 0 to the head. Raises `EvidenceError` at the first difference."""
        head = await self.kept.head()
        self.size = head.size if head is not None else 0
        known = {each.size: each for each in map(self._known, also)}
        async with aclosing(self._checkpoints()) as checkpoints:
            async for checkpoint in checkpoints:
                await self._read_until(checkpoint.size)
                await self._prove(checkpoint)
                kept = known.pop(checkpoint.size, None)
                if kept is not None and kept.root != self.root:
                    raise EvidenceError("NB-3036", size=kept.size, rule="it was signed twice")
        # What no checkpoint covers is read all the same: a difference in it has an index.
        await self._read_until(self.size)
        if self.proven != self.size:
            raise EvidenceError("NB-3038", rule=f"no checkpoint of size {self.size} is there")
        if head is not None:
            self._compare_head(head)
        await self._compare_totals()
        if known:
            size = min(known)
            rule = "it was signed, and this ledger has no checkpoint of that size"
            raise EvidenceError("NB-3036", size=size, rule=rule)

    def _known(self, note: str) -> audit.Sealed:
        checkpoint = verify_checkpoint(note, self.log_keys)
        return audit.Sealed(size=checkpoint.size, root=checkpoint.root, note=note)

    async def _checkpoints(self) -> AsyncGenerator[audit.Sealed]:
        """Yield the stored checkpoints up to the head, smallest first."""
        above = 0
        while above < self.size:
            found = await self.kept.checkpoints(above=above, end=self.size, limit=RECORDS_A_READ)
            if not found:
                return
            for checkpoint in found:
                yield checkpoint
            above = found[-1].size

    async def _read_until(self, end: int) -> None:
        """Read and check records up to index `end - 1`; their leaf hashes wait in `pending`."""
        for index in range(self.proven + len(self.pending), end):
            if not self.ahead:
                await self._read_ahead(index)
            entry = self.ahead.popleft() if self.ahead else None
            if entry is None or entry.index != index:
                raise await self._first_of(EvidenceError("NB-3030", index=index))
            if entry.record is None:
                if entry.leaf is None:
                    raise await self._first_of(EvidenceError("NB-3030", index=index))
                self.pending.append(entry.leaf)
                self.archived += 1
                continue
            self.pending.append(leaf_hash(entry.record))
            if isinstance(entry, audit.Entry):
                try:
                    self._check(entry, entry.record)
                    if self.times is not None:
                        await self.times.check(entry)
                except EvidenceError as error:
                    self.held = self.held or error
            if self.progress is not None and not self.ahead:
                self.progress(index + 1, self.size)

    async def _read_ahead(self, first: int) -> None:
        read = self.kept.records if self.tree_only else self.kept.entries
        self.ahead.extend(await read(first=first, end=self.size, limit=RECORDS_A_READ))

    def _check(self, entry: audit.Entry, record: bytes) -> None:
        """Hold a record's bytes to their form, and what stands beside them to the bytes."""
        said = read_record(record, index=entry.index)
        column = differing_column(
            said,
            action=entry.action,
            notice_id=entry.notice_id,
            message_id=entry.message_id,
            recorded_at=entry.recorded_at,
        )
        if column is not None:
            raise EvidenceError("NB-3033", index=entry.index, column=column)
        if entry.opened is not None:
            self.openings += 1
            if not opening_holds(said, entry.opened):
                raise EvidenceError("NB-3034", index=entry.index)
        elif any(name in said for name in COMMITTED):
            self.erased += 1

    async def _prove(self, stored: audit.Sealed) -> None:
        """Compare the tree so far with a checkpoint, then the tiles that it proves."""
        try:
            checkpoint = verify_checkpoint(stored.note, self.log_keys)
        except EvidenceError as error:
            raise EvidenceError("NB-3036", size=stored.size, rule=error.sentence) from error
        edge, tiles = grow(self.edge, self.proven, self.pending)
        # The edge holds the frontier; below a tile's width, growing the old one hashes less.
        frontier = (
            frontier_of(edge)
            if len(self.pending) > TILE_WIDTH
            else grow_frontier(self.frontier, self.proven, self.pending)
        )
        root = root_of(frontier)
        if checkpoint.size != stored.size:
            raise EvidenceError("NB-3037", size=stored.size, column="size")
        if checkpoint.root != root:
            raise await self._first_of(self._range_of_pending())
        if self.held is not None:
            raise self.held
        if checkpoint.root != stored.root:
            raise EvidenceError("NB-3037", size=stored.size, column="root")
        self.edge, self.frontier, self.root = edge, frontier, root
        self.origin = checkpoint.origin
        self.proven, self.pending = stored.size, []
        self.checkpoints += 1
        await self._compare_tiles(tiles)

    def _range_of_pending(self) -> EvidenceError:
        """Return what is known when a root does not come out: one of the pending records."""
        last = self.proven + len(self.pending) - 1
        if last == self.proven:
            return EvidenceError("NB-3031", index=last)
        return EvidenceError("NB-3032", index=self.proven, last=last)

    async def _first_of(self, found: EvidenceError) -> EvidenceError:
        """Return the first difference among the pending records: `found`, or what is before it.

        Where they fill a tile, the tile names the record.
        """
        end = self.proven + len(self.pending)
        tiles = await self.kept.tiles(
            [(0, n) for n in range(self.proven // TILE_WIDTH, end // TILE_WIDTH + 1)]
        )
        differences = [found] if self.held is None else [found, self.held]
        for index, leaf in enumerate(self.pending, self.proven):
            tile = tiles.get((0, index // TILE_WIDTH))
            if tile is not None and split(tile)[index % TILE_WIDTH] != leaf:
                differences.insert(0, EvidenceError("NB-3031", index=index))
                break
        # A range counts from its end: whatever is known more exactly goes first.
        return min(
            differences, key=lambda each: int(str(each.where.get("last", each.where["index"])))
        )

    async def _compare_tiles(self, tiles: Sequence[Tile]) -> None:
        if not tiles:
            return
        stored = await self.kept.tiles([(tile.level, tile.n) for tile in tiles])
        for tile in tiles:
            found = stored.get((tile.level, tile.n))
            if found != tile.hashes:
                raise EvidenceError(
                    "NB-3035", level=tile.level, n=tile.n, index=_first_difference(tile, found)
                )
        self.tiles += len(tiles)

    def _compare_head(self, head: log.Head) -> None:
        if self.origin is not None and head.origin != self.origin:
            raise EvidenceError("NB-3038", rule="its name is another")
        if head.root != self.root:
            raise EvidenceError("NB-3038", rule="its root is another")
        if head.frontier != self.frontier:
            raise EvidenceError("NB-3038", rule="its frontier is another")

    async def _compare_totals(self) -> None:
        """Look for what stands beyond the head or outside the log."""
        totals, stored_tiles, stray = await self.kept.counted()
        if totals.entries != totals.size or totals.end != totals.size:
            raise EvidenceError("NB-3038", rule="the log holds entries beyond it")
        if totals.newest_checkpoint != totals.size:
            raise EvidenceError("NB-3038", rule="a checkpoint is larger")
        for level, count in stored_tiles.items():
            if count != totals.size >> 8 * (level + 1):
                raise EvidenceError("NB-3038", rule=f"level {level} has another number of tiles")
        if stray is not None:
            raise EvidenceError("NB-3039", record_id=stray)


def _first_difference(tile: Tile, stored: bytes | None) -> int:
    """Return the index of the first record under the first hash that differs."""
    place = 0
    with suppress(StopIteration):
        pairs = zip(split(tile.hashes), split(stored or b""), strict=False)
        place = next(at for at, (ours, theirs) in enumerate(pairs) if ours != theirs)
    return tile.first + place * (tile.end - tile.first) // TILE_WIDTH
