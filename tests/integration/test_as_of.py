"""What was known then is told now, exactly as it was told then: state, counts and checkpoint."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.codes import Treatment
from schemas.errors import NotFoundError, RejectedError
from schemas.notice import PERSONAL_FIELDS
from services.exchange.agency import Agency
from services.hhs import queue
from services.ice import notices
from services.ledger.store import log
from services.reports import overdue
from services.reports.as_of import Sealed, case_then, knowing, notice_then
from services.reports.usage import usage
from tests.agencies import value
from tests.lives import Life, a_life, lived
from tests.notices_made import a_finding
from tests.replays import Way
from tests.steps import change, rows

# Long enough that by every clock something is late.
LATER = timedelta(days=40)


@pytest.fixture
async def life(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Life]:
    async with a_life(home, database, redis_url) as life:
        yield life


async def checkpoint(agency: Agency) -> Sealed:
    async with agency.store.transaction() as tx:
        row = await log.checkpoint_at(tx, datetime.now(UTC))
    assert row is not None
    return Sealed(size=row.size, root=row.root, sealed_at=row.sealed_at)


async def told(life: Life, at: datetime) -> dict[str, Any]:
    """Return all that both sides tell, as it stands."""
    ice, hhs = life.pair.ice, life.pair.hhs
    counted = await usage(ice.store, since=None, until=None, actor="auditor")
    return {
        "checkpoints": {agency.name: await checkpoint(agency) for agency in (ice, hhs)},
        "notices": {
            notice_id: await notices.shown(ice.store, notice_id, actor="auditor")
            for notice_id in life.notices.values()
        },
        "usage": [replace(each, overdue=0) for each in counted.offices],
        "late at ICE": await overdue.at_ice(ice.store, now=at + LATER),
        "late at HHS": await overdue.at_hhs(hhs.store, now=at + LATER),
        "cases": {
            item.notice_id: await queue.shown(hhs.store, item.notice_id, actor="auditor")
            for item in await queue.listed(hhs.store, states=None)
        },
        "queue": await queue.listed(hhs.store, states=None, now=at + LATER),
    }


async def told_back(life: Life, at: datetime, known: list[UUID]) -> dict[str, Any]:
    """Return the same as it was known then."""
    ice, hhs = life.pair.ice, life.pair.hhs
    counted = await usage(ice.store, since=None, until=None, actor="auditor", as_of=at)
    assert counted.then is not None
    async with knowing(ice.store, "ice", at) as then:
        late_at_ice = await overdue.at_ice(then.reading, now=at + LATER)
    async with knowing(hhs.store, "hhs", at) as then:
        late_at_hhs = await overdue.at_hhs(then.reading, now=at + LATER)
        listed = await queue.listed(then.reading, states=None, now=at + LATER)
        hhs_checkpoint = then.then.checkpoint
    cases = {
        item.notice_id: await case_then(hhs.store, item.notice_id, at, actor="auditor")
        for item in listed
    }
    assert {then.checkpoint for _, then in cases.values()} == {hhs_checkpoint}
    shown = {
        notice_id: await notice_then(ice.store, notice_id, at, actor="auditor")
        for notice_id in known
    }
    assert {then.checkpoint for _, then in shown.values()} == {counted.then.checkpoint}
    return {
        "checkpoints": {"ice": counted.then.checkpoint, "hhs": hhs_checkpoint},
        "notices": {notice_id: detail for notice_id, (detail, _) in shown.items()},
        "usage": [replace(each, overdue=0) for each in counted.offices],
        "late at ICE": late_at_ice,
        "late at HHS": late_at_hhs,
        "cases": {notice_id: detail for notice_id, (detail, _) in cases.items()},
        "queue": listed,
    }


async def test_every_moment_of_a_life_is_told_later_as_it_was_told_then(life: Life) -> None:
    moments: dict[str, tuple[datetime, dict[str, Any]]] = {}

    async def tell(step: str) -> None:
        at = datetime.now(UTC)
        moments[step] = at, await told(life, at)

    await lived(life, tell)

    states = set()
    for step, (at, before) in moments.items():
        back = await told_back(life, at, list(before["notices"]))
        for name, said in before.items():
            assert back[name] == said, (step, name)
        states |= {detail.item.state for detail in before["notices"].values()}
    assert states == {
        *("to_confirm", "dismissed", "receipted", "acknowledged", "closed", "withdrawn", "dead"),
    }
    assert all(before["late at ICE"] and before["late at HHS"] for _, before in moments.values())
    assert len({tuple(before["checkpoints"].items()) for _, before in moments.values()}) == 6


async def test_before_the_first_record_and_in_the_future_there_is_a_clear_answer(
    life: Life,
) -> None:
    store = life.pair.ice.store
    begun = await value(life.pair.ice, "SELECT recorded_at FROM record ORDER BY record_id LIMIT 1")
    assert isinstance(begun, datetime)

    with pytest.raises(NotFoundError) as before:
        await usage(
            store, since=None, until=None, actor="auditor", as_of=begun - timedelta(seconds=1)
        )
    with pytest.raises(RejectedError) as future:
        await usage(store, since=None, until=None, actor="auditor", as_of=begun + timedelta(days=1))
    counted = await usage(store, since=None, until=None, actor="auditor", as_of=begun)

    assert (before.value.code, future.value.code) == ("NB-6061", "NB-6060")
    assert counted.offices == ()
    assert counted.then is not None
    assert counted.then.checkpoint is None


async def test_a_notice_that_was_not_on_record_yet_is_not_told(life: Life) -> None:
    await life.find("2026-11", a_finding(1))
    [notice_id] = life.notices.values()
    first = await value(
        life.pair.ice, "SELECT min(recorded_at) FROM record WHERE notice_id = %s", notice_id
    )
    assert isinstance(first, datetime)

    with pytest.raises(NotFoundError) as caught:
        await notice_then(
            life.pair.ice.store, notice_id, first - timedelta(microseconds=1), actor="auditor"
        )
    detail, _ = await notice_then(life.pair.ice.store, notice_id, first, actor="auditor")

    assert caught.value.code == "NB-6062"
    assert detail.item.state == "recorded"


async def test_who_sees_a_child_in_the_past_is_on_record_now(life: Life) -> None:
    ice = life.pair.ice
    await life.find("2026-11", a_finding(1))
    [notice_id] = life.notices.values()
    at = datetime.now(UTC)

    masked, _ = await notice_then(ice.store, notice_id, at, actor="auditor")
    shown, _ = await notice_then(ice.store, notice_id, at, actor="auditor", reveal=True)

    assert masked.content is not None
    assert shown.content is not None
    assert PERSONAL_FIELDS.isdisjoint(masked.content)
    assert shown.content["a_number"] == "A100000001"
    found = await rows(
        ice, "SELECT recorded_at > %s FROM record WHERE action = 'notice.revealed'", at
    )
    assert found == [(True,)]


async def test_a_case_of_the_past_is_masked_and_was_none_before_it_was_opened(life: Life) -> None:
    hhs = life.pair.hhs
    async with life.both():
        await life.find("2026-11", a_finding(1))
    [notice_id] = life.notices.values()
    first = await value(hhs, "SELECT min(recorded_at) FROM record WHERE notice_id = %s", notice_id)
    assert isinstance(first, datetime)

    with pytest.raises(NotFoundError) as caught:
        await case_then(hhs.store, notice_id, first - timedelta(microseconds=1), actor="auditor")
    at = datetime.now(UTC)
    masked, _ = await case_then(hhs.store, notice_id, at, actor="auditor")
    shown, _ = await case_then(hhs.store, notice_id, at, actor="auditor", reveal=True)

    assert caught.value.code in ("NB-6061", "NB-6062")
    assert masked.notice is not None
    assert shown.notice is not None
    assert PERSONAL_FIELDS.isdisjoint(masked.notice)
    assert shown.notice["a_number"] == "A100000001"
    found = await rows(
        hhs, "SELECT recorded_at > %s FROM record WHERE action = 'case.revealed'", at
    )
    assert found == [(True,)]


async def test_what_waited_for_an_earlier_revision_was_not_in_effect_until_then(
    way: Way,
) -> None:
    applied = await value(
        way.hhs, "SELECT recorded_at FROM record WHERE action = 'message.applied'"
    )
    assert isinstance(applied, datetime)
    revisions = []
    for at in (applied - timedelta(microseconds=1), applied):
        async with knowing(way.hhs.store, "hhs", at) as then, then.reading.transaction() as tx:
            cursor = await tx.execute(
                "SELECT revision FROM case_file WHERE notice_id = %s", [way.overtaken]
            )
            revisions += await cursor.fetchall()

    assert revisions == [(1,), (2,)]


async def test_counts_of_the_past_outlive_the_content(life: Life) -> None:
    ice = life.pair.ice
    await life.find("2026-11", a_finding(1), a_finding(2, decision=Treatment.CONFIRM))
    at = datetime.now(UTC)
    before = await usage(ice.store, since=None, until=None, actor="auditor", as_of=at)
    await change(ice, "UPDATE payload SET salt = NULL, body = NULL, erased_at = now()")

    after = await usage(ice.store, since=None, until=None, actor="auditor", as_of=at)
    detail, _ = await notice_then(ice.store, life.notices[1], at, actor="auditor")

    assert after.offices == before.offices
    assert (detail.content, detail.item.state) == (None, "recorded")
