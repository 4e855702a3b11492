"""What an agency does with messages once the exchange has taken them: the seam to `ice` and `hhs`.

Both calls run inside the transaction that also writes inbox row, ledger record and the debt of an
answer: either all of it happens or none. They must touch nothing outside that transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pydantic import BaseModel

from schemas.envelope import Attributes, Kind
from services.ledger.store import Transaction

# What the effect of a message is called on record. Such a record names the message and bears the
# time at which that came, also where it was held and applied later: no other record does.
EFFECTS = frozenset(
    {
        *("case.corrected", "case.updated", "case.withdrawn"),
        *("notice.acknowledged", "notice.disposition", "notice.action", "notice.closed"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message that was verified, opened and is next in the order of its notice.

    `received_at` is when it was received. `since` is set where clocks began before: its bytes were
    set aside for a while, or it `stands_in` for revisions that were refused.
    """

    message_id: UUID
    kind: Kind
    notice_id: UUID | None
    revision: int | None
    body: BaseModel
    attributes: Attributes
    received_at: datetime
    since: datetime | None = None
    stands_in: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The peer's verified answer to a message of ours; `code` is set for refusals."""

    message_id: UUID
    notice_id: UUID | None
    kind: Kind
    receipt: bool
    code: str | None
    answered_at: datetime


class Effects(Protocol):
    """One agency's part of taking a message."""

    async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
        """Apply messages, each notice's in order of revision.

        Raises `RejectedError` when a message can never be applied: it is then refused, nothing of
        the transaction remains, and the others are taken without it.
        """
        ...

    async def answered(self, tx: Transaction, answers: Sequence[Answered]) -> None:
        """Note answers to our own messages."""
        ...
