"""Verify contents: hold what is kept of every message against its signature and its record.

Bytes, contents, columns and answers stand beside the ledger, and the tree says nothing of them; the
records do, and so do the signatures. Each message that was sent or taken is read once, in the order
of its stream: its bytes verify under a trusted key and hash to what its record names, its columns
say what the bytes say, its content is what was committed to (or erased, which is counted), and
an answer proves what it is taken for. A checkpoint of ours that a message showed is still there,
and so is every message that was given a sequence. The first difference is returned with its place.

Costs one ES256 a message, and a read of everything; memory does not grow with the ledger. Messages
are read in shares, in their order. Of many messages a second process takes shares too, on the same
snapshot and from the moment that reading is opened: whoever opens it may do other work first.
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field

from schemas.errors import EvidenceError, UnavailableError
from services.exchange.beside import Beside, answer, beside, questions
from services.exchange.contents.walk import Counts, Disowned, Walk
from services.exchange.store import contents as store
from services.exchange.store.contents import Share
from services.garbage import collect_seldom
from services.ledger.store import Store, audit
from services.ledger.verify import Progress

__all__ = ["Contents", "Disowned", "Reading", "reading", "verify_contents"]

# The other process never waits for its next share.
ASKED_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What was read, and the first difference, None if there is none.

    `erased` counts messages whose content is gone by retention, `archived` those whose bytes moved
    to an archive; both are allowed. `not_evidence` counts messages (control aside) whose key was
    revoked and that no checkpoint covers which the other agency had cosigned before: their
    signatures prove nothing. `disputed` are those of the other agency that it would take back,
    and whose records it had cosigned itself before we learned of that.
    """

    messages: int
    answers: int
    erased: int
    archived: int
    not_evidence: int
    disputed: tuple[Disowned, ...]
    difference: EvidenceError | None


@dataclass(slots=True, kw_only=True)
class Reading:
    """Messages that are being read, share by share, here and perhaps in another process.

    `differences` are by the number of the share; shares after the first one are not begun.
    """

    walk: Walk
    total: int = 0
    # Of the share that is under way in the other process.
    beside: int = 0
    shares: deque[tuple[int, Share]] = field(default_factory=deque)
    differences: dict[int, EvidenceError] = field(default_factory=dict)
    helping: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Find out what there is to read."""
        try:
            await self.walk.begin()
        except EvidenceError as error:
            self.differences[-1] = error
            return
        shares = await store.shares(self.walk.tx)
        self.total = sum(share.messages for share in shares)
        self.shares.extend(enumerate(shares))

    async def finish(self, progress: Progress | None = None) -> Contents:
        """Read all that nobody has begun, and wait for the rest."""
        walk = self.walk
        if progress is not None:
            walk.progress = lambda done: progress(done + self.beside, self.total)
        while (next_ := self._next()) is not None or self.helping is not None:
            if next_ is None:
                await self._helped()
                continue
            number, share = next_
            try:
                await walk.read(share)
            except EvidenceError as error:
                self.differences[number] = error
        if progress is not None:
            progress(walk.counts.messages, self.total)
        if not self.differences:
            try:
                await self._hold_to_receipts()
                await walk.finish()
            except EvidenceError as error:
                self.differences[sys.maxsize] = error
        return Contents(
            messages=walk.counts.messages,
            answers=walk.counts.answers,
            erased=walk.counts.erased,
            archived=walk.counts.archived,
            not_evidence=walk.not_evidence,
            disputed=tuple(walk.disputed.values()),
            difference=self.differences[min(self.differences)] if self.differences else None,
        )

    async def read_beside(self, other: Beside) -> None:
        """Let another process read shares until none is left; what it does not is put back."""
        asked: deque[tuple[int, Share]] = deque()
        while True:
            while len(asked) < ASKED_AHEAD and (next_ := self._next()) is not None:
                await other.ask(asdict(next_[1]))
                asked.append(next_)
            if not asked:
                return
            found = await other.answer(seconds=audit.WHOLE_LEDGER_SECONDS)
            if found is None:
                self.shares.extendleft(reversed(asked))
                return
            counts = Counts(**found["counts"])
            self.beside = counts.messages if found["more"] else 0
            if found["more"]:
                continue
            number, _ = asked.popleft()
            self.walk.counts.add(counts)
            if found["code"] is not None:
                self.differences[number] = EvidenceError(found["code"], **found["where"])

    async def _hold_to_receipts(self) -> None:
        """Raise `EvidenceError` for the first receipt that is noted and that nothing proves."""
        walk = self.walk
        if walk.counts.receipts == await store.receipted(walk.tx):
            return
        again = Walk(tx=walk.tx, each_answer=True)
        await again.begin()
        for share in await store.shares(walk.tx):
            if share.place == "sent":
                await again.read(share)

    def _next(self) -> tuple[int, Share] | None:
        """Take the next share that may still hold the first difference."""
        if not self.shares or (self.differences and min(self.differences) < self.shares[0][0]):
            return None
        return self.shares.popleft()

    async def _helped(self) -> None:
        assert self.helping is not None, "it is asked for once"
        helping, self.helping = self.helping, None
        await helping


@asynccontextmanager
async def reading(store_: Store, *, apart_from: int | None = None) -> AsyncIterator[Reading]:
    """Begin to read everything that is kept of messages, as it stands now.

    From `apart_from` messages on a second process begins at once, unless archives are read along or
    a key was revoked. Raises `UnavailableError` when the store is away.
    """
    async with store_.transaction(seconds=audit.WHOLE_LEDGER_SECONDS) as tx:
        await audit.hold_still(tx)
        read = Reading(walk=Walk(tx=tx))
        await read.begin()
        apart = apart_from is not None and read.total >= apart_from and not read.differences
        address = store_.address if apart and not read.walk.revoked else None
        if address is None:
            yield read
            return
        snapshot = await audit.share_still(tx)
        async with beside(f"{__name__}:{read_shares.__name__}") as other:
            # An address may hold a password: it is not among the arguments, which all can see.
            await other.ask({"address": address, "snapshot": snapshot})
            helping = read.helping = asyncio.create_task(read.read_beside(other))
            try:
                yield read
            finally:
                helping.cancel()
                with suppress(asyncio.CancelledError):
                    await helping


async def verify_contents(
    store_: Store, *, apart_from: int | None = None, progress: Progress | None = None
) -> Contents:
    """Hold everything that is kept of messages against records and signatures.

    `apart_from` is that of `reading`; `progress` is called with messages done and messages in all.
    Raises `UnavailableError` when the store is away; a difference is returned, not raised.
    """
    async with reading(store_, apart_from=apart_from) as read:
        return await read.finish(progress)


def read_shares() -> None:
    """Read the shares that `reading` in another process asks for."""
    try:
        asyncio.run(_read_shares())
    except UnavailableError as error:
        # Whoever asked reads the rest, or learns the same.
        raise SystemExit(1) from error


async def _read_shares() -> None:
    asked = questions()
    where = next(asked)
    async with (
        await Store.open(where["address"], pool_max=1) as store_,
        store_.transaction(seconds=audit.WHOLE_LEDGER_SECONDS) as tx,
    ):
        await audit.hold_still(tx, snapshot=where["snapshot"])
        walk = Walk(tx=tx)
        walk.progress = lambda _: answer({"counts": asdict(walk.counts), "more": True})
        await walk.begin()
        collect_seldom()
        for share in asked:
            difference: EvidenceError | None = None
            walk.counts = Counts()
            try:
                await walk.read(Share(**share))
            except EvidenceError as error:
                difference = error
            answer(
                {
                    "counts": asdict(walk.counts),
                    "more": False,
                    "code": None if difference is None else difference.code,
                    "where": {} if difference is None else _plain(difference),
                }
            )


def _plain(difference: EvidenceError) -> dict[str, int | str]:
    return {
        name: value if isinstance(value, int) else str(value)
        for name, value in difference.where.items()
    }
