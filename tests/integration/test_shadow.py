"""Projections made again from records and contents are the live ones, or what differs is named."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from schemas import codes
from schemas.codes.entries import Clock
from services.exchange.agency import Agency
from services.replay.shadow import PRIMARY, TABLES, shadow
from tests.agencies import value
from tests.lives import Life, a_life, lived
from tests.notices_made import opened_store
from tests.replays import Way
from tests.steps import change

Change = tuple[str, str, list[tuple[str, str, object, object]]]

# For each table: what is changed by hand of one notice, and all that is named for it.
CHANGES: dict[str, list[Change]] = {
    "hhs": [
        (
            "case_file",
            "UPDATE case_file SET office = 'MIA', due_at = due_at WHERE notice_id = %s",
            [("case_file", "office", "MIA", "HOU")],
        ),
        (
            "case_event",
            "UPDATE case_event SET code = 'X' WHERE notice_id = %s AND event = 'closed'",
            [("case_event", "code", "X", "NOT_REACHED")],
        ),
        (
            "sent",
            "UPDATE sent SET answer_code = 'NB-0000' WHERE notice_id = %s AND kind = 'outcome'",
            [("sent", "answer_code", "NB-0000", None)],
        ),
    ],
    "ice": [
        (
            "obligation",
            "UPDATE obligation SET state = 'dismissed', a_number = 'A000000000'"
            " WHERE notice_id = %s",
            [
                ("obligation", "state", "dismissed", "recorded"),
                ("obligation", "a_number", None, None),
                ("notice", "state", "dismissed", "closed"),
            ],
        ),
        (
            "notice_revision",
            "UPDATE notice_revision SET notice_kind = 'CORRECTION' WHERE notice_id = %s",
            [("notice_revision", "notice_kind", "CORRECTION", "NEW")],
        ),
        (
            "alias",
            "DELETE FROM alias WHERE notice_id = %s AND kind = 'case'",
            [("alias", "(row)", None, "there")],
        ),
        (
            "reply",
            "DELETE FROM reply WHERE notice_id = %s AND kind = 'outcome'",
            [("reply", "(row)", None, "there"), ("notice", "state", "acknowledged", "closed")],
        ),
        (
            "sent",
            "UPDATE sent SET answer = 'refusal' WHERE notice_id = %s",
            [("sent", "answer", "refusal", "receipt")],
        ),
    ],
}


@pytest.fixture
async def life(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Life]:
    async with a_life(home, database, redis_url) as life:
        yield life


@asynccontextmanager
async def kept(agency: Agency, table: str) -> AsyncIterator[None]:
    """Put a table back as it was."""
    await change(agency, f"CREATE TABLE kept AS SELECT * FROM {table}")  # noqa: S608 - constants
    yield
    await change(agency, f"DELETE FROM {table}")  # noqa: S608 - constants
    overriding = " OVERRIDING SYSTEM VALUE" if table == "case_event" else ""
    await change(agency, f"INSERT INTO {table}{overriding} SELECT * FROM kept")  # noqa: S608 - constants
    await change(agency, "DROP TABLE kept")


async def test_state_is_what_records_and_contents_make_of_it_all_along(life: Life) -> None:
    async def compare(step: str) -> None:
        for agency in (life.pair.ice, life.pair.hhs):
            found = await shadow(agency.store, agency.name)
            assert not found.differing, (step, agency.name, found.differences)
            assert found.tombstones == 0
            compared[agency.name] = found.rows

    compared: dict[str, Mapping[str, int]] = {}
    await lived(life, compare)

    assert compared == {
        "ice": {
            "obligation": 14,
            "notice_revision": 16,
            "alias": 6,
            "reply": 7,
            "sent": 16,
            "notice": 14,
        },
        "hhs": {"case_file": 12, "case_event": 14, "sent": 7},
    }


async def test_a_case_stays_due_by_the_policy_that_its_opening_names(
    opened_life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version, in force since, has other clocks; nobody took these cases yet."""
    listed = codes.policies()
    first = codes.policy()
    clocks = dict.fromkeys(first.clocks, Clock(seconds=60))
    later = replace(first, version=f"{first.version}.1", clocks=clocks)
    monkeypatch.setattr(
        codes,
        "policies",
        lambda: replace(listed, codes={**listed.codes, later.version: later}),
    )
    assert codes.policy() is later

    for agency in (opened_life.pair.hhs, opened_life.pair.ice):
        found = await shadow(agency.store, agency.name)

        assert found.compared >= 5
        assert not found.differing, found.differences


async def test_what_overtook_an_earlier_revision_took_effect_in_its_turn(way: Way) -> None:
    for agency in (way.hhs, way.ice):
        found = await shadow(agency.store, agency.name)

        assert not found.differing, found.differences


async def test_a_changed_row_of_any_table_is_named_exactly(whole_life: Life) -> None:
    """Each change is made by hand in a life that was equal, and taken back after it was found."""
    notice_id = whole_life.notices[1]
    for agency, changes in CHANGES.items():
        side: Agency = getattr(whole_life.pair, agency)
        assert {table for table, *_ in changes} == {t.name for t in TABLES[agency]} - {"notice"}
        for table, statement, expected in changes:
            async with kept(side, table):
                await change(side, statement, notice_id)

                found = await shadow(side.store, agency)

            assert {(d.table, d.column, d.live, d.rebuilt) for d in found.differences} == set(
                expected
            ), table
            assert {d.notice_id for d in found.differences} == {notice_id}
            assert found.differing == len(expected)
        assert not (await shadow(side.store, agency)).differing


async def test_what_says_who_somebody_is_never_leaves_the_store(whole_life: Life) -> None:
    await change(
        whole_life.pair.hhs, "UPDATE case_file SET owner = 'somebody else' WHERE owner IS NOT NULL"
    )
    await change(whole_life.pair.hhs, "UPDATE case_event SET actor = 'somebody else'")
    await change(
        whole_life.pair.ice, "UPDATE obligation SET a_number = 'A9' || substr(a_number, 3)"
    )
    await change(whole_life.pair.ice, "DELETE FROM alias")

    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        found = await shadow(agency.store, agency.name)

        said = repr(found)
        for secret in ("somebody", "clerk", "A9000", "A1000", "1000702", "3000801"):
            assert secret not in said
        assert found.differing


async def test_erased_contents_and_names_are_tombstones_and_no_differences(
    whole_life: Life,
) -> None:
    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        await change(agency, "UPDATE payload SET salt = NULL, body = NULL, erased_at = now()")
        await change(agency, "DELETE FROM opening")

        found = await shadow(agency.store, agency.name)

        assert not found.differing, found.differences
        assert found.tombstones >= 15


@pytest.mark.parametrize(
    ("statement", "table", "state"),
    [
        ("UPDATE payload SET body = body || ' ' WHERE message_id = %s", "payload", "altered"),
        ("DELETE FROM payload WHERE message_id = %s", "payload", "lost"),
        (
            "UPDATE opening SET opened = jsonb_set(opened, '{actor,value}', '\"x\"')"
            " WHERE record_id = (SELECT max(record_id) FROM record WHERE message_id IS NOT NULL"
            " AND action = 'case.taken') AND %s::uuid IS NOT NULL",
            "opening",
            "altered",
        ),
    ],
)
async def test_a_content_or_name_that_no_record_bound_is_named(
    worked_life: Life, statement: str, table: str, state: str
) -> None:
    hhs = worked_life.pair.hhs
    message_id = await value(hhs, "SELECT message_id FROM case_file ORDER BY notice_id LIMIT 1")
    await change(hhs, statement, message_id)

    found = await shadow(hhs.store, "hhs")

    [difference] = [each for each in found.differences if each.table == table]
    assert (difference.live, difference.rebuilt) == (state, None)


async def test_nothing_is_left_behind_by_a_comparison_that_ended_or_was_interrupted(
    opened_life: Life,
) -> None:
    hhs = opened_life.pair.hhs
    schemas = "SELECT count(*) FROM pg_namespace WHERE nspname NOT LIKE 'pg_%%'"
    before = await value(hhs, schemas)
    reached = asyncio.Event()

    task = asyncio.create_task(shadow(hhs.store, "hhs", progress=lambda *_: reached.set()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await shadow(hhs.store, "hhs")

    assert await value(hhs, schemas) == before


async def test_every_column_of_a_projection_is_compared_or_said_to_be_primary(
    database: Callable[[str], str],
) -> None:
    """A new column has to be decided on: derived and compared, or primary with its reason."""
    for agency, tables in TABLES.items():
        async with opened_store(database(agency), agency) as store, store.transaction() as tx:
            for table in tables:
                cursor = await tx.execute(
                    "SELECT column_name FROM information_schema.columns"
                    " WHERE table_schema = 'public' AND table_name = %s",
                    [table.name],
                )
                columns = {row[0] for row in await cursor.fetchall()}
                known = {*table.key, *table.columns}
                primary = {column for name, column in PRIMARY if name == table.name}
                if table.name != "notice":
                    assert columns == known | primary, table.name
                assert table.personal <= known
