"""What nobody foresaw in one row is a reject of that row; what ends an import leaves its rejects.

Rejects are as many as rows can be, so they lie where the rows do and not in memory.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import ProgrammingError

from schemas.errors import UnavailableError
from services.embedded import PostgresServer
from services.ice import notices, obligations, releases, reversals
from services.ice.docket import layout, queries, scan
from services.ice.docket.findings import CourtKeys
from services.ice.docket.rejects import Reject, write_rejects
from services.ice.docket.rules import Codes, Decision, decide
from services.ice.docket.scan import Docket
from services.ice.obligations import Opened
from services.ledger.store import Store, migrate
from tests.docket_made import NO_SHOW, ORDER, TODAY, DocketMade, an_order, open_docket
from tests.notices_made import a_finding, findings, opened_store, taken_back

SCHEDULE = "tbl_schedule.csv"
OTHER = 501


@pytest.fixture
async def ice(database: Callable[[str], str]) -> AsyncIterator[Store]:
    async with opened_store(database("ice"), "ice") as store:
        yield store


def two_children(folder: Path) -> DocketMade:
    """Return a docket of a child with an order, and another with a no-show on line 3."""
    docket = an_order(folder).case(OTHER).child(OTHER, number=2).proceeding(701, IDNCASE=OTHER)
    return docket.hearing(901, IDNCASE=OTHER, IDNPROCEEDING=701, **NO_SHOW)


def over_no_shows(error: Exception) -> Callable[[Codes], Decision]:
    """Return the code rules, that stumble over a no-show."""

    def stumble(said: Codes) -> Decision:
        if said.adj_rsn == "11":
            raise error
        return decide(said)

    return stumble


def told(file: Path) -> list[tuple[str, str, str]]:
    """Return file, line and code of each reject that was written."""
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "file,line,code,fix"
    fields = [line.split(",") for line in lines[1:]]
    return [(each[0], each[1], each[2]) for each in fields]


def test_a_row_that_the_program_stumbles_over_is_a_reject_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "decide", over_no_shows(ZeroDivisionError("Nosuchchild")))

    with open_docket(two_children(tmp_path / "docket").write()) as docket:
        assert [finding.keys.case_key for finding in docket.findings()] == [500]
        [reject] = docket.rejects

    assert (reject.file, reject.line, reject.code) == (SCHEDULE, 3, "NB-1090")
    assert "ZeroDivisionError" in reject.fix
    assert "Nosuchchild" not in reject.fix


def test_a_known_hearing_that_the_program_stumbles_over_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "decide", over_no_shows(ZeroDivisionError()))
    known = obligations.KnownHearing(
        notice_id=None,  # type: ignore[arg-type]  # not looked at
        a_number="A200000002",
        base_city="HOU",
        hearing_on=TODAY.replace(month=5, day=4),
        outcome="MISSED_NO_ORDER",
        state="recorded",
        confirm=None,
        revision=1,
        origin="docket",
        eoir_case_key=OTHER,
        eoir_proceeding_key=701,
        eoir_schedule_key=901,
    )

    with open_docket(two_children(tmp_path / "docket").write()) as docket:
        assert list(docket.taken_back([known])) == []
        assert [(each.line, each.code) for each in docket.rejects] == [(3, "NB-1090")]


@pytest.mark.parametrize(
    "error", [UnavailableError("NB-1041", spill="spill"), MemoryError(), OSError("gone")]
)
def test_an_outage_is_no_fault_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(scan, "decide", over_no_shows(error))

    docket = open_docket(two_children(tmp_path / "docket").write())
    with docket, pytest.raises(type(error)):
        list(docket.findings())


def test_a_crosswalk_that_is_taken_away_ends_the_reading(tmp_path: Path) -> None:
    folder = two_children(tmp_path / "docket").write()

    with open_docket(folder) as docket:
        (folder / "crosswalk.csv").unlink()
        with pytest.raises(UnavailableError, match="NB-1040"):
            list(docket.findings())


# Keys that no record can bind, because canonical JSON has no such number, and no column can hold.
UNTELLABLE = (CourtKeys(0, 0, 2**60), "NB-2004", "")
TOO_LARGE = (CourtKeys(0, 0, 2**63), "NB-1090", "NumericValueOutOfRange")


@pytest.mark.parametrize(("keys", "code", "column"), [UNTELLABLE, TOO_LARGE])
@pytest.mark.parametrize("before", [0, 40])
async def test_a_finding_that_spoils_its_batch_is_found_and_the_others_are_written(
    ice: Store, keys: CourtKeys, code: str, column: str, before: int
) -> None:
    """The others are new, or known from before."""
    items = findings(40)
    await obligations.open_findings(ice, items[:before], release="2026-11", actor="importer")
    items[16] = a_finding(17, aliases=(keys,))
    rejects: set[Reject] = set()

    opened = await obligations.open_findings(
        ice, [*items, a_finding(41)], release="2026-12", actor="importer", refuse=rejects.add
    )

    new = 1 if before else 40
    assert opened == Opened(recorded=new, already=40 - new, refused=1)
    [reject] = rejects
    assert (reject.file, reject.line) == (items[16].file, items[16].line)
    assert (reject.code, reject.column) == (code, column)
    assert len(await notices.listed(ice)) == before + new


async def test_what_stumbles_while_it_is_written_names_its_class_alone(
    ice: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rejects: list[Reject] = []
    meet = reversals.taken_back

    def stumble(row: Any, code: str, **given: Any) -> Any:
        if row.a_number.endswith("2"):
            raise KeyError("Invented 2")
        return meet(row, code, **given)

    monkeypatch.setattr(reversals, "taken_back", stumble)
    await obligations.open_findings(ice, findings(3), release="2026-11", actor="importer")

    opened = await obligations.open_findings(
        ice,
        [taken_back(number) for number in (1, 2, 3)],
        release="2026-12",
        actor="importer",
        refuse=rejects.append,
    )

    assert opened == Opened(withdrawals=2, refused=1)
    assert [(each.line, each.code, each.column) for each in rejects] == [(3, "NB-1090", "KeyError")]


async def test_a_store_that_does_not_know_our_tables_rejects_no_row(ice: Store) -> None:
    async with ice.transaction() as tx:
        await tx.execute("ALTER TABLE obligation RENAME TO elsewhere")
    rejects: list[Reject] = []

    with pytest.raises(UnavailableError, match="NB-5010"):
        await obligations.open_findings(
            ice, findings(3), release="2026-11", actor="importer", refuse=rejects.append
        )

    assert rejects == []


async def test_a_store_that_refuses_every_row_ends_the_import_and_rejects_none(ice: Store) -> None:
    async with ice.transaction() as tx:
        await tx.execute(
            "ALTER TABLE obligation ALTER COLUMN content_id TYPE integer USING 0",
        )
    rejects: list[Reject] = []

    with pytest.raises(ExceptionGroup) as ended:
        await obligations.open_findings(
            ice, findings(3), release="2026-11", actor="importer", refuse=rejects.append
        )

    assert all(isinstance(error, ProgrammingError) for error in ended.value.exceptions)
    assert rejects == []


async def test_an_import_that_the_store_ends_leaves_its_rejects_and_goes_on(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    docket = DocketMade(tmp_path / "docket").line(layout.SCHEDULE, "cut short")
    for number in range(1, 1_201):
        docket.case(number).child(number, number=number)
        docket.proceeding(number, IDNCASE=number, **ORDER)
        docket.hearing(number, IDNCASE=number, IDNPROCEEDING=number)
    folder = docket.write()
    rejects = tmp_path / "home" / "rejects.csv"
    migrate(own_postgres.url, "ice")

    def ends(opened: Opened) -> None:
        own_postgres.kill()

    async def imported(progress: Callable[[Opened], None] | None) -> releases.Imported:
        async with opened_store(own_postgres.url, "ice") as store:
            with open_docket(folder) as docket:
                return await releases.take_in(
                    store, docket, rejects=rejects, actor="importer", progress=progress
                )

    with pytest.raises(UnavailableError, match="NB-5001"):
        await imported(ends)
    assert told(rejects) == [(SCHEDULE, "2", "NB-1013")]
    rejects.unlink()
    own_postgres.start()
    again = await imported(None)

    assert 0 < again.opened.already < 1_200
    assert again.opened.recorded + again.opened.already == 1_200
    assert told(rejects) == [(SCHEDULE, "2", "NB-1013")]


def test_reading_that_ends_early_leaves_its_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = two_children(tmp_path / "docket").line(layout.CASES, "cut short").write()
    rejects = tmp_path / "rejects.csv"

    def full(*_: object) -> None:
        raise UnavailableError("NB-1041", spill="spill")

    monkeypatch.setattr(queries, "link", full)
    with pytest.raises(UnavailableError, match="NB-1041"):
        Docket.open(folder, spill=tmp_path / "spill", as_of=TODAY, rejects=rejects)

    assert told(rejects) == [("A_TblCase.csv", "4", "NB-1013")]
    assert not (tmp_path / "spill").exists()


def test_rejects_that_cannot_be_written_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UnavailableError, match="NB-1091"):
        write_rejects(tmp_path / "file" / "rejects.csv", [])


def test_what_ended_the_reading_is_told_and_not_that_the_rejects_were_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = two_children(tmp_path / "docket").write()
    (tmp_path / "file").touch()
    monkeypatch.setattr(scan, "decide", over_no_shows(ZeroDivisionError()))

    def full(*_: object) -> None:
        raise UnavailableError("NB-1041", spill="spill")

    monkeypatch.setattr(queries, "link", full)
    with pytest.raises(UnavailableError, match="NB-1041"):
        Docket.open(
            folder, spill=tmp_path / "spill", as_of=TODAY, rejects=tmp_path / "file" / "x.csv"
        )


# The peak since this program began: `ru_maxrss` would count the test process it was forked from.
MEASURE = """
import sys
from datetime import date
from pathlib import Path
from services.ice.docket.rejects import write_rejects
from services.ice.docket.scan import Docket
with Docket.open(Path(sys.argv[1]), spill=Path(sys.argv[2]), as_of=date(2026, 11, 23)) as docket:
    found = sum(1 for _ in docket.findings())
    count = write_rejects(Path(sys.argv[3]), docket.rejects)
status = Path("/proc/self/status").read_text()
print(found, count, int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


def test_a_docket_with_every_row_spoilt_is_read_in_little_memory(tmp_path: Path) -> None:
    folder = DocketMade(tmp_path / "docket").write()
    for table in (layout.SCHEDULE, layout.PROCEEDINGS, layout.CASES):
        with (folder / table.file).open("a", encoding="utf-8") as file:
            file.writelines(f"{number}\tcut short\n" for number in range(SPOILT))
    with (folder / "crosswalk.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"{number},cut short\n" for number in range(SPOILT))
    rejects = tmp_path / "rejects.csv"

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, folder, tmp_path / "spill", rejects],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    found, count, memory_mb = map(int, done.stdout.split())
    assert (found, count) == (0, 4 * SPOILT)
    assert memory_mb < 300
    lines = told(rejects)
    assert [file for file, _, _ in lines[::SPOILT]] == [
        "A_TblCase.csv",
        "B_TblProceeding.csv",
        "crosswalk.csv",
        SCHEDULE,
    ]
    assert [int(line) for _, line, _ in lines[:SPOILT]] == list(range(2, SPOILT + 2))


SPOILT = 250_000
