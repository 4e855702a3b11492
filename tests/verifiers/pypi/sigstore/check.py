"""sigstore-python: its Merkle and checkpoint modules over a record, its proof and its checkpoint.

They take a log entry of Rekor; ours is given in the same members.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import verify_checkpoint
from sigstore.errors import VerificationError


class Keyring:
    """The one log key, as sigstore's keyring would hold it."""

    def __init__(self, pem: bytes) -> None:
        key = load_pem_public_key(pem)
        assert isinstance(key, Ed25519PublicKey)
        self.key = key

    def verify(self, *, key_id: bytes, signature: bytes, data: bytes) -> None:
        """Raise `VerificationError` for a signature that is not this key's."""
        try:
            self.key.verify(signature, data)
        except InvalidSignature as error:
            raise VerificationError("invalid signature") from error


def main(folder: Path) -> None:
    """Raise `VerificationError` for material that is refused."""
    proofs = json.loads((folder / "proofs.json").read_text())
    note = (folder / "log" / "checkpoint").read_text()
    name, _, rest = (folder / "vkey").read_text().strip().partition("+")
    inclusion = SimpleNamespace(
        checkpoint=SimpleNamespace(envelope=note),
        log_index=proofs["index"],
        tree_size=int(note.splitlines()[1]),
        root_hash=bytes.fromhex(proofs["root"]),
        hashes=[bytes.fromhex(node) for node in proofs["inclusion"]],
    )
    entry = SimpleNamespace(
        _inner=SimpleNamespace(
            inclusion_proof=inclusion,
            canonicalized_body=(folder / "record.json").read_bytes(),
            log_id=SimpleNamespace(key_id=bytes.fromhex(rest.partition("+")[0])),
        )
    )
    verify_merkle_inclusion(entry)
    verify_checkpoint(Keyring((folder / "log-key.pem").read_bytes()), entry)
    print(name, hashlib.sha256(entry._inner.canonicalized_body).hexdigest()[:16])


try:
    main(Path(sys.argv[1]))
except VerificationError as error:
    print("refused:", error)
    sys.exit(3)
