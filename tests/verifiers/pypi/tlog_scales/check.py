"""tlog-scales: the exported folder, proofs made and checked from its tiles, and its witness."""

import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tlog import Checkpoint, ConsistencyProofInvalid, InclusionProofInvalid
from tlog_scales.utils import sha256


def main(folder: Path) -> str | None:
    """Return why the material is refused, None if it is accepted."""
    reader = TilesReader(LocalBackend(folder / "log"))
    newest = reader.get_checkpoint()
    older = Checkpoint.from_text((folder / "older-checkpoint").read_text())
    key = Vkey.from_string((folder / "vkey").read_text().strip())
    for checkpoint in (newest, older):
        checkpoint.verify(key)
    cosigned = Checkpoint.from_text((folder / "cosigned-checkpoint").read_text())
    cosigned.verify(Vkey.from_string((folder / "witness-vkey").read_text().strip()))
    if reader.calculate_root_hash() != newest.root_hash:
        return "the tiles have another root"
    for index in range(newest.size):
        entry = reader.get_entry(index)
        reader.get_inclusion_proof(index, newest.size).check(
            sha256(b"\x00" + entry), newest.root_hash
        )
    reader.get_consistency_proof(older.size, newest.size).check(older.root_hash, newest.root_hash)
    print(f"{newest.size} records")
    return None


try:
    refusal = main(Path(sys.argv[1]))
except (InvalidSignature, ConsistencyProofInvalid, InclusionProofInvalid) as error:
    refusal = f"{type(error).__name__} {error}"
if refusal is not None:
    print("refused:", refusal)
    sys.exit(3)
