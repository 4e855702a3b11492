"""Watching an agency's ledger: what a line says, where it begins, and what is never missed."""

import asyncio
import csv
import io
import json
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from schemas.errors import ConflictError, EvidenceError, NoticeBusError, RejectedError
from services.exchange.agency import Agency
from services.ledger.records import make_record
from services.ledger.store import Store, append
from services.watch import Cursor, Line, Only, Turn, watch, watching
from tests.agencies import a_notice, accept, answered, two_agencies, until, value
from tests.command_line import CommandLine
from tests.ledgers import a_sealer, keep, opened, seal_all, some_records, tamper

Database = Callable[[str], str]
BEGINNING = Cursor("ice", 1, 0)


async def all_lines(store: Store, agency: str = "ice", **changes: object) -> list[Line]:
    """Return what is there now, from the beginning unless told."""
    given = {"after": Cursor(agency, 1, 0), "follow": False} | changes
    return [line async for line in watch(store, agency, **given)]  # type: ignore[arg-type]  # mixed


async def test_a_record_that_commits_late_is_neither_missed_nor_shown_twice(
    database: Database,
) -> None:
    """Its id is lower than those shown before it, so a cursor over ids would pass it by."""
    async with opened(database("ice")) as store:
        async with store.transaction() as tx:
            await append(tx, some_records(1))
            await keep(store, some_records(2))
            await seal_all(a_sealer(store))
            before = await all_lines(store)
        await seal_all(a_sealer(store))

        late = await all_lines(store, after=before[-1].cursor)

    assert [line.index for line in before] == [0, 1]
    assert [line.index for line in late] == [2]


async def test_more_than_a_page_is_shown_whole(database: Database) -> None:
    count = 2 * watching.PAGE + 1
    async with opened(database("ice")) as store:
        await keep(store, some_records(count))
        await seal_all(a_sealer(store))

        assert [line.index for line in await all_lines(store)] == list(range(count))
        rest = await all_lines(store, after=Cursor("ice", 1, watching.PAGE))
        assert [line.index for line in rest] == list(range(watching.PAGE, count))


@pytest.mark.parametrize("bell", [True, False], ids=["notified", "polled"])
async def test_what_is_sealed_is_shown_at_once_and_without_a_bell_a_little_later(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    bell: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    if bell:
        monkeypatch.setattr(watching, "POLL_SECONDS", 3_600.0)
    else:
        monkeypatch.setattr(watching, "POLL_SECONDS", 0.05)
        monkeypatch.setattr(watching, "SEALED_CHANNEL", "nobody_rings_here")
    live = asyncio.Event()
    async with opened(database("ice")) as store:
        lines = watch(store, "ice", told=lambda turn, *_: live.set())
        async with aclosing(lines) as coming, asyncio.timeout(20):
            first = asyncio.create_task(anext(coming))
            await live.wait()
            await keep(store, some_records(1))
            await seal_all(a_sealer(store))

            assert (await first).cursor == Cursor("ice", 1, 1)


async def test_it_begins_now_unless_told_and_ends_when_told(database: Database) -> None:
    stop = asyncio.Event()
    shown: list[int] = []
    turns: list[tuple[Turn, str]] = []
    async with opened(database("ice")) as store:
        await keep(store, some_records(2))
        await seal_all(a_sealer(store))

        async def follow() -> None:
            def told(turn: Turn, cursor: Cursor, _: int) -> None:
                turns.append((turn, str(cursor)))

            async for line in watch(store, "ice", stop=stop, told=told):
                shown.append(line.index)

        following = asyncio.create_task(follow())
        await until(lambda: _is(turns), "the present")
        await keep(store, some_records(1))
        await seal_all(a_sealer(store))
        await until(lambda: _is(shown), "a line")
        stop.set()
        await asyncio.wait_for(following, 10)

    assert turns[0] == (Turn.LIVE, "ice.1.2")
    assert shown == [2]


async def _is(condition: object) -> bool:
    return bool(condition)


async def test_since_begins_with_what_was_sealed_then(database: Database) -> None:
    async with opened(database("ice")) as store:
        for _ in range(3):
            await keep(store, some_records(2))
            await seal_all(a_sealer(store))
        async with store.transaction() as tx:
            cursor = await tx.execute("SELECT sealed_at FROM checkpoint ORDER BY size")
            _, second, third = [row[0] for row in await cursor.fetchall()]

        assert [line.index for line in await all_lines(store, after=None, since=second)] == [
            2, 3, 4, 5
        ]  # fmt: skip
        moment = second + timedelta(microseconds=1)
        assert [line.index for line in await all_lines(store, after=None, since=moment)] == [4, 5]
        assert await all_lines(store, after=None, since=third + timedelta(seconds=1)) == []


async def test_records_that_no_sealer_takes_are_told_of(database: Database) -> None:
    told: list[tuple[Turn, int]] = []
    old = make_record("keys.rotated", time=datetime.now(UTC) - timedelta(minutes=1))
    async with opened(database("ice")) as store:
        await keep(store, [old, old])

        lines = await all_lines(store, told=lambda turn, _, waiting: told.append((turn, waiting)))

    assert lines == []
    assert told == [(Turn.LIVE, 0), (Turn.UNSEALED, 2)]


@pytest.mark.parametrize(
    ("cursor", "error"),
    [
        ("hhs.1.0", RejectedError("NB-7031", cursor="hhs.1.0", other="hhs", agency="ice")),
        ("ice.1.4", ConflictError("NB-7032", cursor="ice.1.4", generation=1, agency="ice", size=3)),
        ("ice.2.1", ConflictError("NB-7032", cursor="ice.2.1", generation=1, agency="ice", size=3)),
    ],
)
async def test_a_cursor_of_another_ledger_is_refused(
    database: Database, cursor: str, error: NoticeBusError
) -> None:
    async with opened(database("ice")) as store:
        await keep(store, some_records(3))
        await seal_all(a_sealer(store))

        with pytest.raises(type(error)) as refused:
            await all_lines(store, after=Cursor.parse(cursor))

    assert refused.value.sentence == error.sentence


async def test_a_ledger_that_is_replaced_meanwhile_is_not_taken_for_the_old_one(
    database: Database,
) -> None:
    url = database("ice")
    async with opened(url) as store:
        await keep(store, some_records(2))
        await seal_all(a_sealer(store))
        async with aclosing(watch(store, "ice", after=BEGINNING)) as lines:
            assert [(await anext(lines)).index for _ in range(2)] == [0, 1]
            async with store.transaction() as tx:
                await tx.execute("UPDATE log_head SET origin = left(origin, -1) || '2'")
                await tx.execute("SELECT pg_notify('sealed', '')")

            with pytest.raises(ConflictError, match="NB-7032"):
                await asyncio.wait_for(anext(lines), 10)


@pytest.mark.parametrize("cursor", ["ice.1.0", "hhs.3.812", "ice.1.812.500"])
def test_cursors_are_read_as_they_are_written(cursor: str) -> None:
    assert str(Cursor.parse(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "812", "ice.0.1", "ice.1.-1", "dhs.1.1", "ice.1.01", "ice.1.1.0", "ice.1.1 x"]
)
def test_what_is_no_cursor_is_rejected(text: str) -> None:
    with pytest.raises(RejectedError) as refused:
        Cursor.parse(text)

    assert refused.value.code == "NB-7030"


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_hole_in_the_log_is_told_and_not_passed_over(database: Database, lost: int) -> None:
    url = database("ice")
    async with opened(url) as store:
        await keep(store, some_records(3))
        await seal_all(a_sealer(store))
        tamper(url, f"DELETE FROM log_entry WHERE record_index = {lost}")  # noqa: S608 - a number

        with pytest.raises(EvidenceError) as found:
            await all_lines(store)

    assert (found.value.code, found.value.sentence.count(f" {lost},")) == ("NB-7033", 1)


async def test_both_ways_of_a_notice_receipts_one_by_one_and_filters(
    tmp_path: Path, database: Database, redis_url: str
) -> None:
    drafts = [a_notice() for _ in range(40)]
    async with two_agencies(tmp_path, database, redis_url) as pair:
        await accept(pair.ice, *drafts)
        async with pair.running():
            await until(lambda: answered(pair.ice, drafts), "receipts")
            await until(lambda: all_sealed(pair.ice), "the last seal")
        ice = await all_lines(pair.ice.store)
        hhs = await all_lines(pair.hhs.store, "hhs")
        one = drafts[7].notice_id
        only = Only(notice_id=one)
        mine = await all_lines(pair.ice.store, only=only)
        cut = [await all_lines(pair.ice.store, after=line.cursor) for line in ice]
        none = await all_lines(pair.ice.store, only=Only(lanes=frozenset({"backlog"})))
        live = await all_lines(pair.ice.store, only=Only(kinds=frozenset({"fta"})))

    assert [(line.state, str(line.direction), line.kind) for line in mine] == [
        ("accepted", "here", "fta"),
        ("sent", "out", "fta"),
        ("receipted", "in", "fta"),
    ]
    assert {line.message_id for line in mine} == {drafts[7].message_id}
    assert [(line.state, str(line.direction)) for line in hhs if line.notice_id == one] == [
        ("received", "in")
    ]
    # Wherever somebody stopped, between the receipts of one record too, the rest is the rest.
    assert cut == [ice[at:] for at in range(1, len(ice) + 1)]
    assert any(line.cursor.part for line in ice)
    assert none == []
    assert len(live) == 3 * len(drafts)
    assert {line.lane for line in live} <= {"live", None}


async def all_sealed(agency: Agency) -> bool:
    return await value(agency, "SELECT count(*) FROM unsealed") == 0


async def test_lines_name_neither_the_child_nor_who_acted(database: Database) -> None:
    record = make_record(
        "notice.dismissed",
        time=datetime.now(UTC),
        notice_id=uuid4(),
        reason="DUPLICATE",
        actor="clerk-7",
        office="HOU",
        text="free words",
    )
    async with opened(database("ice")) as store:
        await keep(store, [record])
        await seal_all(a_sealer(store))

        [line] = await all_lines(store, only=Only(offices=frozenset({"HOU"})))

    assert (line.state, line.reason, line.office) == ("dismissed", "DUPLICATE", "HOU")
    assert "clerk" not in repr(line)
    assert "free words" not in repr(line)


async def test_the_command_writes_each_format_and_refuses_what_cannot_be(
    tmp_path: Path, database: Database
) -> None:
    url = database("ice")
    noticebus = CommandLine(tmp_path / "home", {"NOTICEBUS_DATABASE_URL": url})
    noticebus.home.mkdir()
    async with opened(url) as store:
        await keep(store, some_records(3))
        await seal_all(a_sealer(store))

    def ran(line: str) -> tuple[int, str, str]:
        done = noticebus(f"--agency ice watch {line}")
        return done.code, done.out, done.err

    whole = "--after ice.1.0 --no-follow"
    code, out, _ = ran(f"{whole} -o ndjson")
    assert (code, [json.loads(line)["cursor"] for line in out.splitlines()]) == (
        0, ["ice.1.1", "ice.1.2", "ice.1.3"]
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(ran(f"{whole} -o csv")[1])))
    document = json.loads(ran(f"{whole} -o json")[1])
    assert document["schema"] == "noticebus.v1/watch"
    assert [row["cursor"] for row in rows] == [item["cursor"] for item in document["items"]]
    assert list(rows[0]) == list(document["items"][0])
    table = ran(whole)[1].splitlines()
    assert table[0].split() == (
        "TIME WAY STATE KIND NOTICE OFFICE LANE REASON CURSOR".split()  # noqa: SIM905 - as shown
    )
    assert len(table) == 4
    assert ran(f"{whole} -o plain")[1].count("cursor: ice.1.") == 3

    empty = ran("--no-follow -o csv")
    assert (empty[0], empty[1].strip().split(","), "Nothing" in empty[2]) == (
        0, list(rows[0]), True
    )  # fmt: skip
    for line, exit_code, told in (
        ("-o json", 2, "NB-7011"),
        ("--after ice.1.0 --since 1h", 2, "NB-7011"),
        ("--after 17", 2, "NB-7030"),
        ("--after hhs.1.1", 2, "NB-7031"),
        ("--after ice.1.17", 9, "NB-7032"),
        ("--since soon", 2, "NB-7005"),
        ("--kind letter", 2, "NB-7005"),
        ("--lane fast", 2, "NB-7005"),
        ("--office HSTN", 2, "NB-7005"),
        ("--notice 0123", 3, "NB-7012"),
    ):
        code, out, err = ran(line)
        assert (code, out, told in err) == (exit_code, "", True), err
