"""Where the messages of a replay are read from: the seam that every source fills.

A source yields messages that are on record here, in the order in which they took effect, each with
the bytes it has of them. What is wrong with bytes is found afterwards, alike for every source; a
source only says what it knows itself to be missing.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.exchange.recorded import Recorded
from services.ledger.store import Transaction
from services.replay.selection import Selection
from services.replay.store import messages
from services.replay.store.messages import Cursor, Placed, Stored

Progress = Callable[[int], None]
"""Called with how many there are so far."""

NOT_TAKEN = frozenset({"held", "refused", "superseded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """One message with its bytes: the signed envelope, and the content with its salt.

    `cause` is the code of what keeps it from being replayed, where the source knows that itself;
    the bytes may be None then, and only then.
    """

    message: Recorded
    envelope: bytes | None
    salt: bytes | None
    body: bytes | None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in order, and the place of the last of them."""

    messages: Sequence[Sourced]
    cursor: Cursor


class Source(Protocol):
    """What messages are read from. `str()` of it is its name, which `--from` takes.

    Both methods are given one transaction that sees one moment of the store from its beginning.
    The same selection yields the same messages in the same order each time, or a plan that rests on
    them is stale. One that is `planned` names the messages that a run began with: what has no bytes
    of them any more is yielded without, and `messages.recorded` knows them.
    """

    async def prepare(self, tx: Transaction, selection: Selection) -> None:
        """Get ready to read; may write tables that end with the transaction, and nothing else.

        Raises `NotFoundError` where there is no such source, `EvidenceError` for one that is
        damaged.
        """
        ...

    def batches(
        self, tx: Transaction, selection: Selection, *, after: Cursor | None, batch_max: int
    ) -> AsyncGenerator[Batch, None]:
        """Yield what is selected in order, at most `batch_max` a batch, from behind `after`."""
        ...


@dataclass(frozen=True, slots=True)
class StoreSource:
    """The store: what was taken and numbered here, by its inbox and its sent messages."""

    def __str__(self) -> str:
        return "store"

    async def prepare(self, tx: Transaction, selection: Selection) -> None:
        """Get ready to read; nothing is needed."""

    async def batches(
        self, tx: Transaction, selection: Selection, *, after: Cursor | None, batch_max: int
    ) -> AsyncGenerator[Batch, None]:
        """Yield messages with what the store kept of them."""
        async for placed, cursor in messages.recorded(
            tx, selection, after=after, batch_max=batch_max
        ):
            stored = await messages.stored(tx, [each.message.message_id for each in placed])
            yield Batch(
                [of_store(each, stored[each.message.message_id]) for each in placed], cursor
            )


STORE = StoreSource()


def of_store(placed: Placed, stored: Stored) -> Sourced:
    """Return a message with what the store kept of it."""
    cause = None
    if placed.state in NOT_TAKEN:
        cause = "NB-6034"
    elif stored.away:
        cause = "NB-6122"
    elif stored.erased:
        cause = "NB-6020"
    elif stored.envelope is None or not stored.kept or stored.body is None or stored.salt is None:
        cause = "NB-6021"
    return Sourced(
        message=placed.message,
        envelope=stored.envelope,
        salt=stored.salt,
        body=stored.body,
        cause=cause,
    )
