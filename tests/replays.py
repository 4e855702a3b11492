"""Two agencies after some work, and how their stores stand, for tests of replay."""

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from schemas.canonical import canonical
from schemas.catalog import dataschema_of
from schemas.envelope import Attributes, Kind, Lane, seal
from services import replay
from services.bus import Entry
from services.exchange.agency import Agency
from services.exchange.outbox import Draft
from services.exchange.process import delivery_of
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import obligations
from services.ice.effects import IceEffects
from services.replay import Planned, Ran, Selection, Target
from tests.agencies import Pair, a_notice, accept, running, two_agencies, until, value
from tests.notices_made import findings, recently
from tests.saved import Fresh, Keeper, Saved

HELD = "SELECT count(*) FROM inbox WHERE state = 'held'"
# What a replay may write to; every other table must stay as it is, to the byte.
WRITTEN = {"case_file", "reply", "replay_plan", "record", "opening", "unsealed"}


@dataclass
class Way:
    """Both agencies after some work: what came of which notice, and how the stores stood."""

    pair: Pair
    corrected: UUID
    withdrawn: UUID
    overtaken: UUID
    taken: UUID
    closed: UUID
    before: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def hhs(self) -> Agency:
        return self.pair.hhs

    @property
    def ice(self) -> Agency:
        return self.pair.ice


@asynccontextmanager
async def a_way(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Way]:
    """Five notices: corrected, withdrawn, overtaken by its correction, taken, and closed."""
    async with two_agencies(home, database, redis_url) as pair:
        opened = findings(5, on=recently())
        await obligations.open_findings(pair.ice.store, opened, release="2026-11", actor="x")
        way = Way(
            pair, *[row["notice_id"] for row in await rows(pair.ice, "obligation", "a_number")]
        )
        overtaking = await later(pair.ice, way.overtaken, "CORRECTION", office="DAL")
        await hold_back(pair.ice, overtaking)
        async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
            await until(lambda: is_(pair.hhs, 1, HELD), "what waits for an earlier revision")
            await let_go(pair.ice)
            await until(lambda: is_(pair.hhs, 5, "SELECT count(*) FROM case_file"), "every case")
            await accept(
                pair.ice,
                await later(pair.ice, way.corrected, "CORRECTION", office="MIA", priority="URGENT"),
                await later(pair.ice, way.withdrawn, "WITHDRAWAL"),
            )
            for notice_id in (way.taken, way.closed):
                await queue.take(pair.hhs.store, notice_id, actor="clerk")
            await queue.outcome(pair.hhs.store, way.closed, code="SAFE_MOVED", actor="clerk")
            await until(lambda: settled(pair), "every answer and reply")
        way.before = {name: await snapshot(getattr(pair, name)) for name in ("ice", "hhs")}
        yield way


@dataclass
class SavedWays:
    """Goes the way of five notices once, and on from its end any number of times."""

    keeper: Keeper
    _saved: tuple[Saved, Way] | None = None

    @asynccontextmanager
    async def again(self, home: Path, redis_url: str) -> AsyncIterator[Way]:
        """Open a copy of where it ended."""

        async def live(home: Path, fresh: Fresh) -> Way:
            async with a_way(home, fresh, redis_url) as way:
                return way

        if self._saved is None:
            self._saved = await self.keeper.keep(live, redis_url)
        saved, way = self._saved
        async with self.keeper.copied(saved, home, redis_url) as pair:
            yield replace(way, pair=pair)


async def rows(agency: Agency, table: str, order: str) -> list[dict[str, Any]]:
    async with agency.store.transaction() as tx:
        cursor = await tx.execute(f"SELECT * FROM {table} ORDER BY {order}")  # noqa: S608 - constants
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def change(agency: Agency, statement: str, *values: object) -> None:
    async with agency.store.transaction() as tx:
        await tx.execute(statement, values)


async def erase(agency: Agency, notice_id: UUID, revision: int = 1) -> None:
    await change(
        agency,
        "UPDATE payload SET salt = NULL, body = NULL, erased_at = now() WHERE message_id IN"
        " (SELECT message_id FROM inbox WHERE notice_id = %s AND revision = %s)",
        notice_id,
        revision,
    )


async def snapshot(agency: Agency) -> list[dict[str, Any]]:
    """Return every row that a replay must leave as it was, or bring back to what it was."""
    async with agency.store.transaction() as tx:
        cursor = await tx.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace ORDER BY relname"
        )
        tables = [row[0] for row in await cursor.fetchall()]
        kept: list[dict[str, Any]] = []
        for table in tables:
            if table not in WRITTEN - {"case_file", "reply"}:
                found = await tx.execute(
                    f"SELECT to_jsonb(t) FROM {table} AS t ORDER BY t::text"  # noqa: S608 - of its own catalogue
                )
                kept += [{"table": table, **row[0]} for row in await found.fetchall()]
    return kept


async def actions(agency: Agency) -> list[str]:
    async with agency.store.transaction() as tx:
        cursor = await tx.execute(
            "SELECT action FROM record WHERE action LIKE 'replay.%%' ORDER BY record_id"
        )
        return [row[0] for row in await cursor.fetchall()]


async def last_record(agency: Agency) -> Any:
    said = await value(agency, "SELECT record FROM record ORDER BY record_id DESC LIMIT 1")
    assert isinstance(said, bytes)
    return json.loads(said)


async def is_(agency: Agency, expected: object, query: str) -> bool:
    return await value(agency, query) == expected


async def settled(pair: Pair) -> bool:
    """Say whether every message of both sides has its receipt and nothing is held."""
    owed = "SELECT count(*) FROM sent WHERE answer IS NULL OR answer = 'refusal'"
    return (
        await value(pair.ice, "SELECT count(*) FROM reply") == 3
        and await value(pair.hhs, "SELECT count(*) FROM inbox WHERE state = 'applied'") == 8
        and not await value(pair.ice, owed)
        and not await value(pair.hhs, owed)
        and not await value(pair.ice, "SELECT count(*) FROM outbox")
        and not await value(pair.hhs, "SELECT count(*) FROM outbox")
    )


async def later(
    ice: Agency, notice_id: UUID, kind: str, *, office: str | None = None, **changes: str
) -> Draft:
    """Return revision 2 of a notice, made from its first."""
    async with ice.store.transaction() as tx:
        cursor = await tx.execute(
            "SELECT r.message_id, p.body FROM notice_revision AS r"
            " JOIN payload AS p USING (message_id) WHERE r.notice_id = %s",
            [notice_id],
        )
        [(message_id, body)] = await cursor.fetchall()
    reason = "HEARING_VACATED" if kind == "WITHDRAWAL" else "DATA_ENTRY"
    said = json.loads(body) | changes | {"revision": 2, "notice_kind": kind}
    said |= {"supersedes": str(message_id), "reason_code": reason}
    if office is not None:
        said["aor_code"] = office
    return Draft(
        message_id=uuid7(),
        kind=Kind.FTA,
        lane=Lane.LIVE,
        notice_id=notice_id,
        revision=2,
        body=canonical(said),
        salt=os.urandom(32),
        correlation_id=notice_id,
        made_at=datetime.now(UTC),
    )


async def hold_back(ice: Agency, but: Draft) -> None:
    """Accept a message, and keep what was accepted before it from leaving."""
    await accept(ice, but)
    await change(
        ice, "UPDATE outbox SET stream = '-' || stream WHERE message_id <> %s", but.message_id
    )


async def let_go(ice: Agency) -> None:
    """Let what was held back leave."""
    await change(ice, "UPDATE outbox SET stream = ltrim(stream, '-')")


# Messages of which each step of `take` makes one transaction.
CHUNK = 420


async def take(ice: Agency, hhs: Agency, count: int) -> None:
    """Let HHS take so many new notices as delivery takes them, with no bus between."""
    delivery = delivery_of(hhs, CaseWork())
    for first in range(1, count + 1, CHUNK):
        upto = min(first + CHUNK, count + 1)
        await delivery.take([an_entry(ice, sequence) for sequence in range(first, upto)])


def an_entry(ice: Agency, sequence: int) -> Entry:
    """Return a new notice as it stands on its stream."""
    draft = a_notice()
    assert draft.notice_id is not None
    attributes = Attributes(
        id=draft.message_id,
        kind=Kind.FTA,
        version=1,
        source=ice.source,
        subject=draft.notice_id,
        time=draft.made_at,
        sequence=sequence,
        correlationid=draft.notice_id,
        recipient=ice.peer,
        lane=Lane.LIVE,
        partition=0,
        generation=1,
        revision=1,
        commitment=draft.commitment,
        dataschema=dataschema_of(Kind.FTA, 1),
    )
    jws = seal(
        attributes,
        data=draft.body,
        signing=ice.ring.signing,
        encrypt_to=ice.directory.encrypt_to,
        salt=draft.salt,
    )
    return Entry(attributes.stream, f"{sequence}-1", jws, 1)


async def follows_from_records(agency: Agency) -> Mapping[str, int]:
    """Check that every projection is what records and contents make of it; rows by table."""
    found = await replay.shadow(agency.store, agency.name)
    assert not found.differing, (agency.name, found.differences[:5])
    return found.rows


async def plan(agency: Agency, *, to: str = "store", **selected: Any) -> Planned:
    """Plan a replay of what is selected, from the store."""
    return await replay.plan(
        agency.store,
        agency.name,
        selection=Selection(**selected),
        target=Target.of(to),
        actor="operator",
    )


async def run(agency: Agency, planned: Planned, **given: Any) -> Ran:
    """Run a plan, with its changes confirmed unless told otherwise."""
    chosen: dict[str, Any] = {"actor": "operator", "reason": "drill"}
    chosen |= {"confirm": planned.plan.changes} | given
    return await replay.run(agency.store, agency.name, planned.plan, **chosen)
