"""cloudevents (Python SDK): the signed payload of an envelope is an event of CloudEvents 1.0."""

import json
import sys
from pathlib import Path

from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent


def main(folder: Path) -> str | None:
    """Return why the material is refused, None if it is accepted."""
    content = (folder / "event.json").read_bytes()
    event = JSONFormat().read(CloudEvent, content)
    said = json.loads(content)
    read = (event.get_id(), event.get_type(), event.get_source(), event.get_subject())
    if read != (said["id"], said["type"], said["source"], said["subject"]):
        return "it reads other attributes"
    if event.get_extension("commitment") != said["commitment"]:
        return "it loses an extension"
    print(event.get_type(), event.get_id())
    return None


try:
    refusal = main(Path(sys.argv[1]))
except CloudEventValidationError as error:
    refusal = f"{type(error).__name__}: {error}"
if refusal is not None:
    print("refused:", refusal)
    sys.exit(3)
