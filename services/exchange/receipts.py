"""Verify a batch of receipts: recompute its root and find it in a checkpoint the peer signed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.canonical import canonical_again, unb64
from schemas.catalog import parse_body
from schemas.checkpoint import Checkpoint, Verifier, verify_checkpoint
from schemas.envelope import read, verify
from schemas.errors import EvidenceError
from schemas.proof import append as grow
from schemas.proof import leaf_hash, root_of, verify_consistency
from schemas.reply import Receipts
from services.exchange.agency import Agency


@dataclass(frozen=True, slots=True)
class Batch:
    """A receipts message whose proof holds: records by index, the size after, the root.

    `grown` is a later checkpoint of the log, with its note, that has this one as its beginning.
    """

    records: Sequence[tuple[int, Mapping[str, Any]]]
    checkpoint: Checkpoint
    note: str
    grown: tuple[Checkpoint, str] | None
    first_index: int
    frontier_before: Sequence[bytes]
    leaves: Sequence[bytes]

    def root_at(self, size: int) -> bytes:
        """Return the log's root at any size from `first_index` to the checkpoint's."""
        part = self.leaves[: size - self.first_index]
        return root_of(grow(list(self.frontier_before), self.first_index, part), size)


def verify_batch(receipts: Receipts, agency: Agency) -> Batch:
    """Recompute the root of a sealed batch and find it in its signed checkpoint.

    Raises `EvidenceError` NB-3020 when the root or the size differ, NB-3231 when the log did not
    grow as told, or what `verify_checkpoint` raises for a checkpoint that the peer's log key did
    not sign.
    """
    return prove_batch(receipts, agency.directory.log_keys)


def prove_batch(receipts: Receipts, log_keys: Sequence[Verifier]) -> Batch:
    """Do what `verify_batch` does, with these log keys of the peer."""
    checkpoint = verify_checkpoint(receipts.checkpoint, log_keys)
    records: list[tuple[int, Mapping[str, Any]]] = []
    leaves: list[bytes] = []
    for index, entry in enumerate(receipts.entries, receipts.index):
        if entry.record is not None:
            records.append((index, entry.record))
            leaves.append(leaf_hash(canonical_again(entry.record)))
        else:
            leaves.append(unb64(entry.leaf or ""))
    size = receipts.index + len(leaves)
    before = [unb64(node) for node in receipts.frontier]
    try:
        frontier = grow(before, receipts.index, leaves)
    except EvidenceError as error:
        # Hashes that belong to no tree of this size.
        raise EvidenceError("NB-3020", index=receipts.index, size=checkpoint.size) from error
    if checkpoint.size != size or root_of(frontier, size) != checkpoint.root:
        raise EvidenceError("NB-3020", index=receipts.index, size=checkpoint.size)
    return Batch(
        records=records,
        checkpoint=checkpoint,
        note=receipts.checkpoint,
        grown=_grown(receipts, checkpoint, log_keys),
        first_index=receipts.index,
        frontier_before=before,
        leaves=leaves,
    )


def _grown(
    receipts: Receipts, checkpoint: Checkpoint, log_keys: Sequence[Verifier]
) -> tuple[Checkpoint, str] | None:
    if receipts.grown is None:
        return None
    grown = verify_checkpoint(receipts.grown, log_keys)
    if grown.origin != checkpoint.origin:
        raise EvidenceError("NB-3231", size=checkpoint.size, grown=grown.size)
    try:
        verify_consistency(
            old=checkpoint.size,
            old_root=checkpoint.root,
            new=grown.size,
            new_root=grown.root,
            proof=[unb64(node) for node in receipts.consistency or ()],
        )
    except EvidenceError as error:
        raise EvidenceError("NB-3231", size=checkpoint.size, grown=grown.size) from error
    return grown, receipts.grown


def receipted_record(agency: Agency, answer: bytes, index: int) -> Mapping[str, Any] | None:
    """Return the record at `index` that a stored receipts message proves, None if it has none.

    `answer` are the message's bytes; its signature and its root are verified again. Raises what
    `verify` and `verify_batch` raise.
    """
    envelope = verify(read(answer), agency.directory.verify_keys)
    receipts = parse_body(envelope.attributes.kind, envelope.attributes.version, envelope.plain())
    if not isinstance(receipts, Receipts):
        return None
    return dict(verify_batch(receipts, agency).records).get(index)
