"""The drill: an older backup is restored, and every message of both sides is accounted for."""

from pathlib import Path

import pytest

from schemas.canonical import b64
from schemas.errors import EvidenceError
from schemas.party import Party
from services.backup.adopting import Adopted
from services.backup.report import look
from services.exchange import parties
from services.exchange.agency import Agency, open_agency
from services.exchange.contents import verify_contents
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice.effects import IceEffects
from services.ledger.records import read_record
from services.ledger.store import log
from services.ledger.store.kept import FormerLog
from services.ledger.verify import verify
from services.replay.shadow import shadow
from tests.agencies import running, two_agencies, until
from tests.restores import Database, Drill, a_backup, at_rest, count, send

SENT = "SELECT count(*) FROM sent WHERE kind = 'fta' AND answer = 'receipt'"


async def assert_old_log_is_kept(agency: Agency, adopted: Adopted) -> None:
    """The log that ended verifies under its own key, and record 0 of the new one names it."""
    async with agency.store.transaction() as tx:
        files = [row.party for row in await parties.listed(tx) if row.agency == agency.name]
        [(_, first)] = await log.records(tx, first=0, end=1)
    keys = [key for file in files for key in Party.from_bytes(file).log_verifiers()]
    report = await verify(FormerLog(agency.store, adopted.old_origin), log_keys=keys)
    assert (report.difference, report.verified, report.root) == (
        None,
        adopted.old_size,
        adopted.old_root,
    )
    said = read_record(first, index=0)
    assert said["action"] == "ledger.adopted"
    assert (
        said["detail"].items()
        >= {
            "origin": adopted.old_origin,
            "size": adopted.old_size,
            "root": b64(adopted.old_root),
        }.items()
    )
    assert (adopted.old_origin[-2:], adopted.origin[-2:]) == ("/1", "/2")


async def test_ice_restores_an_older_backup_and_every_message_is_accounted_for(
    home: Path, database: Database, redis_url: str
) -> None:
    async with two_agencies(home, database, redis_url) as pair:
        drill = Drill(pair, "ice", home)
        async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
            await send(pair, 3, "before")
            await until(lambda: at_rest(pair), "the first notices")
            backup = await a_backup(pair.ice, home)
            await send(pair, 8, "after")
            await until(lambda: at_rest(pair), "the later notices")
            taken = await queue.listed(pair.hhs.store)
            await queue.take(pair.hhs.store, taken[-1].notice_id, actor="clerk")
            await until(lambda: at_rest(pair), "the acknowledgement")
        assert await count(pair.ice, SENT) == 8

        await drill.disaster(backup)
        with pytest.raises(EvidenceError, match="NB-3060"):
            async with open_agency(pair.ice.settings):
                pass
        adopted = await drill.adopted(await drill.told(backup.header.made_at))

        async with drill.again() as pair:
            assert adopted.recovered is not None
            async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
                await until(lambda: at_rest(pair), "what was lost")
                await send(pair, 10, "again")
                await until(lambda: at_rest(pair), "the notices of the new generation")
            assert await count(pair.ice, SENT) == 10
            assert await count(pair.hhs, "SELECT count(*) FROM case_file") == 10
            assert await count(pair.ice, "SELECT count(*) FROM obligation") == 10
            assert await count(pair.ice, "SELECT count(*) FROM reply") == 1
            shadowed = await shadow(pair.ice.store, "ice")
            assert not shadowed.differing, shadowed.differences
            assert shadowed.rows["obligation"] == 10
            await assert_old_log_is_kept(pair.ice, adopted)
            for agency in (pair.ice, pair.hhs):
                report = await verify(agency.store, log_keys=[agency.ring.log_key.verifier])
                assert report.difference is None
                assert report.size > 0
                assert (await verify_contents(agency.store)).difference is None
                assert not await count(agency, "SELECT count(*) FROM dead_letter")
            found = await look(pair.ice.store)
            assert (found.missing, found.unanswered, found.lost) == (0, 0, [])
            generations = await count(
                pair.hhs, "SELECT count(DISTINCT generation) FROM stream_in WHERE highest > 0"
            )
            assert generations == 2
