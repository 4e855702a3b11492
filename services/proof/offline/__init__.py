"""The program that travels in each bundle: five files here, one there.

It must run with nothing of ours, so it imports nothing of ours; a file that is read by strangers
from beginning to end comes in the order in which it is understood.
"""

import re
from importlib.resources import files

_IN_ORDER = ("arithmetic.py", "reading.py", "endings.py", "checkpoints.py", "evidence.py")
# What a file takes from those before it stands above it in the bundle.
_FROM_ABOVE = re.compile(
    r"^from services\.proof\.offline\S* import (?:\([^)]*\)|[^(\n]*)\n", re.MULTILINE
)


def program() -> bytes:
    """Return `verify.py`."""
    ours = files("services.proof.offline")
    parts = [ours.joinpath(name).read_text(encoding="utf-8") for name in _IN_ORDER]
    return "\n\n".join(_FROM_ABOVE.sub("", part) for part in parts).encode()
