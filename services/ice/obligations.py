"""Open an obligation for each missed hearing, once for life, and send what can be sent at once.

The natural key of a hearing (A-number, base city, local date) decides whether it is known, from
whichever release or by hand; the court's keys attach to it. A batch is one transaction: obligation,
revision, payload, outbox row and ledger record stand or fall together, so an interrupted import
goes on where it stopped and a second one changes nothing. What a person has to decide is asked,
never done. A finding that spoils its batch is found and rejected, and the others are written.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from schemas.codes import Treatment
from schemas.envelope import Lane
from schemas.errors import EvidenceError, NoticeBusError, UnavailableError
from services.ice import reversals
from services.ice.attaching import attach
from services.ice.docket.findings import Finding, TakenBack
from services.ice.docket.rejects import Reject
from services.ice.importing import LIVE_DAYS, Importing, Opened, reject_of
from services.ice.opening import Opening
from services.ice.store import obligations as store
from services.ice.store.obligations import HearingKey, KnownHearing
from services.ledger.store import Store, Transaction

__all__ = ["KnownHearing", "Opened", "known_hearings", "open_findings"]

log = structlog.get_logger()

# Findings a transaction, and transactions at once: while one is written the next is composed.
_BATCH = 500
_WRITERS = 2
# What no finding is to blame for: it stops the import, which goes on from there when run again.
_OUTAGES = (UnavailableError, EvidenceError, MemoryError, OSError)


def _ignore(reject: Reject) -> None:
    """Leave a reject to the count."""


async def open_findings(
    database: Store,
    findings: Iterable[Finding | TakenBack],
    *,
    release: str,
    actor: str,
    since: datetime | None = None,
    lane: Lane | None = None,
    live_days: int = LIVE_DAYS,
    refuse: Callable[[Reject], None] = _ignore,
    progress: Callable[[Opened], None] | None = None,
) -> Opened:
    """Open what is new among `findings`, and mark for a person what the docket took back.

    `since` is when the release was first read (default: now), and what was said later it does not
    take back. `lane` forces a lane; else a hearing of the last `live_days` goes live and an older
    one is backlog. `refuse` is told of what could not be written, each with its row; one that is
    tried twice is told twice. `progress` is called with the sum so far after each committed batch.
    Raises `UnavailableError` when the store goes away: what was committed stands, and the same call
    goes on from there.
    """
    now = datetime.now(UTC)
    importing = Importing(
        release=release,
        actor=actor,
        now=now,
        since=since or now,
        refuse=refuse,
        lane=lane,
        live_days=live_days,
    )
    batches = _batches(iter(findings))
    total = Opened()

    async def write() -> None:
        nonlocal total
        for batch in batches:
            # In this order: the sum is read after the wait, when the other writer has added to it.
            done = await _open_batch(database, batch, importing)
            total = total.plus(done)
            if progress is not None:
                progress(total)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_WRITERS):
                group.create_task(write())
    except* NoticeBusError as errors:
        raise errors.exceptions[0] from None
    log.info("findings opened", release=release, recorded=total.recorded, already=total.already)
    return total


async def known_hearings(database: Store, *, page: int = 5_000) -> list[KnownHearing]:
    """Return every hearing whose notice stands or waits, for comparison with a later release."""
    hearings: list[KnownHearing] = []
    while True:
        after = hearings[-1].notice_id if hearings else None
        async with database.transaction() as tx:
            more = await store.hearings(tx, after=after, limit=page)
        hearings += more
        if len(more) < page:
            return hearings


def _batches(findings: Iterator[Finding | TakenBack]) -> Iterator[list[Finding | TakenBack]]:
    """Cut findings into batches; a child's neighbouring findings stay in one."""
    last: Finding | TakenBack | None = None
    batch: list[Finding | TakenBack] = []
    for item in findings:
        if len(batch) >= _BATCH and (last is None or item.a_number != last.a_number):
            yield batch
            batch = []
        batch.append(item)
        last = item
    if batch:
        yield batch


async def _open_batch(
    database: Store, batch: Sequence[Finding | TakenBack], importing: Importing
) -> Opened:
    """Write one batch, in as few transactions as can be: what spoils one is left out."""
    try:
        return await _write_batch(database, batch, importing)
    except Exception as error:
        if isinstance(error, _OUTAGES) or not store.may_be_of_a_row(error):
            raise
        if len(batch) == 1:
            importing.refuse(reject_of(batch[0], error))
            return Opened(refused=1)
    middle = len(batch) // 2
    opened = await _open_batch(database, batch[:middle], importing)
    return opened.plus(await _open_batch(database, batch[middle:], importing))


async def _write_batch(
    database: Store, batch: Sequence[Finding | TakenBack], importing: Importing
) -> Opened:
    """Write one batch in one transaction."""
    taken_back = [item for item in batch if isinstance(item, TakenBack)]
    rounds = _one_of_each_hearing([item for item in batch if isinstance(item, Finding)])
    opened = Opened()
    async with database.transaction() as tx:
        for hearings in rounds:
            opened = opened.plus(await _meet(tx, hearings, importing))
        if taken_back:
            opened = opened.plus(await _ask_about(tx, taken_back, importing))
    return opened


def _one_of_each_hearing(findings: Sequence[Finding]) -> list[dict[HearingKey, Finding]]:
    """Return findings in rounds with each hearing once; a release has no second one of any."""
    rounds: list[dict[HearingKey, Finding]] = []
    for finding in findings:
        free = next((hearings for hearings in rounds if _key(finding) not in hearings), None)
        if free is None:
            rounds.append({_key(finding): finding})
        else:
            free[_key(finding)] = finding
    return rounds


async def _meet(
    tx: Transaction, hearings: dict[HearingKey, Finding], importing: Importing
) -> Opened:
    """Open what is new, and bring to what is known what the finding adds."""
    known = await store.known(tx, list(hearings))
    new = [key for key in hearings if key not in known]
    prior = await store.missed_before(tx, new) if new else {}
    sent = Counter(a_number for (a_number, _, _) in new)
    opening = Opening(importing=importing)
    for key in new:
        # Nearly every child is there once: only the others are worth comparing with each other.
        beside = _missed_beside(key, hearings, new) if sent[key[0]] > 1 else 0
        opening.compose(key, hearings[key], prior_missed=prior.get(key, 0) + beside)
    lost = await opening.write(tx)
    if lost:
        # Another import or a hand was faster: those hearings are known now.
        known.update(await store.known(tx, lost))
    attached = await attach(tx, [(hearings[key], row) for key, row in known.items()], importing)
    return opening.counted().plus(attached)


def _missed_beside(
    key: HearingKey, hearings: Mapping[HearingKey, Finding], new: Sequence[HearingKey]
) -> int:
    """Return how many earlier hearings of the same child are opened along with this one."""
    return sum(
        other[0] == key[0] and other[2] < key[2] and hearings[other].decision is Treatment.SEND
        for other in new
    )


def _key(item: Finding | TakenBack) -> HearingKey:
    return item.a_number, item.base_city, item.hearing_on


async def _ask_about(
    tx: Transaction, taken_back: Sequence[TakenBack], importing: Importing
) -> Opened:
    """Ask a person about hearings that a later release takes back; nothing is sent by itself."""
    by_key = {_key(item): item for item in taken_back}
    known = await store.known(tx, list(by_key))
    held = await store.lock(tx, [row.notice_id for row in known.values()])
    turned = await store.turned(tx, list(held))
    found = [
        reversals.taken_back(
            row,
            by_key[row.a_number, row.base_city, row.hearing_on].code,
            turned=turned.get(row.notice_id),
            since=importing.since,
        )
        for row in held.values()
    ]
    return await reversals.write(tx, [each for each in found if each is not None], importing)
