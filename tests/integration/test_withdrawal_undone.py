"""ICE takes a withdrawal back: at HHS the case is again where it was, however it is looked at."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from services.hhs import queue
from services.ice import notices
from services.ice.effects import IceEffects
from services.replay import Counts
from services.replay.shadow import shadow
from tests.agencies import running, until, value
from tests.lives import DAY, FIRST, SECOND, Life, SavedLives
from tests.notices_made import a_finding, by_hand, taken_back
from tests.replays import change, plan, rows, run
from tests.restores import Drill, a_backup, at_rest

THIRD = "2027-01"
# Nobody took it; somebody has it; somebody closed it.
WAITING, TAKEN, CLOSED = 1, 2, 3
CHILDREN = (WAITING, TAKEN, CLOSED)
# What HHS said of them: two took one, and one of these was closed.
REPLIES = 3


async def withdrawn(life: Life) -> None:
    """Three cases are worked on, then withdrawn on the docket's word."""
    hhs = life.pair.hhs.store
    async with life.both():
        await life.find(FIRST, *(a_finding(n, on=DAY) for n in CHILDREN))
    async with life.both():
        for number in (TAKEN, CLOSED):
            await queue.take(hhs, life.notices[number], actor="clerk")
        await queue.outcome(hhs, life.notices[CLOSED], code="SAFE_MOVED", actor="clerk")
    async with life.both():
        await life.find(SECOND, *(taken_back(n, on=DAY) for n in CHILDREN))
        await confirmed(life)
    assert await states(life) == dict.fromkeys(CHILDREN, "withdrawn")


@pytest.fixture
async def life(home: Path, saved_lives: SavedLives, redis_url: str) -> AsyncIterator[Life]:
    """Three cases that were withdrawn, to be missed after all."""
    async with saved_lives.after((withdrawn,), home, redis_url) as life:
        yield life


async def confirmed(life: Life) -> None:
    for number in CHILDREN:
        await notices.confirm(life.pair.ice.store, life.notices[number], actor="officer")


async def asked(life: Life) -> None:
    await life.find(THIRD, *(a_finding(n, on=DAY) for n in CHILDREN))


async def undone(life: Life) -> None:
    async with life.both():
        await asked(life)
        await confirmed(life)


async def cases(life: Life) -> dict[int, dict[str, Any]]:
    found = {row["notice_id"]: row for row in await rows(life.pair.hhs, "case_file", "notice_id")}
    return {number: found[life.notices[number]] for number in CHILDREN}


async def states(life: Life) -> dict[int, str]:
    return {number: case["state"] for number, case in (await cases(life)).items()}


async def holds(life: Life) -> None:
    """Check that both sides are what their records and contents make of them."""
    for agency in (life.pair.ice, life.pair.hhs):
        found = await shadow(agency.store, agency.name)
        assert not found.differing, (agency.name, found.differences)


async def test_each_case_is_again_where_it_was(life: Life) -> None:
    before = await cases(life)
    await undone(life)

    after = await cases(life)
    assert await states(life) == {WAITING: "unowned", TAKEN: "taken", CLOSED: "closed"}
    for number in CHILDREN:
        for name in ("owner", "lease_until", "opened_at", "due_at", "outcome_code"):
            assert after[number][name] == before[number][name], name
    assert after[WAITING]["closed_at"] is after[TAKEN]["closed_at"] is None
    assert after[CLOSED]["closed_at"] == before[CLOSED]["closed_at"]
    said = {item.child[-1]: item.state for item in await notices.listed(life.pair.ice.store)}
    assert said == {"1": "receipted", "2": "acknowledged", "3": "closed"}
    await holds(life)


@pytest.mark.parametrize("ask_first", [True, False], ids=["asked about", "not asked about"])
async def test_one_that_is_sent_by_hand_once_more_stands_as_it_is_written_now(
    life: Life, *, ask_first: bool
) -> None:
    async with life.both():
        if ask_first:
            await asked(life)
        written = by_hand(
            a_number=f"A-100-000-00{TAKEN}", hearing=f"{DAY.isoformat()}T09:00", office="DAL"
        )
        sent = await notices.send(life.pair.ice.store, written, actor="officer")

    assert (sent.already, sent.item.notice_id) == (False, life.notices[TAKEN])
    case = (await cases(life))[TAKEN]
    assert (case["state"], case["owner"], case["office"]) == ("taken", "clerk", "DAL")
    assert (await states(life))[WAITING] == "withdrawn"
    await holds(life)


async def test_withdrawn_once_more_it_is_off_the_queue_once_more(life: Life) -> None:
    await undone(life)
    async with life.both():
        await life.find("2027-02", *(taken_back(n, on=DAY) for n in CHILDREN))
        await confirmed(life)

    assert await states(life) == dict.fromkeys(CHILDREN, "withdrawn")
    await holds(life)
    assert (await plan(life.pair.hhs)).plan.counts == Counts(same=12 + REPLIES)


async def test_a_replay_finds_it_the_same_and_restores_what_was_damaged(life: Life) -> None:
    await undone(life)
    hhs = life.pair.hhs
    was = await cases(life)
    assert (await plan(hhs)).plan.counts == Counts(same=9 + REPLIES)

    await change(hhs, "UPDATE case_file SET state = 'withdrawn', closed_at = now()")
    planned = await plan(hhs)
    await run(hhs, planned)

    assert asdict(planned.plan.counts) == {
        "new": 0,
        "same": 6 + REPLIES,
        "changed": 3,
        "blocked": 0,
    }
    differences = [event.finding.differences for event in planned.first]
    assert sorted((each.before, each.after) for (each,) in differences) == [
        ("withdrawn", "closed"),
        ("withdrawn", "taken"),
        ("withdrawn", "unowned"),
    ]
    assert {number: case["state"] for number, case in (await cases(life)).items()} == {
        number: case["state"] for number, case in was.items()
    }


async def test_a_replay_opens_a_lost_case_again_and_not_withdrawn(life: Life) -> None:
    await undone(life)
    hhs = life.pair.hhs
    await change(hhs, "DELETE FROM case_file")

    planned = await plan(hhs)
    await run(hhs, planned)

    assert planned.plan.counts == Counts(new=9, same=REPLIES)
    assert await states(life) == {WAITING: "unowned", TAKEN: "taken", CLOSED: "closed"}
    assert await value(hhs, "SELECT count(*) FROM case_file WHERE closed_at IS NULL") == 2
    assert (await plan(hhs)).plan.counts == Counts(same=9 + REPLIES)


@pytest.mark.parametrize("before", ["asked", "withdrawn"])
async def test_an_ice_that_was_restored_knows_that_it_was_undone(
    life: Life, home: Path, before: str
) -> None:
    if before == "asked":
        await asked(life)
    backup = await a_backup(life.pair.ice, home)
    await undone(life)
    drill = Drill(life.pair, "ice", home)

    await drill.disaster(backup)
    await drill.adopted(await drill.told(backup.header.made_at))

    async with drill.again() as pair:
        async with running(pair.ice, IceEffects()), running(pair.hhs, life.effects):
            await until(lambda: at_rest(pair), "both sides at rest")
        said = {item.child[-1]: item.state for item in await notices.listed(pair.ice.store)}
        assert said == {"1": "receipted", "2": "acknowledged", "3": "closed"}
        found = await shadow(pair.ice.store, "ice")
        assert not found.differing, found.differences
