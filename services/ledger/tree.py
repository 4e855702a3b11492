"""The stored tree: its head, and proofs made from tiles and the leaves after them.

A proof reads a handful of tiles and at most 255 records, however large the log is. Proofs are made
for any size up to the head's; that the size was signed is the caller's question.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas.errors import EvidenceError
from schemas.proof import (
    EMPTY_ROOT,
    consistency_ranges,
    inclusion_ranges,
    root_of,
)
from services.ledger.store import Transaction, log
from services.ledger.store.log import Head
from services.ledger.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Edge,
    edge_lengths,
    perfect_root,
    split,
    tile_root,
)

__all__ = ["Head", "consistency", "edge", "head", "inclusion", "inclusions", "root_at", "tile"]


async def head(tx: Transaction) -> Head | None:
    """Return where the tree stands now, or None before the first seal."""
    return await log.head(tx)


async def inclusion(tx: Transaction, index: int, size: int) -> list[bytes]:
    """Return the proof that the record at `index` is in the tree of `size`, leaf's sibling first.

    Raises `EvidenceError` NB-3041 for an index that is not below `size`, NB-3007 for a size beyond
    the head, NB-3006 when what the proof needs is missing from the store.
    """
    (proof,) = await inclusions(tx, [index], size)
    return proof


async def inclusions(
    tx: Transaction, indexes: Sequence[int], size: int, *, former: str | None = None
) -> list[list[bytes]]:
    """Return the proofs of several records under one size; shared tiles are read once.

    `former` is the origin of a log that a restore ended; else it is the log that grows.
    """
    await _check_size(tx, size, former)
    ranges = [inclusion_ranges(index, size) for index in indexes]
    roots = await _roots(tx, {each for proof in ranges for each in proof}, former)
    return [[roots[each] for each in proof] for proof in ranges]


async def consistency(tx: Transaction, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree of `old` records is the beginning of the one of `new`.

    Raises `EvidenceError` NB-3041 when `old` is above `new`, else as `inclusion` does.
    """
    await _check_size(tx, new)
    ranges = consistency_ranges(old, new)
    roots = await _roots(tx, set(ranges))
    return [roots[each] for each in ranges]


async def root_at(tx: Transaction, size: int) -> bytes:
    """Return the root of the tree of `size`. Raises `EvidenceError` NB-3007 beyond the head."""
    await _check_size(tx, size)
    return (await _roots(tx, {(0, size)}))[0, size] if size else EMPTY_ROOT


async def edge(tx: Transaction, size: int) -> Edge:
    """Return what the sealer goes on from: the hashes after the last full tile of each level."""
    nodes: list[list[Node]] = []
    for level, length in enumerate(edge_lengths(size)):
        count = size >> TILE_HEIGHT * level
        nodes.append([(TILE_HEIGHT * level, place) for place in range(count - length, count)])
    hashes = await _hashes(tx, [node for level in nodes for node in level])
    return tuple(tuple(hashes[node] for node in level) for level in nodes)


async def tile(tx: Transaction, level: int, n: int, width: int) -> bytes:
    """Return the first `width` hashes of a tile. Raises `EvidenceError` NB-3006 without them."""
    first = n * TILE_WIDTH
    nodes = [(TILE_HEIGHT * level, place) for place in range(first, first + width)]
    hashes = await _hashes(tx, nodes)
    return b"".join(hashes[node] for node in nodes)


async def _check_size(tx: Transaction, size: int, former: str | None = None) -> None:
    """Refuse a size that was never sealed. Raises `EvidenceError` NB-3007."""
    found = await log.size_of(tx, former)
    if size > found:
        raise EvidenceError("NB-3007", size=size, head=found)


# A node is a perfect subtree: its height, and its place among those of that height.
Node = tuple[int, int]


async def _roots(
    tx: Transaction, ranges: Iterable[tuple[int, int]], former: str | None = None
) -> dict[tuple[int, int], bytes]:
    """Return the root of each range of leaves (first, end) that RFC 6962 makes of a tree."""
    parts = {each: _perfect_parts(*each) for each in ranges}
    hashes = await _hashes(tx, {node for nodes in parts.values() for node in nodes}, former)
    return {each: root_of([hashes[node] for node in nodes]) for each, nodes in parts.items()}


def _perfect_parts(first: int, end: int) -> list[Node]:
    """Return the perfect subtrees that a range is made of, largest first."""
    nodes: list[Node] = []
    while first < end:
        height = (end - first).bit_length() - 1
        nodes.append((height, first >> height))
        first += 1 << height
    return nodes


@dataclass(slots=True)
class _Stored:
    """Hashes of tile level and place, read from tiles, or from the records after the last one."""

    tiles: dict[tuple[int, int], bytes] = field(default_factory=dict)
    leaves: dict[int, bytes] = field(default_factory=dict)

    def find(self, level: int, first: int, count: int) -> list[bytes] | None:
        """Return neighbouring hashes of one tile, or None while they were not read."""
        tile = self.tiles.get((level, first // TILE_WIDTH))
        if tile is not None:
            return split(tile)[first % TILE_WIDTH :][:count]
        if level == 0:
            found = [self.leaves[at] for at in range(first, first + count) if at in self.leaves]
            return found if len(found) == count else None
        roots = [self._root(level - 1, at) for at in range(first, first + count)]
        return [root for root in roots if root] if all(roots) else None

    def _root(self, level: int, n: int) -> bytes | None:
        """Return the root of a full tile, or None while it was not read."""
        tile = self.tiles.get((level, n))
        if tile is not None:
            return tile_root(tile)
        found = self.find(level, n * TILE_WIDTH, TILE_WIDTH)
        return perfect_root(found) if found else None


async def _hashes(
    tx: Transaction, nodes: Iterable[Node], former: str | None = None
) -> dict[Node, bytes]:
    """Return the hash of each node, reading every tile once.

    Raises `EvidenceError` NB-3006 for a node of which something is missing.
    """
    spans = {node: _span(node) for node in nodes}
    stored = _Stored()
    wanted = {(level, first // TILE_WIDTH) for level, first, _ in spans.values()}
    stored.tiles.update(await log.tiles(tx, sorted(wanted), former=former))
    # A tile that is not full yet is made of the full ones below it, and at last of records.
    below = [
        (level - 1, at)
        for level, first, count in spans.values()
        if level and (level, first // TILE_WIDTH) not in stored.tiles
        for at in range(first, first + count)
    ]
    stored.tiles.update(await log.tiles(tx, sorted(set(below)), former=former))
    for n in sorted(
        first // TILE_WIDTH
        for level, first, _ in spans.values()
        if level == 0 and (0, first // TILE_WIDTH) not in stored.tiles
    ):
        if n * TILE_WIDTH not in stored.leaves:
            first, end = n * TILE_WIDTH, (n + 1) * TILE_WIDTH
            stored.leaves.update(await log.leaves(tx, first=first, end=end, former=former))
    hashes: dict[Node, bytes] = {}
    for node, (level, first, count) in spans.items():
        found = stored.find(level, first, count)
        if found is None:
            raise EvidenceError("NB-3006", index=node[1] << node[0], size=(node[1] + 1) << node[0])
        hashes[node] = perfect_root(found)
    return hashes


def _span(node: Node) -> tuple[int, int, int]:
    """Return the tile level, first place and number of hashes that a node is the root over."""
    height, place = node
    level, within = divmod(height, TILE_HEIGHT)
    return level, place << within, 1 << within
