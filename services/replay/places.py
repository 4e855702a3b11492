"""Where a replay writes to."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from schemas.errors import RejectedError

# Delivery reads `{<sender>.<recipient>.<lane>.<partition>}:out` and nothing else.
STREAM = re.compile(r"\{replay\.[a-z0-9][a-z0-9._-]{0,62}\}")


class Place(StrEnum):
    """A kind of place: the first three get stored envelopes, the last is only compared with."""

    STDOUT = "stdout"
    FILE = "file"
    STREAM = "stream"
    STORE = "store"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Target:
    """A place; for a file its absolute path, for a stream its name."""

    place: Place
    path: Path | None = None
    stream: str | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what `stdout`, `file:PATH`, `stream:{replay.NAME}`, `store` or `shadow` names.

        Raises `RejectedError` NB-6017, or NB-6030 for a stream that is not for replays.
        """
        name, _, rest = text.partition(":")
        if name == Place.FILE and rest:
            return cls(Place.FILE, path=Path(rest).absolute())
        if name == Place.STREAM and rest:
            if STREAM.fullmatch(rest) is None:
                raise RejectedError("NB-6030", stream=rest)
            return cls(Place.STREAM, stream=rest)
        if name == text and name in (Place.STDOUT, Place.STORE, Place.SHADOW):
            return cls(Place(name))
        raise RejectedError("NB-6017", value=text)

    @property
    def keeps(self) -> bool:
        """Whether a run leaves something behind that it can go on from after an interruption."""
        return self.place in (Place.STORE, Place.STREAM, Place.FILE)

    def __str__(self) -> str:
        rest = self.path if self.path is not None else self.stream
        return str(self.place) if rest is None else f"{self.place}:{rest}"
