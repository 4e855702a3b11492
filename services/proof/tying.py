"""Tie a receipt's checkpoint to one that was cosigned, by hashes that are in our store already.

The peer's answer shows the leaves of a sealed batch and the frontier before it; its heads carry the
proof from one cosigned checkpoint to the next. From these a consistency proof is put together where
they suffice: that the receipt's checkpoint is the beginning of the first cosigned one after it. It
does not suffice where the peer sealed records in between that no answer showed. Nothing is
believed here: the proof leads to both signed roots, or it is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.canonical import canonical, parse, unb64
from schemas.checkpoint import Checkpoint, parse_checkpoint
from schemas.cosignature import with_cosignatures
from schemas.envelope import read
from schemas.errors import EvidenceError
from schemas.proof import (
    consistency_proof,
    consistency_ranges,
    leaf_hash,
    node_hash,
    verify_consistency,
)
from services.exchange.store import heads
from services.ledger.store import Transaction
from services.proof import store
from services.proof.store import Answer

# The next heads after a receipt tell, or none do: later ones begin above what they would join.
HEADS_MAX = 4
BATCHES_MAX = 200

NOT_YET = "none of its checkpoints from then on was cosigned yet"
NOT_SHOWN = "records that no receipt of ours shows stand between it and the next cosigned one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """What joins a checkpoint to the cosigned `note` of `size`; `why_not` if nothing does.

    An empty `proof` is that of a checkpoint to itself.
    """

    size: int = 0
    note: str = ""
    proof: tuple[bytes, ...] = ()
    why_not: str | None = None


class UnknownError(LookupError):
    """A hash that nothing in our store leads to."""


@dataclass(slots=True)
class Nodes:
    """Roots of ranges (first, end) of the peer's leaves, as far as it showed them."""

    known: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def learn_batch(self, index: int, frontier: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        """Take what an answer shows: leaves from `index` on, and the subtrees before them."""
        for at, leaf in enumerate(leaves, index):
            self.known[at, at + 1] = leaf
        first = 0
        for node, bit in zip(frontier, _bits(index), strict=True):
            self.known[first, first + bit] = node
            first += bit

    def learn_proof(self, old: int, new: int, proof: Sequence[bytes]) -> None:
        """Take what a consistency proof shows."""
        ranges = consistency_ranges(old, new)
        if len(ranges) == len(proof):
            self.known.update(zip(ranges, proof, strict=True))

    def root(self, first: int, end: int) -> bytes:
        """Return the root of a range. Raises `UnknownError`."""
        found = self.known.get((first, end))
        if found is None:
            if end - first == 1:
                raise UnknownError
            middle = first + (1 << ((end - first - 1).bit_length() - 1))
            found = node_hash(self.root(first, middle), self.root(middle, end))
            self.known[first, end] = found
        return found


def _bits(size: int) -> list[int]:
    return [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]


async def tie(tx: Transaction, answer: Answer, point: Checkpoint) -> Tie:
    """Return what ties `point`, the checkpoint that an answer of the peer shows."""
    candidates = await _cosigned_after(tx, answer, point)
    if not candidates:
        return Tie(why_not=NOT_YET)
    first = candidates[min(candidates)]
    if first.checkpoint.size == point.size and first.checkpoint.root == point.root:
        return Tie(size=point.size, note=first.note)
    nodes = await _shown(tx, answer, point, up_to=max(candidates))
    for size in sorted(candidates):
        found = candidates[size]
        try:
            proof = consistency_proof(point.size, size, nodes.root)
            verify_consistency(
                old=point.size,
                old_root=point.root,
                new=size,
                new_root=found.checkpoint.root,
                proof=proof,
            )
        except (UnknownError, EvidenceError):
            continue
        return Tie(size=size, note=found.note, proof=tuple(proof))
    return Tie(why_not=NOT_SHOWN)


@dataclass(frozen=True, slots=True)
class _Cosigned:
    checkpoint: Checkpoint
    note: str


async def _cosigned_after(
    tx: Transaction, answer: Answer, point: Checkpoint
) -> dict[int, _Cosigned]:
    """Return checkpoints of that log that we cosigned after an answer came, by size.

    Our own heads carried them to the peer; the newest may still wait for one.
    """
    notes = [
        said["cosigned"]
        for head in await store.own_heads(tx, since=answer.taken_at, limit=HEADS_MAX)
        if "cosigned" in (said := _body(head))
    ]
    notes += [with_cosignatures(each.note, [each.line]) for each in await heads.peer_heads(tx)]
    found: dict[int, _Cosigned] = {}
    for note in notes:
        checkpoint = parse_checkpoint(note).checkpoint
        if checkpoint.origin == point.origin and checkpoint.size >= point.size:
            found.setdefault(checkpoint.size, _Cosigned(checkpoint, note))
    return found


async def _shown(tx: Transaction, answer: Answer, point: Checkpoint, *, up_to: int) -> Nodes:
    """Return the hashes that the peer showed by this answer, later ones, and its next heads."""
    nodes = Nodes()
    batches = await store.batches(
        tx, answer.stream, point.origin, above=point.size, up_to=up_to, limit=BATCHES_MAX
    )
    for each in (answer.envelope, *batches):
        said = _body(each)
        leaves = [
            unb64(entry["leaf"]) if "leaf" in entry else leaf_hash(canonical(entry["record"]))
            for entry in said["entries"]
        ]
        nodes.learn_batch(said["index"], [unb64(node) for node in said["frontier"]], leaves)
    for head in await store.peer_heads_after(tx, answer, limit=HEADS_MAX):
        said = _body(head)
        checkpoint = parse_checkpoint(said["checkpoint"]).checkpoint
        if checkpoint.origin == point.origin and "since" in said:
            proof = [unb64(node) for node in said["consistency"]]
            nodes.learn_proof(said["since"], checkpoint.size, proof)
    return nodes


def _body(envelope: bytes) -> dict[str, Any]:
    """Return what a control message says; it was verified when it was taken, or is our own."""
    said: dict[str, Any] = parse(read(envelope).payload)["data"]
    return said
