"""A seeded sample of the mutations that `make mutations` runs in full."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.mutations.ground import grounds
from tests.faults.mutations.running import run

MUTATIONS = 300
SECONDS = 40.0


@pytest.mark.faults
@pytest.mark.timeout(180)
async def test_every_mutation_is_found_and_its_place_named(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    async with grounds(home, database, redis_url) as both:
        tally = await run(both, seed=20261124, mutations=MUTATIONS, seconds=SECONDS)

    assert not tally.missed, tally.missed
    assert not tally.misplaced, tally.misplaced
    assert tally.tried >= 100
