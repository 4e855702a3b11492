"""Tiles: the tree as it is stored, 256 hashes at a time (C2SP tlog-tiles). Pure arithmetic.

Level 0 holds leaf hashes; the hash at place m of a higher level is the root of the full tile m
below it. Only full tiles are stored. What does not fill one yet is the *edge*: for each level the
hashes after its last full tile. Source: https://c2sp.org/tlog-tiles
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from schemas.proof import HASH_BYTES, node_hash

TILE_WIDTH = 256
TILE_HEIGHT = 8

Edge: TypeAlias = tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """A full tile: 256 hashes one after the other."""

    level: int
    n: int
    hashes: bytes

    @property
    def first(self) -> int:
        """The index of the first record it covers."""
        return self.n << TILE_HEIGHT * (self.level + 1)

    @property
    def end(self) -> int:
        """The index after the last record it covers: the size under which it became full."""
        return (self.n + 1) << TILE_HEIGHT * (self.level + 1)


def grow(edge: Edge, size: int, leaves: Sequence[bytes]) -> tuple[Edge, list[Tile]]:
    """Return the edge after `leaves` were added to a tree of `size`, and the tiles that filled."""
    grown: list[tuple[bytes, ...]] = []
    tiles: list[Tile] = []
    arriving = list(leaves)
    level = 0
    while arriving or level < len(edge):
        hashes = [*(edge[level] if level < len(edge) else ()), *arriving]
        n = size >> TILE_HEIGHT * (level + 1)
        arriving = []
        while len(hashes) >= TILE_WIDTH:
            full, hashes = hashes[:TILE_WIDTH], hashes[TILE_WIDTH:]
            tiles.append(Tile(level, n + len(arriving), b"".join(full)))
            arriving.append(perfect_root(full))
        grown.append(tuple(hashes))
        level += 1
    return tuple(grown), tiles


def frontier_of(edge: Edge) -> list[bytes]:
    """Return the frontier of the tree that this edge belongs to: perfect subtrees, largest first.

    The edge counts in powers of 256 and the frontier in powers of 2; the hashes are the same ones.
    """
    frontier: list[bytes] = []
    for hashes in reversed(edge):
        first = 0
        for height in reversed(range(TILE_HEIGHT)):
            if len(hashes) & 1 << height:
                frontier.append(perfect_root(hashes[first : first + (1 << height)]))
                first += 1 << height
    return frontier


def tile_path(kind: int | str, n: int, width: int = TILE_WIDTH) -> str:
    """Return where a tile stands below the log's address: `tile/0/x001/067`, `tile/1/000.p/12`.

    `kind` is a level or `entries`; a tile of fewer than 256 is a partial one.
    """
    text = f"{n % 1000:03}"
    while n := n // 1000:
        text = f"x{n % 1000:03}/{text}"
    return f"tile/{kind}/{text}" + ("" if width == TILE_WIDTH else f".p/{width}")


def edge_lengths(size: int) -> list[int]:
    """Return how many hashes the edge of a tree of `size` has on each level, from 0 up."""
    lengths = []
    while size:
        lengths.append(size % TILE_WIDTH)
        size //= TILE_WIDTH
    return lengths


def split(hashes: bytes) -> list[bytes]:
    """Return the single hashes of a tile."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over a power of two of neighbouring hashes; other numbers are a bug."""
    nodes = list(hashes)
    while len(nodes) > 1:
        nodes = [
            node_hash(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=True)
        ]
    return nodes[0]


# A log that grows is held to its anchor and to its last cosignature every second, and nearly all of
# its tiles are those of the second before: 255 hashes each. Found by content, so that a tile of
# another store under the same number is another one. 4 MB at most.
@lru_cache(maxsize=512)
def tile_root(hashes: bytes) -> bytes:
    """Return the root over a full tile."""
    return perfect_root(split(hashes))
