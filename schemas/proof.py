"""The Merkle tree of RFC 6962: hashes, frontier, proofs and how to check them. Pure arithmetic.

A tree of `size` leaves is known by its *frontier*: the roots of the perfect subtrees that it is
made of, largest first, one for each 1 in the binary form of `size`. It is all that appending needs.
Proofs are sequences of 32-byte hashes from the leaf's sibling up. Whatever does not fit raises
`EvidenceError`, and nothing else is raised for input of any kind.

The text form of an inclusion proof is C2SP tlog-proof (https://c2sp.org/tlog-proof).
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from schemas.errors import EvidenceError

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
# Signed notes and our database both count records in 63 bits.
SIZE_MAX = 2**63 - 1

_TLOG_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)


def leaf_hash(record: bytes) -> bytes:
    """Return the 32-byte leaf hash of one canonical record (RFC 6962, section 2.1)."""
    # The 0x00 prefix keeps a record from passing for an inner node, which starts with 0x01.
    return sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def root_of(frontier: Sequence[bytes], size: int | None = None) -> bytes:
    """Return the root of the tree with this frontier; with `size`, check that it fits.

    Raises `EvidenceError` NB-3040 when it does not.
    """
    if size is not None:
        _check_frontier(frontier, size)
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def append(frontier: Sequence[bytes], size: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the frontier after `leaves` (leaf hashes) were added to a tree of `size`.

    Raises `EvidenceError` NB-3040 when the frontier is not one of a tree of that size.
    """
    _check_frontier(frontier, size)
    _check_hashes(leaves)
    waiting, grown = list(frontier), []
    first, nodes = size, list(leaves)
    # One level after the other: pairs go up, what has no partner yet stays in the frontier.
    while first or nodes:
        if first % 2:
            first -= 1
            nodes.insert(0, waiting.pop())
        if len(nodes) % 2:
            grown.append(nodes[-1])
        nodes = [node_hash(left, right) for left, right in _pairs(nodes)]
        first //= 2
    return grown[::-1]


def batch_proofs(
    frontier_before: Sequence[bytes], size_before: int, leaves: Sequence[bytes]
) -> list[tuple[bytes, ...]]:
    """Return the inclusion proof of each new leaf under the size after all of them.

    Nothing else has to be read: what is left of the batch is in the frontier, and nothing is right
    of it. Raises `EvidenceError` NB-3040 as `append` does.
    """
    _check_frontier(frontier_before, size_before)
    _check_hashes(leaves)
    # Going up: the nodes of each level that the new leaves are below, and, first of them, the
    # sibling that the frontier keeps there (`joined`), if the new part begins at an odd place.
    stages: list[tuple[bool, list[bytes]]] = []
    waiting = list(frontier_before)
    first, nodes = size_before, list(leaves)
    while nodes and (first or len(nodes) > 1):
        joined = first % 2 == 1
        if joined:
            nodes.insert(0, waiting.pop())
        stages.append((joined, nodes))
        pairs = [node_hash(left, right) for left, right in _pairs(nodes)]
        # A last node without a partner stands for itself one level up (the right edge).
        nodes = pairs + nodes[len(pairs) * 2 :]
        first //= 2
    # Coming down: a node's path is its sibling and then its parent's path.
    paths: list[tuple[bytes, ...]] = [()] * len(nodes)
    for joined, nodes in reversed(stages):
        below: list[tuple[bytes, ...]] = []
        for at in range(len(nodes)):
            sibling = at ^ 1
            above = paths[at // 2]
            below.append((nodes[sibling], *above) if sibling < len(nodes) else above)
        paths = below[1:] if joined else below
    return paths


def _pairs(nodes: Sequence[bytes]) -> "zip[tuple[bytes, bytes]]":
    return zip(nodes[::2], nodes[1::2], strict=False)


def range_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree of these leaf hashes alone (RFC 6962, section 2.1)."""
    return root_of(append([], 0, leaves))


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges (first, end) of leaves whose roots make up an inclusion proof, in order.

    Whoever stores the tree hashes each range (all but those at the right edge are perfect
    subtrees). Raises `EvidenceError` NB-3041 for an index that is not below `size`.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise EvidenceError("NB-3041", rule="the index is not below the size")
    ranges: list[tuple[int, int]] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[tuple[int, int]]:
    """Return the ranges of leaves whose roots make up the consistency proof of two sizes, in order.

    Empty for equal sizes and for an empty old tree. Raises `EvidenceError` NB-3041 if old > new.
    """
    if not 0 <= old <= new <= SIZE_MAX:
        raise EvidenceError("NB-3041", rule="the old size is above the new one")
    if old in (0, new):
        return []
    ranges: list[tuple[int, int]] = []
    first, end = 0, new
    while end != old:
        middle = first + _split(end - first)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first = middle
    # What is left ends where the old tree ends; if it is all of it, the reader has its root.
    if first:
        ranges.append((first, end))
    return ranges[::-1]


def inclusion_proof(
    index: int, size: int, root_of_range: Callable[[int, int], bytes]
) -> list[bytes]:
    """Return the inclusion proof of a leaf; `root_of_range(first, end)` hashes stored leaves."""
    return [root_of_range(first, end) for first, end in inclusion_ranges(index, size)]


def consistency_proof(
    old: int, new: int, root_of_range: Callable[[int, int], bytes]
) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is the beginning of the one of `new`."""
    return [root_of_range(first, end) for first, end in consistency_ranges(old, new)]


def verify_inclusion(
    leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf with this hash stands at `index` in the tree of `size` with this root.

    Raises `EvidenceError` NB-3041. Source: RFC 9162, section 2.1.3.2.
    """
    if root_of_inclusion(leaf, index=index, size=size, proof=proof) != root:
        raise EvidenceError("NB-3041", rule="it leads to another root")


def root_of_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that an inclusion proof leads to. Raises `EvidenceError` NB-3041."""
    ranges = inclusion_ranges(index, size)
    _check_hashes([leaf, *proof])
    if len(proof) != len(ranges):
        raise EvidenceError("NB-3041", rule="it has too few or too many hashes")
    found = leaf
    for sibling, (first, _) in zip(proof, ranges, strict=True):
        found = node_hash(sibling, found) if first <= index else node_hash(found, sibling)
    return found


def verify_consistency(
    *, old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `old` leaves is the beginning of the tree of `new` leaves.

    Raises `EvidenceError` NB-3042. Source: RFC 9162, section 2.1.4.2.
    """
    ranges = consistency_ranges(old, new)
    _check_hashes([old_root, new_root, *proof])
    if len(proof) != len(ranges):
        raise EvidenceError("NB-3042", rule="the proof has too few or too many hashes")
    if old == 0:
        if old_root != EMPTY_ROOT:
            raise EvidenceError("NB-3042", rule="the empty tree has another root")
        return
    if not ranges:
        if old_root != new_root:
            raise EvidenceError("NB-3042", rule="two roots are given for one size")
        return
    hashes = list(proof)
    # Without a range that ends at the old size the old tree is one perfect subtree: its own root.
    if ranges[0][1] == old:
        old_found = new_found = hashes.pop(0)
        ranges = ranges[1:]
    else:
        old_found = new_found = old_root
    for sibling, (first, _) in zip(hashes, ranges, strict=True):
        if first >= old:
            new_found = node_hash(new_found, sibling)
        else:
            old_found = node_hash(sibling, old_found)
            new_found = node_hash(sibling, new_found)
    if old_found != old_root:
        raise EvidenceError("NB-3042", rule="the proof leads to another old root")
    if new_found != new_root:
        raise EvidenceError("NB-3042", rule="the proof leads to another new root")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """An inclusion proof with its checkpoint, to be checked offline."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None


def tlog_proof(
    index: int, proof: Sequence[bytes], checkpoint: str, *, extra: bytes | None = None
) -> str:
    """Return the text of an inclusion proof; `checkpoint` is the signed note, unchanged.

    `extra` is vouched for by nobody.
    """
    lines = [_TLOG_HEADER]
    if extra is not None:
        lines.append(f"extra {_encode(extra)}")
    lines.append(f"index {index}")
    lines.extend(map(_encode, proof))
    return "\n".join(lines) + "\n\n" + checkpoint


def parse_tlog_proof(text: str) -> TlogProof:
    """Read what `tlog_proof` wrote. Raises `EvidenceError` NB-3043; nothing is verified yet."""
    head, blank, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not blank or lines.pop(0) != _TLOG_HEADER:
        raise EvidenceError("NB-3043", rule="it does not begin as one")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = _decode(lines.pop(0).removeprefix("extra "))
    found = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if found is None or int(found[1]) > SIZE_MAX:
        raise EvidenceError("NB-3043", rule="its index is not a number")
    proof = tuple(map(_decode, lines))
    if len(proof) > 63 or any(len(node) != HASH_BYTES for node in proof):
        raise EvidenceError("NB-3043", rule="a line is not a hash")
    return TlogProof(int(found[1]), proof, checkpoint, extra)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        data = b""
    # Left-over bits that are not zero would be a second spelling.
    if _encode(data) != text:
        raise EvidenceError("NB-3043", rule="a line is not base64")
    return data


def _split(size: int) -> int:
    """Return the largest power of two below `size`, where RFC 6962 divides a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _check_frontier(frontier: Sequence[bytes], size: int) -> None:
    if not 0 <= size <= SIZE_MAX or len(frontier) != size.bit_count():
        raise EvidenceError("NB-3040")
    _check_hashes(frontier)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(node) != HASH_BYTES for node in hashes):
        raise EvidenceError("NB-3040")
