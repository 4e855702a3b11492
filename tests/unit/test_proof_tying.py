"""Whatever a peer shows of its tree leads to true hashes or to none."""

import random
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from schemas.proof import append, consistency_proof, range_root, verify_consistency
from services.proof.tying import Nodes, UnknownError


def leaves_of(size: int) -> list[bytes]:
    return [sha256(number.to_bytes(4, "big")).digest() for number in range(size)]


@given(st.integers(2, 90), st.integers(0, 2**32))
def test_what_is_put_together_from_batches_and_heads_is_the_true_root_of_its_range(
    size: int, seed: int
) -> None:
    chance, leaves = random.Random(seed), leaves_of(size)
    nodes = Nodes()
    for _ in range(chance.randrange(1, 6)):
        index = chance.randrange(size)
        shown = leaves[index : index + chance.randrange(1, 20)]
        nodes.learn_batch(index, append([], 0, leaves[:index]), shown)
    for _ in range(chance.randrange(3)):
        new = chance.randrange(1, size + 1)
        old = chance.randrange(new)
        proof = consistency_proof(old, new, lambda a, b: range_root(leaves[a:b]))
        nodes.learn_proof(old, new, proof)

    found = 0
    for first in range(size):
        for end in range(first + 1, size + 1):
            try:
                root = nodes.root(first, end)
            except UnknownError:
                continue
            found += 1
            assert root == range_root(leaves[first:end])
    assert found


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 7))
def test_batches_without_a_hole_prove_each_of_their_checkpoints_to_be_part_of_the_last(
    before: int, width: int, count: int
) -> None:
    size = before + width * count
    leaves, nodes = leaves_of(size), Nodes()
    for index in range(before, size, width):
        nodes.learn_batch(index, append([], 0, leaves[:index]), leaves[index : index + width])

    for old in range(before + width, size + 1, width):
        proof = consistency_proof(old, size, nodes.root)
        verify_consistency(
            old=old,
            old_root=range_root(leaves[:old]),
            new=size,
            new_root=range_root(leaves),
            proof=proof,
        )
