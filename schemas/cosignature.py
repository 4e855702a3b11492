"""Cosignatures: another party's word that it saw a checkpoint, and when.

A witness signs a log's checkpoint with its time, after it was shown that the log only grew. Written
as one more signature line of the note, of type 0x04. Source: https://c2sp.org/tlog-cosignature
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.checkpoint import (
    COSIGNATURE,
    Checkpoint,
    Signature,
    Signer,
    Verifier,
    parse_checkpoint,
    signature_line,
)
from schemas.errors import EvidenceError

_SIGNATURE_BYTES = 64
_TIME = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified cosignature: by whom, when, and its line as it stands in the note."""

    verifier: Verifier
    at: datetime
    line: str


def cosigner(signer: Signer) -> Verifier:
    """Return the public half of a key as that of a witness."""
    public = signer.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Verifier(signer.name, COSIGNATURE, public)


def cosign(checkpoint: Checkpoint, signer: Signer, at: datetime) -> str:
    """Return the line by which `signer` witnesses a checkpoint at a time, to the second.

    The caller was shown that what it saw of this log before is the beginning of it.
    """
    seconds = int(at.timestamp())
    signature = signer.private.sign(_text(checkpoint, seconds))
    return signature_line(signer.name, cosigner(signer).key_id, _TIME.pack(seconds) + signature)


def cosignatures(note: str, witnesses: Iterable[Verifier]) -> list[Cosignature]:
    """Return the cosignatures that known witnesses put under a note, in the note's order.

    Lines of unknown keys are passed over, as C2SP demands. Raises `EvidenceError` NB-3050 for what
    is no signed note, NB-3053 for a line of a known witness that it did not sign.
    """
    signed = parse_checkpoint(note)
    known = {(each.name, each.key_id): each for each in witnesses if each.algorithm == COSIGNATURE}
    found: list[Cosignature] = []
    for each in signed.signatures:
        witness = known.get((each.name, each.key_id))
        if witness is not None:
            at = _verified(signed.checkpoint, witness, each)
            line = signature_line(each.name, each.key_id, each.signature)
            found.append(Cosignature(witness, at, line))
    return found


def with_cosignatures(note: str, lines: Sequence[str]) -> str:
    """Return a note with further signature lines at its end."""
    return note + "".join(line for line in lines if line not in note)


def _verified(checkpoint: Checkpoint, witness: Verifier, signature: Signature) -> datetime:
    raw = signature.signature
    if len(raw) != _TIME.size + _SIGNATURE_BYTES:
        raise EvidenceError("NB-3053", name=witness.name)
    (seconds,) = _TIME.unpack(raw[: _TIME.size])
    try:
        key = Ed25519PublicKey.from_public_bytes(witness.public)
        key.verify(raw[_TIME.size :], _text(checkpoint, seconds))
        return datetime.fromtimestamp(seconds, UTC)
    except (InvalidSignature, OverflowError, ValueError, OSError):
        raise EvidenceError("NB-3053", name=witness.name) from None


def _text(checkpoint: Checkpoint, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{checkpoint.text()}".encode()
