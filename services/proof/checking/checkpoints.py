"""Checkpoints of both logs in a bundle, who cosigned them and when, and which grew out of which."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.canonical import parse, unb64
from schemas.checkpoint import Checkpoint, Verifier, verify_checkpoint
from schemas.cosignature import Cosignature, cosignatures
from schemas.errors import EvidenceError
from schemas.proof import verify_consistency


def note_key_pem(verifier: Verifier) -> bytes:
    """Return an Ed25519 key of notes in PEM."""
    public = Ed25519PublicKey.from_public_bytes(verifier.public)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(slots=True)
class Checkpoints:
    """The keys of notes, and what was verified with them; `grown` has the sizes above each."""

    log_keys: dict[str, list[Verifier]] = field(default_factory=dict)
    cosigners: list[Verifier] = field(default_factory=list)
    roots: dict[tuple[str, int], bytes] = field(default_factory=dict)
    seen: dict[tuple[str, int], list[Cosignature]] = field(default_factory=dict)
    grown: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    notes: dict[tuple[str, str], Checkpoint] = field(default_factory=dict)

    def note(self, note: str, agency: str) -> Checkpoint:
        """Return the checkpoint of a note that a log of this agency signed.

        Raises what `verify_checkpoint` and `cosignatures` raise, `EvidenceError` NB-3021 for a
        second root of one size.
        """
        if (note, agency) not in self.notes:
            point = verify_checkpoint(note, self.log_keys.get(agency, []))
            place = (point.origin, point.size)
            # Whatever shows it: a proof as well as a checkpoint of its own.
            if self.roots.setdefault(place, point.root) != point.root:
                raise EvidenceError("NB-3021", origin=point.origin, size=point.size)
            self.seen.setdefault(place, []).extend(cosignatures(note, self.cosigners))
            self.notes[note, agency] = point
        return self.notes[note, agency]

    def grew(self, data: bytes) -> tuple[str, int, int]:
        """Check that one checkpoint is the beginning of another; return log and both sizes.

        Raises `EvidenceError` NB-3042, `KeyError` where one of them is missing.
        """
        said = parse(data)
        origin, old, new = said["origin"], said["old"], said["new"]
        verify_consistency(
            old=old,
            old_root=self.roots[origin, old],
            new=new,
            new_root=self.roots[origin, new],
            proof=[unb64(node) for node in said["proof"]],
        )
        self.grown.setdefault((origin, old), set()).add(new)
        return origin, old, new

    def cosigned(self, origin: str, keys: Iterable[str]) -> list[tuple[int, datetime]]:
        """Return the sizes of a log that one of these keys (vkeys) cosigned, and when first."""
        known = set(keys)
        return [
            (size, min(times))
            for (log, size), seen in self.seen.items()
            if log == origin
            and (times := [each.at for each in seen if each.verifier.vkey() in known])
        ]

    def witnessed(self, origin: str, size: int) -> str:
        """Return in words which cosigned checkpoint a checkpoint is tied to.

        Two that are the beginning of one and the same tree are the beginning of each other.
        """
        above = self._above(origin, size)
        tied = [
            (at, each.at, each.verifier.name)
            for (log, at), seen in self.seen.items()
            if log == origin and at >= size and above & self._above(log, at)
            for each in seen
        ]
        if not tied:
            return "which NOTHING in here ties to a cosigned one"
        at, time, name = min(tied)
        what = "which" if at == size else f"the beginning of that of {at}, which"
        return f"{what} {name} cosigned at {time:%Y-%m-%d %H:%M:%SZ}"

    def _above(self, origin: str, size: int) -> set[int]:
        found, waiting = {size}, [size]
        while waiting:
            fresh = self.grown.get((origin, waiting.pop()), set()) - found
            found |= fresh
            waiting += fresh
        return found
