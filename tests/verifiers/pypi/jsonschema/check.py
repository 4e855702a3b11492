"""jsonschema (Python): a notice's content and its receipts against the published schemas."""

import json
import sys
from pathlib import Path

from jsonschema import Draft202012Validator, ValidationError


def main(folder: Path) -> None:
    """Raise `ValidationError` for material that is refused."""
    for schema in sorted((folder / "schemas").glob("*.json")):
        Draft202012Validator.check_schema(json.loads(schema.read_text()))
    for kind in ("fta", "receipts"):
        schema = json.loads((folder / "schemas" / f"{kind}.v1.json").read_text())
        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        validator.validate(json.loads((folder / f"{kind}.json").read_text()))
        print(kind, "fits", schema["$id"])


try:
    main(Path(sys.argv[1]))
except ValidationError as error:
    print("refused:", error.message)
    sys.exit(3)
