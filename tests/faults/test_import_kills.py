"""The process that imports a docket is killed at any point: the same command goes on from there."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.ice.docket.synthesize import synthesize
from tests.agencies import until, value
from tests.faults.scene import Scene, a_scene
from tests.forked import Forked

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SEED = 20261124
# Six batches of a transaction each.
ROWS, MISSED = 4_000, 2_800
# How many notices stand for sure once the process has died there.
KILLS = [("reading", 1, 0), ("writing", 2, 0), ("committed", 3, 1_000), ("rejects", 1, MISSED)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with a_scene(tmp_path, seed=SEED) as scene:
        yield scene


async def test_an_import_that_is_killed_four_times_sends_every_notice_once(scene: Scene) -> None:
    docket = scene.folder / "release"
    made = await asyncio.to_thread(
        synthesize, docket, rows=ROWS, missed=MISSED, seed=SEED, confirm=0
    )
    assert made.expected["send"] == MISSED
    for agency in ("ice", "hhs"):
        scene.start(agency)

    for point, number, least in KILLS:
        code, said = await asyncio.to_thread(imports, scene, docket, point, number)
        assert code == -signal.SIGKILL, said
        assert least <= await recorded(scene) <= MISSED, point
    code, said = await asyncio.to_thread(imports, scene, docket, "never", 0)

    assert code == 5, said
    assert (scene.folder / "ice" / "rejects.csv").read_bytes().startswith(b"file,line,code,fix\n")
    assert await recorded(scene) == MISSED
    await until(lambda: receipted(scene), "every receipt", seconds=90)
    await scene.nothing_remains(MISSED)


def imports(scene: Scene, docket: Path, point: str, number: int) -> tuple[int, str]:
    """Import a docket by the command line, in a process that dies at a point of a batch."""
    out = scene.folder / "import.log"
    process = Forked.module(
        "tests.faults.importing",
        *(point, str(number), "docket", "import", str(docket)),
        out=out,
        NOTICEBUS_HOME=str(scene.folder),
        NOTICEBUS_DATABASE_URL=scene.databases["ice"].url,
    )
    return process.wait(100), out.read_text()


async def recorded(scene: Scene) -> int:
    found = await value(scene.pair.ice, "SELECT count(*) FROM obligation")
    assert isinstance(found, int)
    return found


async def receipted(scene: Scene) -> bool:
    query = "SELECT count(*) FROM sent WHERE kind = 'fta' AND answer = 'receipt'"
    return await value(scene.pair.ice, query) == MISSED
