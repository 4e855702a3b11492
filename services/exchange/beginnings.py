"""Ids as people give them: whole, or by their beginning. One rule for every command.

A beginning has at least four digits, so that a variable that is not set names nothing, and nothing
that stands for other characters in a pattern is ever part of one.
"""

import re
from typing import NamedTuple
from uuid import UUID

from schemas.errors import NotFoundError

LENGTH_MIN = 4
_DIGITS = re.compile(rf"[0-9a-f]{{{LENGTH_MIN},32}}", re.ASCII)


class Beginning(NamedTuple):
    """All ids that begin so: from `low` to `high`, both included, in the order of PostgreSQL."""

    low: UUID
    high: UUID

    def of(self, id_: UUID) -> bool:
        """Tell whether an id begins so."""
        return self.low <= id_ <= self.high


def beginning(text: str) -> Beginning:
    """Return what a text means as the beginning of an id, in small letters or large.

    Raises `NotFoundError` NB-6120 for what no id begins with, or too little of one.
    """
    digits = text.strip().lower().replace("-", "")
    if not _DIGITS.fullmatch(digits):
        raise NotFoundError("NB-6120", value=repr(text), digits=LENGTH_MIN)
    return Beginning(UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))
