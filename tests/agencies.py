"""Two agencies that trust each other, on real databases and a real bus, for tests."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from uuid_utils.compat import uuid7

from schemas.canonical import canonical
from schemas.envelope import Kind, Lane
from schemas.party import fingerprint
from services.bus import Publisher
from services.exchange import outbox, parties
from services.exchange.agency import Agency, open_agency
from services.exchange.effects import Answered, Effects, Taken
from services.exchange.outbox import Draft
from services.exchange.process import PARTS, Process
from services.hhs.casework import CaseWork
from services.keys import KeyRing
from services.ledger.records import make_record
from services.ledger.store import Transaction, append
from services.settings import Settings, load
from services.telemetry import configure

CORPUS = Path(__file__).parent / "vectors" / "corpus"
WAIT_SECONDS = 30.0


@dataclass
class Noted:
    """Effects that keep what they were given, in memory, once the transaction lets them."""

    taken: list[Taken] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    fail: Callable[[Taken], Exception | None] = lambda _: None

    async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
        for message in messages:
            if (error := self.fail(message)) is not None:
                raise error
        self.taken += messages

    async def answered(self, tx: Transaction, answers: Sequence[Answered]) -> None:
        self.answers += answers


@dataclass
class Worked(Noted):
    """Effects of HHS that keep what they were given, too."""

    async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
        await CaseWork().apply(tx, messages)
        await super().apply(tx, messages)


@dataclass
class Pair:
    """ICE and HHS, each with what its effects noted."""

    ice: Agency
    hhs: Agency
    redis_url: str
    ice_noted: Noted = field(default_factory=Noted)
    hhs_noted: Noted = field(default_factory=Noted)

    @asynccontextmanager
    async def running(
        self, *, ice: Collection[str] = PARTS, hhs: Collection[str] = PARTS
    ) -> AsyncIterator[None]:
        """Run both sides' parts while the block runs."""
        async with (
            running(self.ice, self.ice_noted, ice),
            running(self.hhs, self.hhs_noted, hhs),
        ):
            yield


@asynccontextmanager
async def running(
    agency: Agency, effects: Effects, only: Collection[str] = PARTS
) -> AsyncIterator[Process]:
    """Run one agency's parts in this event loop."""
    stop = asyncio.Event()
    url, bus = agency.settings.redis_url_required, agency.settings.bus
    async with Publisher.open(url, settings=bus) as publisher:
        process = Process(agency, effects, publisher)
        task = asyncio.create_task(process.run(stop, only))
        try:
            yield process
        finally:
            stop.set()
            await task


def settings_of(
    agency: str, home: Path, *, database_url: str, redis_url: str, **changes: object
) -> Settings:
    """Return settings that are quick to notice what is late."""
    quick = {
        "database_url": database_url,
        "redis_url": redis_url,
        "relay": {"poll_seconds": 0.5, "answer_seconds": 2, "republish_after_seconds": 1},
        "delivery": {
            "backoff_seconds_min": 0.05,
            "backoff_seconds_max": 0.2,
            "gap_ask_seconds": 0.5,
        },
        "sealer": {"interval_seconds": 0.2},
        "bus": {"claim_idle_seconds": 1.0, "outage_backoff_seconds_max": 0.5},
    }
    settings = load(agency, home=home)
    given = settings.model_dump(exclude_defaults=True) | {"agency": agency, "home": home}
    return Settings(**(given | quick | changes))


@asynccontextmanager
async def two_agencies(
    home: Path, database: Callable[[str], str], redis_url: str, **changes: object
) -> AsyncIterator[Pair]:
    """Open both agencies, with keys of their own and each other's party file trusted."""
    for name in ("ice", "hhs"):
        settings = load(name, home=home)
        KeyRing.generate(settings.keys_folder, settings.domain, name)
    urls = {name: database(name) for name in ("ice", "hhs")}
    async with opened_again(home, urls, redis_url, **changes) as pair:
        await trust(pair.ice, pair.hhs)
        await trust(pair.hhs, pair.ice)
        yield pair


@asynccontextmanager
async def opened_again(
    home: Path, urls: Mapping[str, str], redis_url: str, **changes: object
) -> AsyncIterator[Pair]:
    """Open two agencies on the keys and databases that they have."""
    configure(agency="test", process="test", level="WARNING")
    everyone = {
        name: settings_of(name, home, database_url=url, redis_url=redis_url, **changes)
        for name, url in urls.items()
    }
    async with open_agency(everyone["ice"]) as ice, open_agency(everyone["hhs"]) as hhs:
        yield Pair(ice, hhs, redis_url)


async def trust(agency: Agency, peer: Agency) -> None:
    """Let `agency` trust the current party file of `peer`."""
    async with peer.store.transaction() as tx:
        file = next(row.party for row in await parties.listed(tx) if row.agency == peer.name)
    async with agency.store.transaction() as tx:
        await parties.trust(
            tx, file, peer=peer.name, expected_fingerprint=fingerprint(file), actor="tester"
        )
    await agency.reload()


def a_notice(notice_id: UUID | None = None, *, revision: int = 1, lane: Lane = Lane.LIVE) -> Draft:
    """Return a draft of an invented notice, NEW or a later status update."""
    body = json.loads((CORPUS / "fta.v1.0.json").read_bytes())
    body["notice_id"] = str(notice_id or uuid7())
    body["revision"] = revision
    message_id = uuid7()
    for name in ("supersedes", "reason_code"):
        body.pop(name, None)
    body["notice_kind"] = "NEW"
    if revision > 1:
        body |= {
            "notice_kind": "STATUS_UPDATE",
            "reason_code": "KEYS_ATTACHED",
            "supersedes": str(uuid7()),
        }
    return Draft(
        message_id=message_id,
        kind=Kind.FTA,
        lane=lane,
        notice_id=UUID(body["notice_id"]),
        revision=revision,
        body=canonical(body),
        salt=os.urandom(32),
        correlation_id=UUID(body["notice_id"]),
        made_at=datetime.now(UTC),
    )


async def accept(agency: Agency, *drafts: Draft) -> None:
    """Accept drafts as an agency does: outbox and record in one transaction."""
    async with agency.store.transaction() as tx:
        await outbox.accept(tx, drafts)
        await append(
            tx,
            [
                make_record(
                    "notice.recorded",
                    time=draft.made_at,
                    notice_id=draft.notice_id,
                    message_id=draft.message_id,
                    commitment=draft.commitment,
                )
                for draft in drafts
            ],
        )


async def value(agency: Agency, query: str, *arguments: object) -> object:
    """Return the first column of the first row of a query."""
    async with agency.store.transaction() as tx:
        row = await (await tx.execute(query, arguments)).fetchone()
    return None if row is None else row[0]


async def until(
    condition: Callable[[], Awaitable[object]], what: str, *, seconds: float = WAIT_SECONDS
) -> None:
    """Wait until a condition holds; fails with `what` when it does not in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"did not come: {what}"
        await asyncio.sleep(0.02)


async def answered(agency: Agency, drafts: Sequence[Draft]) -> bool:
    """Say whether every one of these messages has its verified receipt."""
    count = await value(
        agency,
        "SELECT count(*) FROM sent WHERE message_id = ANY(%s) AND answer = 'receipt'",
        [draft.message_id for draft in drafts],
    )
    return count == len(drafts)
