"""The tree against the published vectors of Certificate Transparency and a plain definition."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import EvidenceError
from schemas.proof import (
    EMPTY_ROOT,
    SIZE_MAX,
    TlogProof,
    append,
    batch_proofs,
    consistency_proof,
    consistency_ranges,
    inclusion_proof,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    parse_tlog_proof,
    root_of,
    root_of_inclusion,
    tlog_proof,
    verify_consistency,
    verify_inclusion,
)

# The inputs and roots that implementations of RFC 6962 are commonly tested with.
KNOWN_RECORDS = [
    bytes.fromhex(text)
    for text in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
        "606162636465666768696a6b6c6d6e6f",
    )
]
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
KNOWN_INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
KNOWN_CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
LEAVES = [leaf_hash(record) for record in KNOWN_RECORDS]
MANY = [leaf_hash(number.to_bytes(2, "big")) for number in range(300)]

SIZES = st.integers(0, len(MANY))


def plain_root(leaves: Sequence[bytes]) -> bytes:
    """Hash a tree exactly as RFC 6962, section 2.1 defines it; slow, and nothing of ours."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return node_hash(plain_root(leaves[:middle]), plain_root(leaves[middle:]))


def plain_range(first: int, end: int) -> bytes:
    return plain_root(MANY[first:end])


def hexes(hashes: Sequence[bytes]) -> list[str]:
    return [node.hex() for node in hashes]


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size: int) -> None:
    frontier = append([], 0, LEAVES[:size])

    assert root_of(frontier, size).hex() == plain_root(LEAVES[:size]).hex() == KNOWN_ROOTS[size]


@pytest.mark.parametrize(("index", "size"), KNOWN_INCLUSION)
def test_known_inclusion_proofs(index: int, size: int) -> None:
    proof = inclusion_proof(index, size, lambda first, end: plain_root(LEAVES[first:end]))

    assert hexes(proof) == KNOWN_INCLUSION[index, size]
    verify_inclusion(
        LEAVES[index],
        index=index,
        size=size,
        proof=proof,
        root=bytes.fromhex(KNOWN_ROOTS[size]),
    )


@pytest.mark.parametrize(("old", "new"), KNOWN_CONSISTENCY)
def test_known_consistency_proofs(old: int, new: int) -> None:
    proof = consistency_proof(old, new, lambda first, end: plain_root(LEAVES[first:end]))

    assert hexes(proof) == KNOWN_CONSISTENCY[old, new]
    verify_consistency(
        old=old,
        old_root=bytes.fromhex(KNOWN_ROOTS[old]),
        new=new,
        new_root=bytes.fromhex(KNOWN_ROOTS[new]),
        proof=proof,
    )


@given(cuts=st.lists(SIZES, max_size=6))
@settings(deadline=None)
def test_appending_in_any_steps_is_the_same_as_building_at_once(cuts: list[int]) -> None:
    frontier: list[bytes] = []
    size = 0
    for cut in sorted(cuts):
        frontier = append(frontier, size, MANY[size:cut])
        size = cut

        assert frontier == append([], 0, MANY[:size])
        assert root_of(frontier, size) == plain_root(MANY[:size])


@given(before=SIZES, count=st.integers(0, 80))
@settings(deadline=None)
def test_the_proofs_of_a_batch_need_the_frontier_before_it_alone(before: int, count: int) -> None:
    batch = MANY[before : before + count]
    size = before + len(batch)

    proofs = batch_proofs(append([], 0, MANY[:before]), before, batch)

    assert len(proofs) == len(batch)
    root = plain_root(MANY[:size])
    for index, (leaf, proof) in enumerate(zip(batch, proofs, strict=True), before):
        verify_inclusion(leaf, index=index, size=size, proof=proof, root=root)
    if batch:
        assert list(proofs[-1]) == inclusion_proof(size - 1, size, plain_range)


@given(sizes=st.tuples(SIZES, SIZES))
@settings(deadline=None)
def test_any_two_sizes_are_consistent(sizes: tuple[int, int]) -> None:
    old, new = sorted(sizes)

    verify_consistency(
        old=old,
        old_root=plain_root(MANY[:old]),
        new=new,
        new_root=plain_root(MANY[:new]),
        proof=consistency_proof(old, new, plain_range),
    )


@given(st.data())
@settings(deadline=None)
def test_a_rewritten_history_is_found(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 64))
    old = data.draw(st.integers(1, new))
    changed = data.draw(st.integers(0, old - 1))
    other = [*MANY[:changed], leaf_hash(b"rewritten"), *MANY[changed + 1 : new]]

    with pytest.raises(EvidenceError, match="NB-3042"):
        verify_consistency(
            old=old,
            old_root=plain_root(MANY[:old]),
            new=new,
            new_root=plain_root(other),
            proof=consistency_proof(old, new, lambda first, end: plain_root(other[first:end])),
        )


@given(st.data())
@settings(deadline=None)
def test_any_damage_to_an_inclusion_proof_is_found(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 64))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, plain_range)
    at = data.draw(st.integers(0, len(proof) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                [*proof[:at], leaf_hash(b"no"), *proof[at + 1 :]],
                [*proof[:at], *proof[at + 1 :]],
                [*proof, proof[at]],
                [*proof[:at], proof[at][:-1], *proof[at + 1 :]],
                [*proof[:at], b"", *proof[at + 1 :]],
            ]
        )
    )

    with pytest.raises(EvidenceError, match=r"NB-304[01]"):
        verify_inclusion(
            MANY[index], index=index, size=size, proof=damaged, root=plain_root(MANY[:size])
        )


@pytest.mark.parametrize(
    ("index", "size"), [(0, 0), (-1, 4), (4, 4), (5, 4), (0, -1), (0, SIZE_MAX + 1)]
)
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(EvidenceError, match="NB-3041"):
        verify_inclusion(MANY[0], index=index, size=size, proof=[], root=MANY[0])


def test_the_proof_of_another_place_or_record_is_refused() -> None:
    root = plain_root(MANY[:8])
    proof = inclusion_proof(3, 8, plain_range)

    for leaf, index in ((MANY[3], 2), (MANY[2], 3), (leaf_hash(b"no"), 3)):
        with pytest.raises(EvidenceError, match="NB-3041"):
            verify_inclusion(leaf, index=index, size=8, proof=proof, root=root)


@pytest.mark.parametrize(
    ("old", "new", "proof"),
    [(4, 3, []), (-1, 3, []), (3, SIZE_MAX + 1, []), (3, 8, []), (3, 8, [b"x"] * 4), (0, 3, [b""])],
)
def test_a_consistency_proof_of_another_shape_is_refused(
    old: int, new: int, proof: list[bytes]
) -> None:
    with pytest.raises(EvidenceError, match="NB-304"):
        verify_consistency(old=old, old_root=MANY[0], new=new, new_root=MANY[1], proof=proof)


def test_two_roots_for_one_size_are_a_fork() -> None:
    with pytest.raises(EvidenceError, match="two roots"):
        verify_consistency(old=7, old_root=MANY[0], new=7, new_root=MANY[1], proof=[])
    with pytest.raises(EvidenceError, match="empty tree"):
        verify_consistency(old=0, old_root=MANY[0], new=7, new_root=MANY[1], proof=[])


@pytest.mark.parametrize(
    ("frontier", "size"),
    [([], 1), ([MANY[0]], 0), ([MANY[0]], 3), ([MANY[0][:31]], 1), ([], -1)],
)
def test_a_frontier_of_another_size_is_refused(frontier: list[bytes], size: int) -> None:
    for use in (
        lambda: append(frontier, size, [MANY[0]]),
        lambda: batch_proofs(frontier, size, [MANY[0]]),
        lambda: root_of(frontier, size),
    ):
        with pytest.raises(EvidenceError, match="NB-3040"):
            use()


def test_a_leaf_that_is_no_hash_is_refused() -> None:
    with pytest.raises(EvidenceError, match="NB-3040"):
        append([], 0, [b"record"])


def test_the_largest_tree_is_arithmetic_too() -> None:
    assert len(inclusion_ranges(SIZE_MAX - 1, SIZE_MAX)) <= 63
    assert consistency_ranges(SIZE_MAX // 2 + 1, SIZE_MAX)[0][1] == SIZE_MAX
    proof = [MANY[0]] * len(inclusion_ranges(0, SIZE_MAX))
    assert len(root_of_inclusion(MANY[0], index=0, size=SIZE_MAX, proof=proof)) == 32


@given(
    index=st.integers(0, SIZE_MAX),
    proof=st.lists(st.sampled_from(MANY), max_size=63).map(tuple),
    checkpoint=st.text(max_size=50),
    extra=st.none() | st.binary(max_size=40),
)
def test_a_tlog_proof_is_read_as_it_was_written(
    index: int, proof: tuple[bytes, ...], checkpoint: str, extra: bytes | None
) -> None:
    text = tlog_proof(index, proof, checkpoint, extra=extra)

    assert parse_tlog_proof(text) == TlogProof(index, proof, checkpoint, extra)


GOOD = tlog_proof(6, MANY[:2], "log\n7\n\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\n\nlog",
        GOOD.replace("@v1", "@v2"),
        GOOD.replace("index 6", "index 06"),
        GOOD.replace("index 6", "index -6"),
        GOOD.replace("index 6", "index ٦"),
        GOOD.replace("index 6", "Index 6"),
        GOOD.replace("index 6", "index 99999999999999999999"),
        GOOD.replace("index 6", "index 9999999999999999999"),
        GOOD.replace("index 6", "index 6\nAAAA"),
        GOOD.replace("index 6", "index 6\n*"),
        GOOD.replace("index 6", "index 6\né"),
        GOOD.replace("index 6", "index 6\r"),
        GOOD.replace("index 6", "extra AB\nindex 6"),
        GOOD.replace("index 6", "extra AB==\nindex 6"),
        GOOD.replace("index 6", "extra AA==\nextra AA==\nindex 6"),
        tlog_proof(0, [MANY[0]] * 64, ""),
    ],
)
def test_a_malformed_tlog_proof_is_refused(text: str) -> None:
    with pytest.raises(EvidenceError, match="NB-3043"):
        parse_tlog_proof(text)


@given(st.text(max_size=60) | st.text("index 0123456789\nextraAB=", max_size=60))
def test_any_text_that_is_no_tlog_proof_is_refused_in_one_way(text: str) -> None:
    for attempt in (text, "c2sp.org/tlog-proof@v1\n" + text):
        try:
            parse_tlog_proof(attempt)
        except EvidenceError as error:
            code = error.code
        else:
            continue
        assert code == "NB-3043"
