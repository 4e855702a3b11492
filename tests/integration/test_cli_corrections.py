"""A thousand corrections by the command line: bad rows stop no good one, and none goes twice."""

import asyncio
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.errors import ConflictError, UnavailableError
from services import cli
from services.ice.notices import bulk
from services.ice.notices.correcting import correct
from services.ice.obligations import open_findings
from services.ledger.store import Store
from tests.notices_made import findings, opened_store

ROWS = 1_000
HEADING = "notice,reason,birth_date,notice_defect_known,family_name"
# What stands in rows, and in no list of rejects.
VALUES = ("2012-05-03", "2012-31-31", "maybe", "Quiej", "BORED")


@pytest.fixture
async def url(database: Callable[[str], str]) -> str:
    url = database("ice")
    async with opened_store(url, "ice") as store:
        await open_findings(store, findings(ROWS), release="2026-11", actor="x")
    return url


async def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    async with await Store.open(url, pool_max=1) as store, store.transaction() as tx:
        return await (await tx.execute(query)).fetchall()


def a_bad_row(number: int, notice_id: UUID) -> tuple[str, str]:
    """Return a row that cannot be used, and the code that says why; one kind after the other."""
    return (
        (f"{notice_id},OTHER,2012-31-31,,", "NB-1074"),
        (f"{notice_id},BORED,2012-05-03,,", "NB-1052"),
        (f"{notice_id},OTHER,2012-05-03,maybe,", "NB-1000"),
        (f"{notice_id},OTHER,2012-05-03", "NB-1054"),
        (f"{notice_id},OTHER,2012\r05-03,,", "NB-1054"),
        (f"{uuid7()},OTHER,2012-05-03,,Quiej", "NB-7012"),
        (",OTHER,2012-05-03,,Quiej", "NB-1054"),
        (f"%{number},OTHER,2012-05-03,,Quiej", "NB-6120"),
    )[number % 8]


async def run(home: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    line = ["--home", str(home), "notice", "correct", *words, "-o", "json"]
    code = await asyncio.to_thread(cli.execute, line)
    told = capsys.readouterr()
    return code, json.loads(told.out) if told.out else None, told.err


@pytest.mark.timeout(300)
async def test_bad_rows_of_a_thousand_stop_no_good_one_and_a_second_run_sends_none(
    url: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", url)
    ids = [row[0] for row in await rows(url, "SELECT notice_id FROM obligation ORDER BY a_number")]
    lines, bad = [HEADING], {}
    for number, notice_id in enumerate(ids):
        if number % 25 == 7:
            line, bad[number + 2] = a_bad_row(number // 25, notice_id)
            lines.append(line)
        else:
            lines.append(f"{notice_id},DATA_ENTRY,2012-05-03,yes,")
    file, rejects = tmp_path / "corrections.csv", tmp_path / "rejects.csv"
    file.write_bytes(("\r\n".join(lines) + "\r\n").encode())
    words = ("--file", str(file), "--rejects", str(rejects))
    good = ROWS - len(bad)

    first = await run(home, capsys, *words, "--confirm", str(good))
    kept = rejects.read_text(encoding="utf-8")
    again = await run(home, capsys, *words)

    assert len(bad) == 40
    assert (first[0], again[0]) == (5, 5), first[2]
    counted = [
        (said["corrected"], said["already"], said["rejected"]) for _, said, _ in (first, again)
    ]
    assert counted == [(good, 0, 40), (0, good, 40)]
    assert [said["rows"] for _, said, _ in (first, again)] == [ROWS, ROWS]
    named = list(csv.DictReader(kept.splitlines()))
    assert list(named[0]) == ["file", "line", "code", "fix"]
    assert {int(each["line"]): each["code"] for each in named} == bad
    assert {each["file"] for each in named} == {"corrections.csv"}
    assert all(each["fix"] for each in named)
    assert not any(value in kept for value in (*VALUES, *map(str, ids)))
    assert rejects.read_text(encoding="utf-8") == kept
    sent = "SELECT count(*), count(DISTINCT notice_id) FROM outbox WHERE revision = 2"
    assert await rows(url, sent) == [(good, good)]


async def test_an_outage_in_the_middle_takes_away_no_reject(
    url: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", url)
    ids = [row[0] for row in await rows(url, "SELECT notice_id FROM obligation LIMIT 4")]
    file, rejects = tmp_path / "corrections.csv", tmp_path / "rejects.csv"
    lines = [HEADING, "too few", *(f"{each},OTHER,2012-05-03,," for each in ids), f"{uuid7()},,,,"]
    file.write_text("\n".join(lines), encoding="utf-8")
    errors = (
        None,
        ConflictError("NB-1051", notice_id=ids[1], other=ids[0]),
        None,
        UnavailableError("NB-5002", reason="x"),
    )
    failing = dict(zip(ids, errors, strict=True))

    async def failing_correct(database: Store, notice_id: UUID, *given: Any, **named: Any) -> Any:
        if (error := failing[notice_id]) is not None:
            raise error
        return await correct(database, notice_id, *given, **named)

    monkeypatch.setattr(bulk, "correct", failing_correct)
    code, said, _ = await run(
        home, capsys, "--file", str(file), "--rejects", str(rejects), "--confirm", "4"
    )

    named = csv.DictReader(rejects.read_text(encoding="utf-8").splitlines())
    assert (code, said) == (7, None)
    assert [(each["line"], each["code"]) for each in named] == [
        ("2", "NB-1054"), ("4", "NB-1051"), ("7", "NB-7012"),
    ]  # fmt: skip
    assert await rows(url, "SELECT count(*) FROM outbox WHERE revision = 2") == [(2,)]


def test_only_a_newline_ends_a_row(tmp_path: Path) -> None:
    odd = "Qu\u2028ie\u0085j\x0cx"
    file = tmp_path / "corrections.csv"
    file.write_bytes(
        f'notice,reason,family_name\r\n0193,OTHER,{odd}\n0194,OTHER,"a\rb"\n'
        "0195,OTHER,c\rd\n0196,OTHER,e\r\n".encode()
    )

    read, rejects = bulk.read(file, reason=None)

    assert [(each.line, each.written["name_family"]) for each in read] == [
        (2, odd), (3, "a\rb"), (5, "e"),
    ]  # fmt: skip
    assert [(each.line, each.code) for each in rejects] == [(4, "NB-1054")]
    assert "carriage return" in rejects[0].fix
