"""Hundreds of malformed entries in one go, while real processes exchange real notices."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from schemas.envelope import Lane
from services.bus import Publisher
from tests.agencies import a_notice, answered, until
from tests.faults.scene import Scene, a_scene, accept, accept_slowly
from tests.hostile import HOSTILE, Genuine, envelope_of
from tests.steps import LIVE, rows

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SEED = 20261125
MALFORMED = 612


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with a_scene(tmp_path, seed=SEED) as scene:
        yield scene


async def test_six_hundred_and_twelve_malformed_entries_of_every_class_stop_nothing(
    scene: Scene,
) -> None:
    drafts = [a_notice(lane=Lane.BACKLOG if n % 3 else Lane.LIVE) for n in range(620)]
    ice, hhs = scene.pair.ice, scene.pair.hhs
    scene.start_all()
    await accept(ice, *drafts[:20])
    await until(lambda: answered(ice, drafts[:20]), "a first part of the receipts", seconds=60)
    # One of each class, again and again, in an order by the seed; half of the notices are on their
    # way, half come afterwards.
    classes = [*islice(cycle(HOSTILE), MALFORMED)]
    scene.random.shuffle(classes)
    genuine = Genuine(ice, hhs, await envelope_of(ice, drafts[0].message_id))
    malformed = [HOSTILE[what].make(genuine) for what in classes]
    assert len(malformed) == MALFORMED
    accepting = asyncio.create_task(
        accept_slowly(scene, drafts[20:], at_once=20, pause_seconds=0.1)
    )
    await until(lambda: answered(ice, drafts[20:40]), "a notice on its way", seconds=60)
    async with Publisher.open(scene.redis.url, settings=ice.settings.bus) as publisher:
        await publisher.publish(LIVE, malformed)
    await accepting

    sent = Counter(HOSTILE[what].cause for what in classes)

    async def all_set_aside() -> bool:
        found = await rows(hhs, "SELECT sum(arrivals) FROM dead_letter")
        return bool(found[0][0] == MALFORMED - sent[None])

    # The last of them may stand behind the last notice.
    await until(all_set_aside, "every malformed entry set aside", seconds=60)
    await scene.accepted_and_answered(drafts)

    unvouched = {each.cause for each in HOSTILE.values() if each.cause and not each.authentic}
    counted = await rows(hhs, "SELECT cause, sum(arrivals) FROM unauthenticated GROUP BY 1")
    assert {cause: int(n) for cause, n in counted} == {code: sent[code] for code in unvouched}
    letters = await rows(
        hhs, "SELECT cause, state, authentic, sum(arrivals) FROM dead_letter GROUP BY 1, 2, 3"
    )
    kept = {(each.cause, each.kept, each.authentic) for each in HOSTILE.values() if each.cause}
    assert {(cause, state, authentic) for cause, state, authentic, _ in letters} == kept
