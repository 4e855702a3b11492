"""The process that imports a docket is killed at any point: the same command goes on from there."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.ice.docket.synthesize import synthesize
from tests.agencies import until, value
from tests.faults.scene import ROOT, Scene, a_scene

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
        died = await asyncio.to_thread(imports, scene, docket, point, number)
        assert died.returncode == -9, died.stderr
        assert least <= await recorded(scene) <= MISSED, point
    done = await asyncio.to_thread(imports, scene, docket, "never", 0)

    assert done.returncode == 5, done.stderr
    assert (scene.folder / "ice" / "rejects.csv").read_bytes().startswith(b"file,line,code,fix\n")
    assert await recorded(scene) == MISSED
    await until(lambda: receipted(scene), "every receipt", seconds=90)
    await scene.nothing_remains(MISSED)


def imports(
    scene: Scene, docket: Path, point: str, number: int
) -> "subprocess.CompletedProcess[bytes]":
    """Import a docket by the command line, in a process that dies at a point of a batch."""
    line = [sys.executable, "-m", "tests.faults.importing", point, str(number)]
    ours = {name: value for name, value in os.environ.items() if "NOTICEBUS" not in name}
    return subprocess.run(
        [*line, "docket", "import", str(docket)],
        cwd=ROOT,
        env={
            **ours,
            "NOTICEBUS_HOME": str(scene.folder),
            "NOTICEBUS_DATABASE_URL": scene.databases["ice"].url,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )


async def recorded(scene: Scene) -> int:
    found = await value(scene.pair.ice, "SELECT count(*) FROM obligation")
    assert isinstance(found, int)
    return found


async def receipted(scene: Scene) -> bool:
    query = "SELECT count(*) FROM sent WHERE kind = 'fta' AND answer = 'receipt'"
    return await value(scene.pair.ice, query) == MISSED
