"""rfc8785: records, envelopes, contents and party files are in the one spelling of RFC 8785."""

import json
import sys
from pathlib import Path

import rfc8785

folder = Path(sys.argv[1])
NAMES = ("record.json", "event.json", "fta.json", "receipts.json", "ice-party.json")
for name in NAMES:
    content = (folder / name).read_bytes()
    if rfc8785.dumps(json.loads(content)) != content:
        print(f"refused: {name} is not canonical")
        sys.exit(3)
print("canonical:", *NAMES)
