"""An import that is killed while it opens obligations goes on by the same command, to one end."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.embedded import attach
from services.ledger.store import Store
from tests.command_line import COMMAND_SECONDS, CommandLine
from tests.forked import Forked

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

ROWS, MISSED = 1_900, 1_600
# What names one notice or one moment, and differs from import to import.
OWN = {"notice_id", "detected_at"}


@dataclass
class Home:
    """A home of ICE with its own embedded database, and a command that imports a docket."""

    noticebus: CommandLine
    url: str
    line: str
    rejects: Path = field(init=False)

    def __post_init__(self) -> None:
        self.rejects = self.noticebus.home / "ice" / "rejects.csv"

    def killed(self, point: str, number: int) -> None:
        """Import in a process of its own that dies on the way."""
        out, asked = self.noticebus.home / "import.log", [point, str(number), *self.line.split()]
        home = {"NOTICEBUS_HOME": str(self.noticebus.home)}
        dying = Forked.module("tests.faults.importing", *asked, out=out, **home)
        assert dying.wait(COMMAND_SECONDS) == -signal.SIGKILL, out.read_text()

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with await Store.open(self.url, pool_max=1) as store, store.transaction() as tx:
            cursor = await tx.execute(query)
            return await cursor.fetchall()

    async def state(self) -> dict[str, Any]:
        """Return all that an import leaves, without what names one notice or one moment."""
        known = await self.rows(
            "SELECT o.a_number, o.base_city, o.hearing_on, o.outcome, o.office, o.lane, o.state,"
            " o.confirm, o.confirm_code, o.revision, o.release, o.eoir_case_key,"
            " o.eoir_proceeding_key, o.eoir_schedule_key, p.body,"
            " (SELECT array_agg(a.kind || a.key::text ORDER BY a.kind, a.key) FROM alias AS a"
            "  WHERE a.notice_id = o.notice_id)"
            " FROM obligation AS o LEFT JOIN outbox AS b ON b.notice_id = o.notice_id"
            " JOIN payload AS p ON p.message_id = coalesce(b.message_id, o.content_id)"
            " ORDER BY 1, 2, 3"
        )
        return {
            "obligations": [(*row[:-2], _said(row[-2]), row[-1]) for row in known],
            "records": await self.rows("SELECT action, count(*) FROM record GROUP BY 1 ORDER BY 1"),
            "outbox": await self.rows("SELECT count(*), count(DISTINCT notice_id) FROM outbox"),
            "imports": await self.rows(
                "SELECT release, finished_at IS NOT NULL FROM docket_import"
            ),
        }


def _said(body: bytes) -> dict[str, Any]:
    return {name: value for name, value in json.loads(body).items() if name not in OWN}


@pytest.fixture(scope="module")
def docket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "2026-11"
    noticebus = CommandLine(folder.parent / "home")
    noticebus.json(f"docket synthesize {folder} --rows {ROWS} --missed {MISSED} --seed 5")
    return folder


def a_home(folder: Path, docket: Path) -> Iterator[Home]:
    noticebus = CommandLine(folder / "home")
    with attach(noticebus.home, ["ice"]) as servers:
        assert noticebus("--agency ice keys generate").code == 0
        line = f"--agency ice docket import {docket} --lane backlog -o json"
        yield Home(noticebus, servers.database_urls["ice"], line)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, docket: Path) -> Iterator[Home]:
    """A home in which the import ran to its end."""
    for home in a_home(tmp_path_factory.mktemp("undisturbed"), docket):
        assert home.noticebus(home.line).code == 5
        yield home


@pytest.fixture
def home(tmp_path: Path, docket: Path) -> Iterator[Home]:
    yield from a_home(tmp_path, docket)


# Two batches are written at once: of three one has committed.
@pytest.mark.parametrize(
    "kills",
    [[("committed", 1)], [("writing", 3)], [("writing", 1), ("committed", 2), ("writing", 3)]],
)
async def test_a_killed_import_ends_the_same(
    home: Home, undisturbed: Home, kills: list[tuple[str, int]]
) -> None:
    for point, number in kills:
        home.killed(point, number)
    opened = (await home.rows("SELECT count(*) FROM obligation"))[0][0]
    assert 0 < opened < MISSED, "it was not cut while it opened obligations"

    done = home.noticebus(home.line)
    again = home.noticebus(home.line)

    assert done.code == again.code == 5
    assert done.data["already"] == opened
    assert done.data["recorded"] + done.data["to_confirm"] == MISSED - opened
    assert again.data["already"] == MISSED
    state, expected = await home.state(), await undisturbed.state()
    expected["records"] = [
        (action, count + (action == "docket.imported")) for action, count in expected["records"]
    ]
    assert state == expected
    assert home.rejects.read_bytes() == undisturbed.rejects.read_bytes()
    assert not any((home.noticebus.home / "ice" / "spill").iterdir())
