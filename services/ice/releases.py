"""Take a docket release in: its findings become obligations, what cannot be used becomes rejects.

The same release again changes nothing, an interrupted one goes on, and a later one may take back
what an earlier one said: then a person is asked. Beginning, end and counts are on record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import structlog

from schemas.envelope import Lane
from services.ice.docket.rejects import kept_at, write_rejects
from services.ice.docket.scan import Docket
from services.ice.importing import LIVE_DAYS, Opened
from services.ice.obligations import known_hearings, open_findings
from services.ice.store import releases as store
from services.ledger.records import make_record
from services.ledger.store import Store, append

log = structlog.get_logger()

DIGEST_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of a release; `rejected` lines stand in the file `rejects`."""

    release: str
    digest: str
    rows: dict[str, int]
    opened: Opened
    rejected: int
    rejects: Path


async def take_in(
    database: Store,
    docket: Docket,
    *,
    rejects: Path,
    actor: str,
    lane: Lane | None = None,
    live_days: int = LIVE_DAYS,
    progress: Callable[[Opened], None] | None = None,
) -> Imported:
    """Open what an open docket finds, and write what it rejects to the file `rejects`.

    A name that stood for other files before gets the beginning of its digest added, so that each
    notice names the very release it rests on. Raises `UnavailableError` when the store goes away;
    what was committed stands, and the same call goes on from there. The file `rejects` is written
    however this ends, then with what was found so far.
    """
    with kept_at(rejects, docket.rejects):
        async with database.transaction() as tx:
            before = await store.digest_of(tx, docket.release)
            if before not in (None, docket.digest):
                docket.release = f"{docket.release}@{docket.digest[:DIGEST_SHOWN]}"
            since = await store.begin(tx, docket.release, docket.digest, datetime.now(UTC))
        known = await known_hearings(database)
        opened = await open_findings(
            database,
            chain(docket.findings(), docket.taken_back(known)),
            release=docket.release,
            actor=actor,
            since=since,
            lane=lane,
            live_days=live_days,
            refuse=docket.rejects.add,
            progress=progress,
        )
    rejected = write_rejects(rejects, docket.rejects)
    imported = Imported(
        release=docket.release,
        digest=docket.digest,
        rows=dict(docket.rows),
        opened=opened,
        rejected=rejected,
        rejects=rejects,
    )
    await _finish(database, imported, actor=actor)
    return imported


async def _finish(database: Store, imported: Imported, *, actor: str) -> None:
    now = datetime.now(UTC)
    counts: dict[str, int | str] = {
        "recorded": imported.opened.recorded,
        "to_confirm": imported.opened.to_confirm,
        "already": imported.opened.already,
        "updated": imported.opened.updated,
        "withdrawals": imported.opened.withdrawals,
        "rejected": imported.rejected,
    }
    async with database.transaction() as tx:
        await store.finish(tx, imported.release, {**counts, "rows": imported.rows}, now)
        record = make_record(
            "docket.imported",
            time=now,
            actor=actor,
            detail={
                **counts,
                "rows": sum(imported.rows.values()),
                "digest": imported.digest,
            },
        )
        await append(tx, [record])
    log.info(
        "docket imported",
        release=imported.release,
        recorded=imported.opened.recorded,
        to_confirm=imported.opened.to_confirm,
        rejected=imported.rejected,
    )
