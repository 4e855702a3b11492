"""Messages as the store keeps them, and what an agency's projection makes of them.

The seam between replay and the agencies. A projection is what is derived from messages alone, and
can therefore be made again from them: at HHS the facts of a case, at ICE the replies to a notice.
What people did is not derived from what came in, and no projection changes it; with what is gone it
comes back as their records tell it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from pydantic import BaseModel

from schemas.envelope import Kind, Lane
from services.ledger.store import Transaction


class Direction(StrEnum):
    """Whether a message came in or went out."""

    RECEIVED = "received"
    SENT = "sent"


class Standing(StrEnum):
    """How an event stands to the projection."""

    NEW = "new"
    SAME = "same"
    CHANGED = "changed"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One message that was taken or numbered here; `at` is when, as its record has it."""

    message_id: UUID
    direction: Direction
    kind: Kind
    notice_id: UUID | None
    revision: int | None
    stream: str
    generation: int
    sequence: int
    envelope_hash: bytes
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A recorded message whose stored content is what was committed to, read by its schema."""

    message: Recorded
    lane: Lane
    body: BaseModel


@dataclass(frozen=True, slots=True)
class Difference:
    """One column of a projection: what stands there, and what the messages say; no identities."""

    field: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Finding:
    """How one event stands, with what it would change; `cause` is the code of what blocks it."""

    standing: Standing
    differences: tuple[Difference, ...] = ()
    cause: str | None = None


class Ahead(Protocol):
    """By notice, the revision that earlier messages of a pass would bring it to."""

    def get(self, notice_id: UUID, default: int, /) -> int:
        """Return the revision of a notice, else `default`."""
        ...

    def __setitem__(self, notice_id: UUID, revision: int, /) -> None: ...


class Projection(Protocol):
    """What one agency derives from the messages it received.

    Messages come in the order of their revisions, notice by notice; `compare` and `apply` may be
    given a part of them at a time.
    """

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of received messages that something is derived from."""
        ...

    async def hold(self, tx: Transaction, notices: Sequence[UUID]) -> None:
        """Keep messages about these notices from being applied until the transaction ends."""
        ...

    async def compare(
        self, tx: Transaction, messages: Sequence[Readable], ahead: Ahead
    ) -> list[Finding]:
        """Return how each message stands to what is stored; changes nothing in the store.

        `ahead` starts empty with a pass, and is written here.
        """
        ...

    async def apply(
        self, tx: Transaction, messages: Sequence[Readable], findings: Sequence[Finding]
    ) -> None:
        """Write what new and changed messages derive; the others change nothing.

        `findings` come from `compare` in the same transaction, after `hold`.
        """
        ...


def differences(
    before: object | None, after: object, fields: Sequence[str]
) -> tuple[Difference, ...]:
    """Return where two rows differ in `fields`; against no row, all that is not empty differs."""
    pairs = [
        (name, None if before is None else getattr(before, name), getattr(after, name))
        for name in fields
    ]
    return tuple(Difference(name, old, new) for name, old, new in pairs if old != new)
