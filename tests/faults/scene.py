"""Two agencies as real processes on servers of their own, for tests that kill some of them."""

import asyncio
import itertools
import json
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil

from schemas.canonical import canonical, parse
from schemas.notice import Notice
from services.embedded import PostgresServer, RedisServer
from services.exchange import alone
from services.exchange.agency import Agency
from services.exchange.contents import verify_contents
from services.exchange.outbox import Draft
from services.exchange.store import locks
from services.exchange.verifying import verify_log
from services.ice.revisions import Revision, accept_revisions, record_of
from services.ice.store import obligations
from services.ice.store.obligations import NewObligation
from services.ledger.sealer import SEALER_LOCK
from services.ledger.store import append, migrate
from services.replay.shadow import shadow
from tests.agencies import Pair, answered, two_agencies, until, value
from tests.forked import Forked

PARTS = ("relay", "delivery", "sealer")
# Idle processes with six streams to look after; a hot loop takes all of a core.
IDLE_CPU_SHARE_MAX = 0.5
QUIET_SECONDS = 2.0


@dataclass
class Scene:
    """Servers, agencies and their processes; processes are named `ice relay` and so on."""

    folder: Path
    redis: RedisServer
    databases: dict[str, PostgresServer]
    pair: Pair
    random: random.Random
    processes: dict[str, Forked] = field(default_factory=dict)

    def start(self, name: str, *, die_at: str | None = None) -> None:
        """Start a process: an agency and a part, or an agency with all parts."""
        agency, _, part = name.partition(" ")
        settings = self.folder / f"{agency}.json"
        arguments = [str(settings), part or ",".join(PARTS), *([die_at] if die_at else [])]
        log = self.folder / f"{name.replace(' ', '-')}.log"
        self.processes[name] = Forked.module("tests.faults.part", *arguments, out=log)

    def start_all(self) -> None:
        """Start every part of both agencies, each as a process of its own."""
        for agency in ("ice", "hhs"):
            for part in PARTS:
                self.start(f"{agency} {part}")

    def kill(self, name: str) -> None:
        """Kill -9 a process."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop_all(self) -> None:
        """End every process in good order; one that does not end is killed and fails the test."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(20)
            except TimeoutError:
                process.kill()
                codes[name] = process.wait()
        self.processes.clear()
        assert not any(codes.values()), codes

    async def accepted_and_answered(self, drafts: Sequence[Draft], *, seconds: float = 90) -> None:
        """Wait for the verified receipt of every notice, then check that nothing else remains."""
        await until(lambda: answered(self.pair.ice, drafts), "every receipt", seconds=seconds)
        await self.nothing_remains(len(drafts))

    async def nothing_remains(self, notices: int) -> None:
        """Check that this many notices had one effect each, both ledgers hold, and all is quiet."""
        for agency in (self.pair.ice, self.pair.hhs):
            await until(partial(_at_rest, agency), f"{agency.name} at rest")
        await self._one_effect_each(notices)
        self._no_hot_loop()
        await self._ledgers_verify()
        await self._state_is_what_records_make_of_it(notices)

    async def at_work(self, name: str) -> bool:
        """Say whether a process has begun its part, by the lock that it then holds."""
        agency, _, part = name.partition(" ")
        ours = self.pair.ice if agency == "ice" else self.pair.hhs
        match part:
            case "relay":
                return bool(await alone.living(ours, [alone.RELAY]))
            case "delivery":
                return bool(await alone.living(ours, alone.slots(agency)))
            case _:
                async with ours.store.transaction() as tx:
                    return SEALER_LOCK in await locks.held(tx)

    async def _one_effect_each(self, notices: int) -> None:
        hhs = self.pair.hhs
        taken = await value(hhs, "SELECT count(*) FROM inbox WHERE kind = 'fta'")
        cases = await value(hhs, "SELECT count(*) FROM case_file")
        records = await value(
            hhs,
            "SELECT count(*) - count(DISTINCT message_id) FROM record"
            " WHERE action = 'message.received'",
        )
        assert (taken, cases, records) == (notices, notices, 0)

    def _no_hot_loop(self) -> None:
        living = {name: psutil.Process(p.pid) for name, p in self.processes.items()}
        for process in living.values():
            process.cpu_percent()
        psutil.cpu_percent(QUIET_SECONDS)
        shares = {name: process.cpu_percent() / 100 for name, process in living.items()}
        assert max(shares.values(), default=0) < IDLE_CPU_SHARE_MAX, shares

    async def _ledgers_verify(self) -> None:
        for agency in (self.pair.ice, self.pair.hhs):
            verified = await verify_log(agency.store, agency.settings)
            assert verified.difference is None, verified
            assert verified.report.size > 0
            contents = await verify_contents(agency.store)
            assert contents.difference is None, contents
            assert contents.messages > 0

    async def _state_is_what_records_make_of_it(self, notices: int) -> None:
        for agency, table in ((self.pair.ice, "obligation"), (self.pair.hhs, "case_file")):
            found = await shadow(agency.store, agency.name)
            assert not found.differing, (agency.name, found.differences[:5])
            assert found.rows[table] == notices


async def _at_rest(agency: Agency) -> bool:
    waiting = await value(
        agency,
        "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM unsealed)"
        " + (SELECT count(*) FROM gap) + (SELECT count(*) FROM republish)"
        " + (SELECT count(*) FROM inbox WHERE state = 'held')"
        " + (SELECT count(*) FROM sent WHERE answer IS NULL)",
    )
    return waiting == 0


@asynccontextmanager
async def a_scene(folder: Path, *, seed: int) -> AsyncIterator[Scene]:
    """Start servers and introduce both agencies; every process is ended at the end."""
    with (
        RedisServer(folder / "redis") as redis,
        PostgresServer(folder / "ice") as ice_db,
        PostgresServer(folder / "hhs") as hhs_db,
    ):
        databases = {"ice": ice_db, "hhs": hhs_db}
        for name, server in databases.items():
            await asyncio.to_thread(migrate, server.url, name)
        async with two_agencies(folder, lambda a: databases[a].url, redis.url) as pair:
            for agency in (pair.ice, pair.hhs):
                content = agency.settings.model_dump(mode="json")
                (folder / f"{agency.name}.json").write_text(json.dumps(content))
            scene = Scene(folder, redis, databases, pair, random.Random(seed))
            try:
                yield scene
                scene.stop_all()
            finally:
                for process in scene.processes.values():
                    process.kill()
                    process.wait()


# Each notice is of a child of its own; bodies of drafts are all of one.
_CHILDREN = itertools.count(100_000_000)


async def accept(ice: Agency, *drafts: Draft) -> None:
    """Accept notices as an import does: obligation, revision, outbox and record together."""
    now = datetime.now(UTC)
    revisions = [_revision(draft) for draft in drafts]
    async with ice.store.transaction() as tx:
        added = await obligations.add(tx, [_obligation(each, now) for each in revisions])
        assert len(added) == len(drafts)
        commitments = await accept_revisions(tx, revisions, now)
        records = [
            record_of(
                "notice.recorded",
                now=now,
                actor="importer",
                office=revision.notice.aor_code,
                notice_id=revision.notice.notice_id,
                revision=revision,
                commitment=commitment,
            )
            for revision, commitment in zip(revisions, commitments, strict=True)
        ]
        await append(tx, records)


def _revision(draft: Draft) -> Revision:
    body = canonical({**parse(draft.body), "a_number": f"A{next(_CHILDREN)}"})
    return Revision(
        notice=Notice.model_validate_json(body),
        body=body,
        message_id=draft.message_id,
        lane=draft.lane,
        supersedes=None,
    )


def _obligation(revision: Revision, now: datetime) -> NewObligation:
    notice = revision.notice
    return NewObligation(
        notice_id=notice.notice_id,
        a_number=notice.a_number,
        base_city=notice.base_city_code,
        hearing_on=notice.hearing_on,
        hearing_at=notice.hearing_at,
        hearing_zone=notice.hearing_zone,
        outcome=notice.outcome,
        office=notice.aor_code,
        lane=revision.lane,
        state="recorded",
        confirm=None,
        confirm_code=None,
        revision=1,
        detected_at=now,
        origin="docket",
        release=notice.source_release,
        eoir_case_key=notice.eoir_case_key,
        eoir_proceeding_key=notice.eoir_proceeding_key,
        eoir_schedule_key=notice.eoir_schedule_key,
        content_id=None,
    )


async def accept_slowly(
    scene: Scene, drafts: Sequence[Draft], *, at_once: int, pause_seconds: float
) -> None:
    """Accept notices in batches with a pause between them, going on through outages."""
    from schemas.errors import UnavailableError

    for start in range(0, len(drafts), at_once):
        while True:
            try:
                await accept(scene.pair.ice, *drafts[start : start + at_once])
            except UnavailableError:
                await asyncio.sleep(0.2)
            else:
                break
        await asyncio.sleep(pause_seconds)
