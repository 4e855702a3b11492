"""Verify what rests on our checkpoints: each thing that names one has it beside it.

A ledger that lost its end, or a checkpoint between others, is whole in itself. What was made from
the missing one still tells of it: cosignatures of the other agency and of a third witness, receipts
that went out, archives, the mark of the anchor, and for a log that a restore ended the record of
the adoption. The logs that ended are looked at like the one that grows.
"""

from contextlib import suppress

from schemas.canonical import b64
from schemas.errors import EvidenceError
from services.exchange.store import resting as store
from services.exchange.store.resting import Alone
from services.ledger.records import read_record
from services.ledger.store import Store, Transaction, audit


async def verify_resting(database: Store, *, origin: str | None = None) -> EvidenceError | None:
    """Return the first thing that rests on what is not there, None if all is there.

    NB-3240 to NB-3243 and NB-3246 name it. `origin` is one log of ours, else it is all of them.
    Raises `UnavailableError` when the store is away.
    """
    async with database.transaction(seconds=audit.WHOLE_LEDGER_SECONDS) as tx:
        await audit.hold_still(tx)
        found = await store.alone(tx, origin)
        return await _adoptions(tx, origin) if found is None else _missing(found)


def _missing(found: Alone) -> EvidenceError:
    """Return what is to be said of something whose checkpoint is missing."""
    where = {"size": found.size, "origin": found.origin}
    end = found.end or 0
    if found.size > end:
        whose = {
            "cosignature": f"{found.name} cosigned",
            "answer_batch": "receipts were given under",
            "archive": f"archive {found.name} holds",
            "anchored": "an anchor was written of",
        }
        return EvidenceError("NB-3242", whose=whose[found.what], end=end, **where)
    match found.what:
        case "cosignature":
            return EvidenceError("NB-3240", name=found.name, **where)
        case "answer_batch":
            return EvidenceError("NB-3241", index=found.first_index, **where)
        case _:
            what = "the anchor's mark" if found.what == "anchored" else f"archive {found.name}"
            return EvidenceError("NB-3243", what=what, **where)


async def _adoptions(tx: Transaction, origin: str | None) -> EvidenceError | None:
    """Hold the logs that restores ended to the records that say where they did."""
    kept = {each.origin: (each.size, b64(each.root)) for each in await store.ended(tx)}
    told: dict[str, tuple[int, str]] = {}
    for record in await store.adoptions(tx):
        # One that was changed tells of no log, and then its log is told by nothing.
        with suppress(EvidenceError, KeyError, TypeError):
            detail = read_record(record, index=0)["detail"]
            # A store that had sealed nothing left no log.
            if detail["size"]:
                told[detail["origin"]] = (detail["size"], detail["root"])
    for name in sorted(kept.keys() | told.keys()):
        if origin in (None, name) and kept.get(name) != told.get(name):
            size, _ = kept.get(name, (0, ""))
            said, _ = told.get(name, (0, ""))
            return EvidenceError("NB-3246", origin=name, said=said, size=size)
    return None
