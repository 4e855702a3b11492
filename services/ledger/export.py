"""Write the log as files that anybody's tools can read and check: C2SP tlog-tiles.

A full tile never changes, so a folder only grows: a second export adds what is new, and one that
was interrupted goes on. Every record is hashed again on the way, and the checkpoint is written last
and only if its root comes out: no folder ever shows more than it proves. Entries are the records
themselves; they are for the owner and for inspectors, hash tiles and checkpoints for everyone.
Source: https://c2sp.org/tlog-tiles
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from schemas.checkpoint import parse_checkpoint
from schemas.errors import EvidenceError, NotFoundError, RejectedError
from schemas.proof import leaf_hash, root_of
from services.ledger import tree
from services.ledger.records import make_record
from services.ledger.store import Store, append, log
from services.ledger.tiles import (
    TILE_WIDTH,
    Edge,
    Tile,
    frontier_of,
    grow,
    tile_path,
)

CHECKPOINT = "checkpoint"
ENTRIES = "entries"

# Records read, hashed and written in one go.
_TOGETHER = 16 * TILE_WIDTH

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a folder holds now, and how many records were new in it."""

    size: int
    root: bytes
    added: int
    note: str


async def export(
    store: Store,
    folder: Path,
    *,
    entries: bool,
    actor: str,
    under: tuple[int, str] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Bring `folder` up to the newest checkpoint; `entries` also writes the records themselves.

    `under` is size and note of another checkpoint of ours to end at, with what stands below it.
    That it was done, and by whom, is a record like any other. `progress` is told how many records
    are done, and of how many. Raises `NotFoundError` NB-7018 before the first seal, NB-3070 where
    entries are new and in an archive, `RejectedError` NB-3092 for a folder that cannot be written,
    `EvidenceError` NB-3090 for a folder of another log, NB-3091 for one that knows more than this
    ledger, NB-3030 or NB-3036 when the ledger does not prove its own checkpoint.
    """
    async with store.transaction() as tx:
        newest = await log.newest_checkpoint(tx)
    if newest is None:
        raise NotFoundError("NB-7018")
    size, note = under or newest
    root = parse_checkpoint(note).checkpoint.root
    files = _Folder(folder, entries=entries)
    await _same_log(store, files, newest[0])
    if files.size() > size:
        cause = f"it goes on beyond the {size} records that are to be exported"
        raise RejectedError("NB-3092", folder=folder, cause=cause)
    first = min(files.full_tiles(), size // TILE_WIDTH) * TILE_WIDTH
    async with store.transaction() as tx:
        edge = await tree.edge(tx, first)
    done, last = first, list[bytes]()
    while done < size:
        end = min(done + _TOGETHER, size)
        async with store.transaction() as tx:
            read = log.records if entries else log.leaves
            rows = await read(tx, first=done, end=end)
        if len(rows) != end - done:
            there = {index for index, _ in rows}
            missing = next(index for index in range(done, end) if index not in there)
            raise EvidenceError("NB-3030", index=missing)
        found = [content for _, content in rows]
        leaves = [leaf_hash(record) for record in found] if entries else found
        edge, tiles = grow(edge, done, leaves)
        records = found if entries else []
        await asyncio.to_thread(files.add, tiles, records, done)
        last = records[len(records) - size % TILE_WIDTH :] if end == size else []
        done = end
        if progress is not None:
            progress(done, size)
    if root_of(frontier_of(edge), size) != root:
        raise EvidenceError("NB-3036", size=size, rule="the records have another root")
    await asyncio.to_thread(files.finish, edge, last, size, note)
    detail = {"size": size, "entries": int(entries)}
    async with store.transaction() as tx:
        await append(
            tx, [make_record("ledger.exported", time=datetime.now(UTC), actor=actor, detail=detail)]
        )
    return Exported(size=size, root=root, added=size - first, note=note)


async def _same_log(store: Store, files: "_Folder", size: int) -> None:
    """Raise unless the folder's checkpoint and last tile are the beginning of this log."""
    note = files.read(CHECKPOINT)
    if note is not None:
        known = parse_checkpoint(note.decode("utf-8", "replace")).checkpoint
        if known.size > size:
            raise EvidenceError("NB-3091", folder=files.folder, known=known.size, size=size)
        async with store.transaction() as tx:
            if await tree.root_at(tx, known.size) != known.root:
                raise EvidenceError("NB-3090", folder=files.folder)
    full = files.full_tiles()
    if full == 0:
        return
    if full * TILE_WIDTH > size:
        raise EvidenceError("NB-3091", folder=files.folder, known=full * TILE_WIDTH, size=size)
    async with store.transaction() as tx:
        stored = await log.tiles(tx, [(0, full - 1)])
    if files.read(tile_path(0, full - 1)) != stored.get((0, full - 1)):
        raise EvidenceError("NB-3090", folder=files.folder)


def entry_bundle(records: Sequence[bytes]) -> bytes:
    """Return records as an entries tile has them: each after its length in two bytes."""
    return b"".join(len(record).to_bytes(2, "big") + record for record in records)


@dataclass(frozen=True, slots=True)
class _Folder:
    """The files of an export."""

    folder: Path
    entries: bool

    def size(self) -> int:
        """Return how many records the folder's checkpoint covers, 0 without one."""
        note = self.read(CHECKPOINT)
        text = "" if note is None else note.decode("utf-8", "replace")
        return parse_checkpoint(text).checkpoint.size if text else 0

    def full_tiles(self) -> int:
        """Return how many full tiles of level 0 are there, with their entries where asked for.

        They are written in order, so the first that is missing is found by halving.
        """
        above = 1
        while self._has(above - 1):
            above *= 2
        least, most = above // 2, above - 1
        while least < most:
            middle = (least + most + 1) // 2
            if self._has(middle - 1):
                least = middle
            else:
                most = middle - 1
        return least

    def _has(self, n: int) -> bool:
        return (self.folder / tile_path(0, n)).exists() and (
            not self.entries or (self.folder / tile_path(ENTRIES, n)).exists()
        )

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, None if it is not there. Raises `RejectedError` NB-3092."""
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(error) from None

    def add(self, tiles: Sequence[Tile], records: Sequence[bytes], first: int) -> None:
        """Write full tiles and the entries of those of level 0; level 0 comes last.

        A tile of level 0 then says by being there that all that rests on it is there too.
        """
        for tile in sorted(tiles, key=lambda tile: (-tile.level, tile.n)):
            if tile.level == 0 and self.entries:
                at = tile.first - first
                bundle = entry_bundle(records[at : at + TILE_WIDTH])
                self._write(tile_path(ENTRIES, tile.n), bundle)
            self._write(tile_path(tile.level, tile.n), tile.hashes)

    def finish(self, edge: Edge, records: Sequence[bytes], size: int, note: str) -> None:
        """Write what fills no tile yet, then the checkpoint, then drop what is replaced."""
        partial: list[tuple[int | str, int, bytes]] = []
        for level, hashes in enumerate(edge):
            if hashes:
                n = size >> 8 * (level + 1)
                partial.append((level, n, b"".join(hashes)))
                self._write(tile_path(level, n, len(hashes)), b"".join(hashes))
        if self.entries and records:
            n = size // TILE_WIDTH
            self._write(tile_path(ENTRIES, n, len(records)), entry_bundle(records))
        self._write(CHECKPOINT, note.encode("utf-8"))
        for stale in sorted((self.folder / "tile").rglob("*.p")):
            if stale.with_suffix("").exists():
                shutil.rmtree(stale)

    def _write(self, path: str, content: bytes) -> None:
        """Write a file so that it is whole or not there, also after a power cut."""
        file = self.folder / path
        draft = file.with_name(file.name + ".new")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as writing:
                writing.write(content)
                writing.flush()
                os.fsync(writing.fileno())
            draft.replace(file)
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> RejectedError:
        return RejectedError(
            "NB-3092", folder=self.folder, cause=error.strerror or type(error).__name__
        )
