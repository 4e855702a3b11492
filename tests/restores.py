"""A disaster and what comes after it: backup, lost database, restore, adoption, for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg

from services.backup import seen
from services.backup.adopting import Adopted, adopt
from services.backup.archive import archive
from services.backup.archive_file import Verified
from services.backup.restoring import restore
from services.backup.snapshot import Backup, back_up
from services.exchange.agency import Agency, open_agency
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import obligations
from services.ice.effects import IceEffects
from services.ledger.store import Store
from tests.agencies import Pair, running, trust, two_agencies, until, value
from tests.notices_made import findings, recently

REASON = "the disk failed"


async def a_backup(agency: Agency, folder: Path) -> Backup:
    """Back an agency up into a folder."""
    return await back_up(agency.store, agency.ring, folder, actor="tester")


def an_empty_database(url: str) -> str:
    """Drop every table of a database: the disaster, and the empty one to restore into."""
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


@dataclass
class Drill:
    """Two agencies of which `lost` loses its database and comes back from a backup."""

    pair: Pair
    lost: str
    folder: Path

    @property
    def ours(self) -> Agency:
        """The agency that loses its database."""
        return self.pair.ice if self.lost == "ice" else self.pair.hhs

    @property
    def peer(self) -> Agency:
        """The agency that does not."""
        return self.pair.hhs if self.lost == "ice" else self.pair.ice

    @property
    def url(self) -> str:
        return self.ours.settings.database_url_required

    async def disaster(self, backup: Backup) -> None:
        """Lose the database and restore the backup into an empty one."""
        await self.ours.store.close()
        an_empty_database(self.url)
        await asyncio.to_thread(restore, self.url, self.ours.ring, backup.path)

    async def told(self, since: datetime | None) -> Path:
        """Let the peer write what it has seen."""
        path = self.folder / "seen"
        await seen.tell(self.peer, path, since=since, actor="tester")
        return path

    async def adopted(self, file: Path | None) -> Adopted:
        """Adopt the restored store."""
        async with await Store.open(self.url) as store:
            return await adopt(store, self.ours.settings, file=file, actor="tester", reason=REASON)

    @asynccontextmanager
    async def again(self) -> AsyncIterator[Pair]:
        """Open the adopted agency, trusted by its peer."""
        async with open_agency(self.ours.settings) as agency:
            await trust(self.peer, agency)
            if self.lost == "ice":
                yield replace(self.pair, ice=agency)
            else:
                yield replace(self.pair, hhs=agency)


async def count(agency: Agency, query: str, *arguments: object) -> int:
    """Return the number that a query counts."""
    found = await value(agency, query, *arguments)
    assert isinstance(found, int)
    return found


Database = Callable[[str], str]


OWED = (
    "SELECT (SELECT count(*) FROM sent WHERE answer IS NULL) + (SELECT count(*) FROM outbox)"
    " + (SELECT count(*) FROM gap) + (SELECT count(*) FROM republish)"
    " + (SELECT count(*) FROM unsealed)"
)


async def at_rest(pair: Pair) -> bool:
    return not (await count(pair.ice, OWED) or await count(pair.hhs, OWED))


async def send(pair: Pair, number: int, release: str) -> None:
    """Import a docket of that many hearings; those of an earlier release are known."""
    await obligations.open_findings(
        pair.ice.store,
        findings(number, on=recently(), source_release=release),
        release=release,
        actor="x",
    )


@asynccontextmanager
async def closed_and_open(home: Path, database: Database, redis_url: str) -> AsyncIterator[Pair]:
    """Four notices at rest, of which one is closed and one is taken."""
    async with two_agencies(home, database, redis_url) as pair:
        async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
            await send(pair, 4, "first")
            await until(lambda: at_rest(pair), "the notices")
            first, second, *_ = await queue.listed(pair.hhs.store)
            for item in (first, second):
                await queue.take(pair.hhs.store, item.notice_id, actor="clerk")
            await queue.outcome(pair.hhs.store, first.notice_id, code="SAFE_MOVED", actor="clerk")
            await until(lambda: at_rest(pair), "the outcome")
        yield pair


async def archived(
    agency: Agency, folder: Path, *, before: datetime | None = None
) -> Verified | None:
    """Archive what is closed and was quiet since `before`, by default all that is closed."""
    return await archive(
        agency.store,
        agency.ring,
        folder,
        before=before or datetime.now(UTC) + timedelta(minutes=1),
        actor="tester",
        reason=REASON,
    )


async def closed(pair: Pair) -> UUID:
    """Return the notice that is closed."""
    found = await value(pair.hhs, "SELECT notice_id FROM case_file WHERE state = 'closed'")
    assert isinstance(found, UUID)
    return found
