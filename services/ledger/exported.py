"""Verify a folder of C2SP tlog-tiles, as `ledger export` writes one, without any store.

From the signature down: the checkpoint is signed by the log, the tiles that are not full have its
root, each full tile has the hash that the level above it says, and each record the hash that its
tile says. So whatever differs is named by its file, and a record by its index: what stands above
was proven before. Reads every file once and keeps one hash in 256.
Source: https://c2sp.org/tlog-tiles
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas.checkpoint import Checkpoint, Verifier, verify_checkpoint
from schemas.errors import EvidenceError, RejectedError
from schemas.proof import HASH_BYTES, leaf_hash, root_of
from services.ledger.export import CHECKPOINT, ENTRIES
from services.ledger.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Edge,
    edge_lengths,
    frontier_of,
    perfect_root,
    split,
    tile_path,
)

Progress = Callable[[int, int], None]
Each = Callable[[int, bytes], None]

_LENGTH_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a folder holds; `entries` is False where it has hashes alone."""

    origin: str
    size: int
    root: bytes
    tiles: int
    entries: bool
    note: str


def verify_exported(
    folder: Path,
    *,
    log_keys: Sequence[Verifier],
    each: Each | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Verify all that a folder's checkpoint covers; files beyond it are not looked at.

    `each` is given every record with its index, once it is proven; `progress` is told how many
    records are done, and of how many. Raises `RejectedError` NB-7006 for a folder without a
    checkpoint, `EvidenceError` NB-3213, which names the file.
    """
    return _Exported(folder, each=each, progress=progress).verify(log_keys)


def records_of(bundle: bytes, file: str) -> list[bytes]:
    """Return the records of an entries tile. Raises `EvidenceError` NB-3213 naming `file`."""
    records = []
    at = 0
    while at < len(bundle):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(bundle[at:start], "big")
        if at > len(bundle) or start > len(bundle):
            raise _differs(file, "a record in it is cut off")
        records.append(bundle[start:at])
    return records


def _differs(file: str, rule: str) -> EvidenceError:
    return EvidenceError("NB-3213", file=file, rule=rule)


@dataclass(slots=True)
class _Exported:
    """A folder on its way through the checks; `above` has the proven hashes of a level."""

    folder: Path
    each: Each | None
    progress: Progress | None
    tiles: int = 0
    above: list[bytes] = field(default_factory=list)

    def verify(self, log_keys: Sequence[Verifier]) -> Verified:
        note = self._note()
        try:
            point = verify_checkpoint(note, log_keys)
        except EvidenceError as error:
            raise _differs(CHECKPOINT, error.sentence) from error
        edge = self._edge(point.size)
        if point.size and root_of(frontier_of(edge), point.size) != point.root:
            raise self._of_edge(point, edge)
        entries = (self.folder / "tile" / ENTRIES).exists()
        for level in reversed(range(len(edge))):
            self._level(level, edge[level], point.size, entries=entries)
        return Verified(
            origin=point.origin,
            size=point.size,
            root=point.root,
            tiles=self.tiles,
            entries=entries,
            note=note,
        )

    def _note(self) -> str:
        try:
            return (self.folder / CHECKPOINT).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise _differs(CHECKPOINT, "it is not text") from None
        except OSError as error:
            what = self.folder / CHECKPOINT
            raise RejectedError("NB-7006", what=what, cause=error.strerror or "no file") from error

    def _read(self, path: str) -> bytes:
        try:
            return (self.folder / path).read_bytes()
        except OSError as error:
            raise _differs(path, error.strerror or type(error).__name__) from error

    def _hashes(self, level: int, n: int, width: int) -> list[bytes]:
        """Return the hashes of a tile, which has to be as wide as its name says."""
        path = tile_path(level, n, width)
        content = self._read(path)
        if len(content) != width * HASH_BYTES:
            raise _differs(path, f"it has {len(content)} bytes and not {width * HASH_BYTES}")
        self.tiles += 1
        return split(content)

    def _edge(self, size: int) -> Edge:
        """Return what the tiles hold that are not full, from level 0 up."""
        return tuple(
            tuple(self._hashes(level, size >> TILE_HEIGHT * (level + 1), width) if width else ())
            for level, width in enumerate(edge_lengths(size))
        )

    def _of_edge(self, point: Checkpoint, edge: Edge) -> EvidenceError:
        """Return which of the tiles that are not full differs, or that none of them does."""
        for level, hashes in enumerate(edge):
            if not hashes:
                continue
            first = (point.size >> TILE_HEIGHT * level) - len(hashes)
            path = tile_path(level, first // TILE_WIDTH, len(hashes))
            if level == 0:
                below = self._leaves(first // TILE_WIDTH, len(hashes))
            else:
                below = [
                    perfect_root(self._hashes(level - 1, n, TILE_WIDTH))
                    for n in range(first, first + len(hashes))
                ]
            if below and below != list(hashes):
                return _differs(path, "it has other hashes than what is below it")
        return _differs(CHECKPOINT, "the tiles have another root")

    def _leaves(self, n: int, width: int) -> list[bytes]:
        """Return the hashes of the records of a tile, nothing where they are not there or fewer."""
        path = tile_path(ENTRIES, n, width)
        if not (self.folder / path).exists():
            return []
        leaves = [leaf_hash(record) for record in records_of(self._read(path), path)]
        return leaves if len(leaves) == width else []

    def _level(self, level: int, edge: Sequence[bytes], size: int, *, entries: bool) -> None:
        """Prove the tiles of a level by the hashes `above`, and records by those of level 0."""
        proven: list[bytes] = []
        for n, expected in enumerate(self.above):
            hashes = self._hashes(level, n, TILE_WIDTH)
            if perfect_root(hashes) != expected:
                raise _differs(tile_path(level, n), "the level above it has another hash of it")
            if level:
                proven += hashes
            else:
                self._records(n, hashes, size, entries=entries)
        if level:
            self.above = [*proven, *edge]
        elif edge:
            self._records(size // TILE_WIDTH, edge, size, entries=entries)

    def _records(self, n: int, hashes: Sequence[bytes], size: int, *, entries: bool) -> None:
        """Hold the records of one tile to its hashes, which are proven."""
        first = n * TILE_WIDTH
        if entries:
            path = tile_path(ENTRIES, n, len(hashes))
            records = records_of(self._read(path), path)
            for place, (record, expected) in enumerate(zip(records, hashes, strict=False)):
                if leaf_hash(record) != expected:
                    raise _differs(path, f"record {first + place} was changed")
                if self.each is not None:
                    self.each(first + place, record)
            if len(records) != len(hashes):
                raise _differs(path, f"it has {len(records)} records and not {len(hashes)}")
        if self.progress is not None:
            self.progress(first + len(hashes), size)
