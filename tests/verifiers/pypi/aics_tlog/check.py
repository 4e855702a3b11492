"""aics-tlog: tiles, entries and checkpoint of the exported log, its witness, a receipt's proofs."""

import json
import sys
from pathlib import Path

import aics_tlog
from aics_tlog.checkpoint import checkpoint_from_note


def main(folder: Path) -> str | None:
    """Return why the material is refused, None if it is accepted."""
    proofs = json.loads((folder / "proofs.json").read_text())
    key = aics_tlog.parse_vkey((folder / "vkey").read_text().strip())
    seen = {}
    for name in ("older-checkpoint", "log/checkpoint"):
        checkpoint, note = checkpoint_from_note((folder / name).read_bytes())
        found = aics_tlog.verify_checkpoint(note, key, expected_origin=key.name)
        if not found.log_ok:
            return f"{name}: {found.error}"
        seen[name] = checkpoint
    witness = aics_tlog.parse_vkey((folder / "witness-vkey").read_text().strip())
    cosigned, note = checkpoint_from_note((folder / "cosigned-checkpoint").read_bytes())
    found = aics_tlog.verify_checkpoint(
        note, key, witness_keys=[witness], quorum=1, expected_origin=key.name
    )
    if not found.ok:
        return f"cosigned-checkpoint: {found.error}"
    newest, older = seen["log/checkpoint"], seen["older-checkpoint"]
    if (cosigned.size, cosigned.root) != (newest.size, newest.root):
        return "the cosigned checkpoint is another one"
    report = aics_tlog.audit_tiles(
        aics_tlog.FileSystemTileReader(folder / "log"), newest.size, newest.root
    )
    record = (folder / "record.json").read_bytes()
    inclusion = [bytes.fromhex(node) for node in proofs["inclusion"]]
    if not aics_tlog.verify_leaf_inclusion(
        record, proofs["index"], newest.size, inclusion, newest.root
    ):
        return "the inclusion proof does not hold"
    consistency = [bytes.fromhex(node) for node in proofs["consistency"]]
    if not aics_tlog.verify_consistency(
        older.size, newest.size, older.root, newest.root, consistency
    ):
        return "the consistency proof does not hold"
    print(f"{report.size} records, {report.tiles} tiles, {report.bundles} bundles")
    return None


try:
    refusal = main(Path(sys.argv[1]))
except (ValueError, aics_tlog.TileMissingError) as error:
    refusal = f"{type(error).__name__}: {error}"
if refusal is not None:
    print("refused:", refusal)
    sys.exit(3)
