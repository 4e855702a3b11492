"""Verify contents: hold what is kept of every message against its signature and its record.

Bytes, contents, columns and answers stand beside the ledger, and the tree says nothing of them; the
records do, and so do the signatures. Each message that was sent or taken is read once, in the order
of its stream: its bytes verify under a trusted key and hash to what its record names, its columns
say what the bytes say, its content is what was committed to (or erased, which is counted), and
an answer proves what it is taken for. A checkpoint of ours that a message showed is still there,
and so is every message that was given a sequence. The first difference is returned with its place.

Costs one ES256 a message, and a read of everything; memory does not grow with the ledger. Of many
messages a second process reads those that were sent, on the same snapshot.
"""

import asyncio
from dataclasses import dataclass

from schemas.errors import EvidenceError
from services.exchange.beside import asked_of, beside, tell
from services.exchange.contents.walk import Disowned, Walk
from services.exchange.store import contents as store
from services.ledger.store import Store, audit
from services.ledger.verify import Progress

__all__ = ["Contents", "Disowned", "verify_contents"]

# What is counted wherever it is read; nothing is weighed where two processes read.
_COUNTED = ("messages", "answers", "erased", "archived")


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


async def verify_contents(
    store_: Store, *, apart_from: int | None = None, progress: Progress | None = None
) -> Contents:
    """Hold everything that is kept of messages against records and signatures.

    From `apart_from` messages on a second process reads half of them, unless archives are read
    along or a key was revoked. `progress` is called with messages done and messages in all. Raises
    `UnavailableError` when the store is away; a difference is returned, not raised.
    """
    async with store_.transaction(seconds=audit.WHOLE_LEDGER_SECONDS) as tx:
        await audit.hold_still(tx)
        walk = Walk(tx=tx, progress=progress)
        difference: EvidenceError | None = None
        try:
            await walk.begin()
            apart = apart_from is not None and walk.total >= apart_from and not walk.revoked
            address = store_.address if apart else None
            if address is None:
                await walk.read(*store.PLACES)
            else:
                await _read_with_another(walk, address)
            await walk.finish()
        except EvidenceError as error:
            difference = error
    return Contents(
        messages=walk.messages,
        answers=walk.answers,
        erased=walk.erased,
        archived=walk.archived,
        not_evidence=walk.not_evidence,
        disputed=tuple(walk.disputed.values()),
        difference=difference,
    )


async def _read_with_another(walk: Walk, address: str) -> None:
    """Read what was taken, while another process reads what was sent."""
    snapshot = await audit.share_still(walk.tx)
    taken, sent = store.PLACES
    asked = {"address": address, "snapshot": snapshot, "place": sent}
    async with beside(f"{__name__}:{read_place.__name__}", asked) as other:
        walk.other = other
        finding = asyncio.create_task(other.found(seconds=audit.WHOLE_LEDGER_SECONDS))
        try:
            await walk.read(taken)
            found = await finding
        finally:
            finding.cancel()
            walk.other = None
    if found is None:
        await walk.read(sent)
        return
    for name in _COUNTED:
        setattr(walk, name, getattr(walk, name) + found[name])
    if found["code"] is not None:
        raise EvidenceError(found["code"], **found["where"])


def read_place() -> None:
    """Read what this process is asked for by `verify_contents` in another one."""
    asyncio.run(_read_place(**asked_of()))


async def _read_place(address: str, snapshot: str, place: str) -> None:
    async with (
        await Store.open(address, pool_max=1) as store_,
        store_.transaction(seconds=audit.WHOLE_LEDGER_SECONDS) as tx,
    ):
        await audit.hold_still(tx, snapshot=snapshot)
        walk = Walk(tx=tx, progress=lambda done, _: tell(done))
        difference: EvidenceError | None = None
        try:
            await walk.begin()
            await walk.read(place)
        except EvidenceError as error:
            difference = error
    where = {} if difference is None else difference.where
    tell(
        {
            **{name: getattr(walk, name) for name in _COUNTED},
            "code": None if difference is None else difference.code,
            "where": {
                name: value if isinstance(value, int) else str(value)
                for name, value in where.items()
            },
        }
    )
