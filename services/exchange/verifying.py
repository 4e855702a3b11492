"""Verify a ledger with all that stands beside it in the store, and with its anchor outside.

The tree and its checkpoints, times against cosignatures, what rests on checkpoints, the anchor, and
what is gone by erasure or into archives. Messages are `contents`' part. The first difference is
returned; a store that is away is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.checkpoint import Verifier
from schemas.errors import EvidenceError, NotFoundError
from services.exchange.anchors import own_anchor
from services.exchange.parties import own_log_keys
from services.exchange.resting import verify_resting
from services.exchange.witnessed import times_of
from services.ledger import anchor
from services.ledger.anchor import Found
from services.ledger.erasures import Gone, gone
from services.ledger.store import Store
from services.ledger.store.kept import FormerLog
from services.ledger.times import Times
from services.ledger.verify import Progress, Report, verify
from services.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found, and the first difference, None if there is none.

    `anchor` is None for a log that a restore ended, which has none; `gone` where it does not fit
    its records.
    """

    report: Report
    anchor: Found | None
    gone: Gone | None
    difference: EvidenceError | None


async def verify_log(
    database: Store,
    settings: Settings,
    *,
    log_keys: Sequence[Verifier] = (),
    also: Sequence[str] = (),
    origin: str | None = None,
    tree_only: bool = False,
    progress: Progress | None = None,
) -> Verified:
    """Verify the log that grows, or by its `origin` one that a restore ended.

    Without `log_keys` it is held to those that we published; `also`, `tree_only` and `progress` are
    those of `verify`. Raises `UnavailableError` when the store is away, or NB-3154 when the anchor
    cannot be read, `NotFoundError` NB-5051 for a log that is not here.
    """
    kept: Store | FormerLog = database if origin is None else await _former(database, origin)
    keys = log_keys or await own_log_keys(database, settings.agency)
    differences: list[EvidenceError] = []
    found: Found | None = None
    times: Times | None = None
    try:
        # Looked at first: whoever may not read it need not wait for all the rest.
        found = await _anchored(database, settings, keys) if origin is None else None
    except EvidenceError as error:
        differences.append(error)
    try:
        times = None if tree_only else await times_of(database, settings.agency, origin=origin)
    except EvidenceError as error:
        differences.append(error)
    report = await verify(
        kept, log_keys=keys, also=also, times=times, tree_only=tree_only, progress=progress
    )
    differences += [
        each
        for each in (
            await verify_resting(database, origin=origin),
            None if found is None else found.error(),
        )
        if each is not None
    ]
    away: Gone | None = None
    try:
        away = await gone(database)
    except EvidenceError as error:
        differences.append(error)
    # What the walk found says more exactly where it is.
    first = report.difference or next(iter(differences), None)
    return Verified(report=report, anchor=found, gone=away, difference=first)


async def _anchored(database: Store, settings: Settings, keys: Sequence[Verifier]) -> Found:
    async with database.transaction() as tx:
        file = await own_anchor(tx, settings)
        return await anchor.look(tx, file.under(*keys))


async def _former(database: Store, origin: str) -> FormerLog:
    former = FormerLog(database, origin)
    if await former.head() is None:
        raise NotFoundError("NB-5051", what="former log", value=origin)
    return former
