"""metamorphic-log (Rust): checkpoints, and a record's inclusion and consistency under them."""

import hashlib
import json
import sys
from pathlib import Path

import metamorphic_log


def main(folder: Path) -> None:
    """Raise `VerifyError` for material that is refused."""
    proofs = json.loads((folder / "proofs.json").read_text())
    vkeys = [(folder / "vkey").read_text().strip()]
    note = (folder / "log" / "checkpoint").read_text()
    older = (folder / "older-checkpoint").read_text()
    head = metamorphic_log.checkpoint_verify(note, vkeys)
    leaf = hashlib.sha256(b"\x00" + (folder / "record.json").read_bytes()).digest()
    inclusion = [bytes.fromhex(node) for node in proofs["inclusion"]]
    metamorphic_log.checkpoint_verify_inclusion(note, vkeys, proofs["index"], leaf, inclusion)
    consistency = [bytes.fromhex(node) for node in proofs["consistency"]]
    metamorphic_log.checkpoint_verify_consistency(older, note, vkeys, consistency)
    print(head)


try:
    main(Path(sys.argv[1]))
except metamorphic_log.VerifyError as error:
    print("refused:", error)
    sys.exit(3)
