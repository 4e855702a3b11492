"""What was proven before a restore is proven after it, beside what came since."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from schemas.canonical import parse
from services.exchange.agency import Agency
from services.exchange.trace import Trace, Verified
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import notices
from services.ice.effects import IceEffects
from services.proof.archive import unpacked
from tests.agencies import Pair, running, two_agencies, until
from tests.bundles import built, ours, run_verify
from tests.restores import Database, Drill, a_backup, at_rest, send


@pytest.fixture
async def pair(home: Path, database: Database, redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def newest(pair: Pair) -> UUID:
    return max(item.notice_id for item in await notices.listed(pair.ice.store))


async def traced(agency: Agency, notice_id: UUID) -> Trace:
    if agency.name == "ice":
        return await notices.traced(agency, notice_id)
    return await queue.traced(agency, notice_id)


@pytest.mark.parametrize("lost", ["ice", "hhs"])
async def test_notices_of_before_and_after_an_adoption_are_traced_and_proven(
    pair: Pair, home: Path, lost: str
) -> None:
    drill = Drill(pair, lost, home)
    async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
        await send(pair, 1, "before")
        await until(lambda: at_rest(pair), "the first notice")
        before = await newest(pair)
        await queue.take(pair.hhs.store, before, actor="clerk")
        await until(lambda: at_rest(pair), "its acknowledgement")
    backup = await a_backup(drill.ours, home)
    await drill.disaster(backup)
    await drill.adopted(await drill.told(backup.header.made_at))

    async with drill.again() as pair:
        async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
            await send(pair, 2, "after")
            await until(lambda: at_rest(pair), "the second notice")
            after = await newest(pair)
            await queue.take(pair.hhs.store, after, actor="clerk")
            await until(lambda: at_rest(pair), "its acknowledgement")
        assert before != after

        for agency in (pair.ice, pair.hhs):
            for notice_id in (before, after):
                steps = (await traced(agency, notice_id)).steps
                assert {step.verified for step in steps} == {Verified.YES}
                formers = {step.former for step in steps if step.agency == agency.name}
                ended = agency.name == lost and notice_id == before
                origin = f"{agency.settings.domain}/noticebus/{lost}/1"
                assert formers == ({origin} if ended else {None})
                _, path = await built(agency, home, notice_id)
                members = unpacked(path)
                assert ours(members) is None
                verdict = run_verify(path)
                assert (verdict.code, verdict.last[:9]) == (0, "ALL HOLDS"), verdict.last
                told = members["report.txt"].decode()
                assert "not sealed yet" not in told
                assert ("in a log that a restore ended" in told) == ended
                said = parse(members[f"notices/{notice_id}/evidence.json"])
                records = sum(step.step != "message.receipted" for step in steps)
                assert said["in_former_log"] == (records if ended else 0)
                assert len(said["records"]) == (0 if ended else records)
                assert [message["direction"] for message in said["messages"]] == (
                    ["sent", "received"] if agency.name == "ice" else ["received", "sent"]
                )
