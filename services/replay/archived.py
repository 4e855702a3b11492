"""Messages as an archive file holds them: their order and what became of them are the store's.

The whole file is verified before anything of it is replayed: records, signed roots, bytes, content.
Its messages then wait in a table of the transaction, in the agency's own database and nowhere else.
"""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

from schemas.checkpoint import Verifier
from services.backup.archive_file import Moved, messages
from services.backup.container import Content
from services.backup.snapshot import held
from services.exchange.parties import own_log_keys
from services.exchange.recorded import Direction, Recorded
from services.exchange.threads import off_the_loop
from services.keys import KeyRing
from services.ledger.store import Store, Transaction
from services.replay.selection import Selection
from services.replay.sources import NOT_TAKEN, Batch, Progress, Sourced
from services.replay.store import archived as store
from services.replay.store import messages as placing
from services.replay.store.messages import Cursor, Placed

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSource:
    """One archive file of ours; made by `open`."""

    path: Path
    ring: KeyRing
    log_keys: tuple[Verifier, ...]
    reading: Progress | None = None

    @classmethod
    async def open(
        cls, database: Store, ring: KeyRing, path: Path, *, reading: Progress | None = None
    ) -> Self:
        """Return an archive as a source; log keys of all our generations prove it.

        `reading` is told how many of its messages were verified, before the first of them comes.
        """
        keys = await own_log_keys(database, ring.agency)
        return cls(path=path, ring=ring, log_keys=tuple(keys), reading=reading)

    def __str__(self) -> str:
        return f"archive:{self.path.absolute()}"

    async def prepare(self, tx: Transaction, selection: Selection) -> None:
        """Verify the file and lay its messages out. Raises what `verify_archive` raises.

        It is read once: what was laid out is read by nobody before its end was verified too.
        """
        held(self.path, self.ring, expected=Content.ARCHIVE)
        await placing.keep_entries(tx, [])
        await store.begin(tx)
        arriving, laid = messages(self.path, self.ring, log_keys=self.log_keys), 0
        while some := await off_the_loop(_next, arriving, rows=_BATCH):
            await placing.keep_entries(
                tx, [(self._recorded(each), str(each.attributes.id)) for each in some]
            )
            await store.lay_out(tx, [(m.attributes.id, m.envelope, m.salt, m.body) for m in some])
            laid += len(some)
            if self.reading is not None:
                self.reading(laid)

    async def batches(
        self, tx: Transaction, selection: Selection, *, after: Cursor | None, batch_max: int
    ) -> AsyncGenerator[Batch, None]:
        """Yield messages with the bytes that the file has of them."""
        async for placed, cursor in placing.recorded(
            tx, selection, after=after, batch_max=batch_max, entries=True
        ):
            laid = await store.laid_out(tx, [each.message.message_id for each in placed])
            yield Batch([_sourced(each, laid) for each in placed], cursor)

    def _recorded(self, moved: Moved) -> Recorded:
        attributes = moved.attributes
        ours = attributes.sender == self.ring.agency
        return Recorded(
            message_id=attributes.id,
            direction=Direction.SENT if ours else Direction.RECEIVED,
            kind=attributes.kind,
            notice_id=attributes.subject,
            revision=attributes.revision,
            stream=attributes.stream,
            generation=attributes.generation,
            sequence=attributes.sequence,
            envelope_hash=moved.envelope_hash,
            at=attributes.time,
        )


def _next(arriving: Iterator[Moved]) -> list[Moved]:
    return list(islice(arriving, _BATCH))


def _sourced(placed: Placed, laid: dict[object, tuple[bytes, bytes, bytes]]) -> Sourced:
    envelope, salt, body = laid.get(placed.message.message_id, (None, None, None))
    cause = None
    if placed.state is None:
        cause = "NB-6035"
    elif placed.state in NOT_TAKEN:
        cause = "NB-6034"
    elif envelope is None:
        cause = "NB-6021"
    return Sourced(message=placed.message, envelope=envelope, salt=salt, body=body, cause=cause)
