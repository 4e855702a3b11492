"""Verify a batch of receipts: recompute its root and find it in a checkpoint the peer signed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.canonical import canonical, unb64
from schemas.checkpoint import Checkpoint, verify_checkpoint
from schemas.errors import EvidenceError
from schemas.proof import append as grow
from schemas.proof import leaf_hash, root_of
from schemas.reply import Receipts
from services.exchange.agency import Agency


@dataclass(frozen=True, slots=True)
class Batch:
    """A receipts message whose proof holds: records by index, the size after, the root."""

    records: Sequence[tuple[int, Mapping[str, Any]]]
    checkpoint: Checkpoint
    note: str


def verify_batch(receipts: Receipts, agency: Agency) -> Batch:
    """Recompute the root of a sealed batch and find it in its signed checkpoint.

    Raises `EvidenceError` NB-3020 when the root or the size differ, or what `verify_checkpoint`
    raises for a checkpoint that the peer's log key did not sign.
    """
    checkpoint = verify_checkpoint(receipts.checkpoint, agency.directory.log_keys)
    records: list[tuple[int, Mapping[str, Any]]] = []
    leaves: list[bytes] = []
    for index, entry in enumerate(receipts.entries, receipts.index):
        if entry.record is not None:
            records.append((index, entry.record))
            leaves.append(leaf_hash(canonical(entry.record)))
        else:
            leaves.append(unb64(entry.leaf or ""))
    frontier = grow([unb64(node) for node in receipts.frontier], receipts.index, leaves)
    size = receipts.index + len(leaves)
    if checkpoint.size != size or root_of(frontier, size) != checkpoint.root:
        raise EvidenceError("NB-3020", index=receipts.index, size=checkpoint.size)
    return Batch(records=records, checkpoint=checkpoint, note=receipts.checkpoint)
