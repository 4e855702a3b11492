"""Tiles: the stored tree grows to the same tiles however it is fed."""

from hashlib import sha256

import pytest

from schemas.proof import range_root
from services.ledger.tiles import TILE_WIDTH, Edge, Tile, edge_lengths, grow, perfect_root, split


def leaves(count: int, *, first: int = 0) -> list[bytes]:
    return [sha256(b"%d" % number).digest() for number in range(first, first + count)]


def fed(*batches: int) -> tuple[Edge, list[Tile]]:
    edge: Edge = ()
    size = 0
    tiles: list[Tile] = []
    for count in batches:
        edge, filled = grow(edge, size, leaves(count, first=size))
        tiles += filled
        size += count
    return edge, tiles


@pytest.mark.parametrize("batches", [(600,), (1,) * 600, (255, 1, 1, 255, 88), (256, 0, 256, 88)])
def test_batches_of_any_size_make_the_same_tiles(batches: tuple[int, ...]) -> None:
    edge, tiles = fed(*batches)

    assert [(tile.level, tile.n) for tile in tiles] == [(0, 0), (0, 1)]
    assert b"".join(tile.hashes for tile in tiles) == b"".join(leaves(512))
    assert edge[0] == tuple(leaves(88, first=512))
    assert edge[1] == tuple(perfect_root(split(tile.hashes)) for tile in tiles)


def test_full_tile_of_tiles_is_kept_one_level_up() -> None:
    edge, tiles = fed(TILE_WIDTH * TILE_WIDTH + 3)

    upper = tiles[-1]
    assert (upper.level, upper.n, upper.first, upper.end) == (1, 0, 0, TILE_WIDTH * TILE_WIDTH)
    assert len(tiles) == TILE_WIDTH + 1
    assert [len(level) for level in edge] == [3, 0, 1]
    assert edge[2] == (range_root(leaves(TILE_WIDTH * TILE_WIDTH)),)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_535, 65_536, 65_537])
def test_edge_has_what_no_full_tile_holds(size: int) -> None:
    edge, tiles = fed(size)

    assert [len(level) for level in edge] == edge_lengths(size)
    assert sum(tile.level == 0 for tile in tiles) == size // TILE_WIDTH
