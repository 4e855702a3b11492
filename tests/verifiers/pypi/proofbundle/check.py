"""proofbundle: a receipt as a C2SP tlog-proof, with its record, its log and its witness."""

import sys
from pathlib import Path

from proofbundle.tlogproof import verify_tlog_proof


def main(folder: Path) -> str | None:
    """Return why the material is refused, None if it is accepted."""
    log_key = (folder / "vkey").read_text().strip()
    found = verify_tlog_proof(
        (folder / "record.tlog-proof").read_text(),
        (folder / "record.json").read_bytes(),
        log_key,
        [(folder / "witness-vkey").read_text().strip()],
        threshold=1,
        expected_origin=log_key.partition("+")[0],
    )
    if not found["ok"]:
        parts = {name: found[name] for name in ("log_ok", "witnesses_ok", "inclusion_ok")}
        return f"{parts} {found.get('detail', '')}"
    print(f"record {found['index']} of {found['tree_size']}, cosigned by {found['witnesses']}")
    return None


refusal = main(Path(sys.argv[1]))
if refusal is not None:
    print("refused:", refusal)
    sys.exit(3)
