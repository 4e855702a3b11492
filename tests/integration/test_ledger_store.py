"""The store: transactions that end, records in order, outages that are told apart from bugs."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from schemas.errors import ConflictError, RejectedError, UnavailableError
from services.embedded import PostgresServer
from services.exchange.store import gaps, incoming
from services.ledger.records import make_record
from services.ledger.store import Store, Transaction, append, migrate, notify, together
from services.ledger.store.migration import MIGRATIONS
from tests.ledgers import keep, opened, some_records, until

NEWEST = max(file.name[:4] for file in (MIGRATIONS / "versions").glob("*.py"))

Database = Callable[[str], str]


def rows(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, connect_timeout=10) as connection:
        return connection.execute(statement.encode()).fetchall()


async def test_record_ids_come_back_in_input_order(database: Database) -> None:
    url = database("ice")
    records = some_records(300)
    async with opened(url) as store:
        ids = await keep(store, records)

    stored = {row[0]: row[1] for row in rows(url, "SELECT record_id, record FROM record")}

    assert [stored[record_id] for record_id in ids] == [r.record for r in records]
    assert ids == sorted(ids)


async def test_what_is_appended_can_be_searched_and_opened(database: Database) -> None:
    url = database("hhs")
    record = make_record("case.taken", time=datetime.now(UTC), actor="R. Alvarez")
    async with opened(url) as store:
        (record_id,) = await keep(store, [*some_records(1), record][1:], owes="ice")

    assert rows(url, "SELECT record_id, action, recorded_at, record FROM record") == [
        (record_id, "case.taken", record.recorded_at, record.record)
    ]
    assert rows(url, "SELECT * FROM opening") == [(record_id, record.opened)]
    assert rows(url, "SELECT * FROM unsealed") == [(record_id, "ice")]


async def test_appending_nothing_writes_nothing(database: Database) -> None:
    async with opened(database("ice")) as store:
        assert await keep(store, []) == []


async def test_error_in_a_transaction_leaves_nothing_behind(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:

        async def fail() -> None:
            async with store.transaction() as tx:
                await append(tx, some_records(3), owes="hhs")
                raise KeyError

        with pytest.raises(KeyError):
            await fail()

    assert rows(url, "SELECT * FROM record") == rows(url, "SELECT * FROM unsealed") == []


async def test_pipelined_transaction_is_written_whole_or_not_at_all(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:

        async def fail() -> None:
            async with store.pipelined() as tx:
                await append(tx, some_records(3))
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        left = rows(url, "SELECT count(*) FROM record")
        async with store.pipelined() as tx:
            await append(tx, some_records(3))

    assert left == [(0,)]
    assert rows(url, "SELECT count(*) FROM record") == [(3,)]


async def test_statement_of_a_pipelined_transaction_that_fails_at_its_end_undoes_it(
    database: Database,
) -> None:
    url = database("ice")
    twice = "INSERT INTO answer_batch (first_index, size, message_id) VALUES (0, 1, %s)"
    async with opened(url) as store:

        async def fail() -> None:
            async with store.pipelined() as tx:
                await append(tx, some_records(3))
                for _ in range(2):
                    await tx.execute(twice, [UUID(int=1)])

        with pytest.raises(psycopg.errors.UniqueViolation):
            await fail()
        async with store.transaction() as tx:
            await append(tx, some_records(1))

    assert rows(url, "SELECT count(*) FROM record") == [(1,)]
    assert rows(url, "SELECT * FROM answer_batch") == []


async def test_failure_that_somebody_caught_is_no_commit(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:

        async def fail() -> None:
            async with store.pipelined() as tx:
                await append(tx, some_records(3))
                with suppress(psycopg.errors.DivisionByZero):
                    async with tx.pipeline():
                        await tx.execute("SELECT 1 / 0")

        with pytest.raises(UnavailableError, match="NB-5001"):
            await fail()

    assert rows(url, "SELECT * FROM record") == []


async def test_what_is_asked_together_is_answered_in_its_order_behind_the_lock(
    database: Database,
) -> None:
    """The second asks when the first has committed, and sees what that one wrote."""
    url = database("hhs")
    stream = "{ice.hhs.live.0}:out"
    async with opened(url) as store:

        async def second() -> tuple[int, list[tuple[int, int]]]:
            async with store.pipelined() as tx:
                return await together(incoming.lock_stream(tx, stream, 1), gaps.of(tx, stream, 1))

        async with store.transaction() as first:
            await incoming.lock_stream(first, stream, 1)
            waiting = asyncio.create_task(second())
            await until(lambda: _somebody_waits(url))
            await incoming.set_highest(first, stream, 1, 7)
            await gaps.change(first, stream, 1, closed=[], opened=[(2, 3)], now=datetime.now(UTC))

        assert await waiting == (7, [(2, 3)])


async def test_first_failure_of_what_is_asked_together_is_told(database: Database) -> None:
    async with opened(database("ice")) as store:

        async def ask(tx: Transaction, query: LiteralString) -> object:
            return await (await tx.execute(query)).fetchone()

        async def fail() -> None:
            async with store.pipelined() as tx:
                await together(
                    ask(tx, "SELECT 1"), ask(tx, "SELECT 1 / 0"), ask(tx, "SELECT no_column")
                )

        with pytest.raises(psycopg.errors.DivisionByZero):
            await fail()
        async with store.pipelined() as tx:
            answers = await together(ask(tx, "SELECT 1"), ask(tx, "SELECT 2"))

    assert answers == ((1,), (2,))


async def test_rows_of_a_pipeline_are_not_counted_before_they_were_fetched(
    database: Database,
) -> None:
    async with opened(database("ice")) as store, store.pipelined() as tx:
        cursor = await tx.execute("SELECT generate_series(1, 3)")

        with pytest.raises(psycopg.ProgrammingError, match="fetching"):
            assert cursor.rowcount
        await cursor.fetchall()
        assert cursor.rowcount == 3


async def _somebody_waits(url: str) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    return await asyncio.to_thread(rows, url, query) != [(0,)]


@pytest.mark.parametrize("table", ["record", "log_entry", "tile", "checkpoint"])
@pytest.mark.parametrize("verb", ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET {}"])
async def test_audited_tables_only_grow(database: Database, table: str, verb: str) -> None:
    column = {
        "record": "action = 'x'",
        "log_entry": "record_id = 1",
        "tile": "n = 1",
        "checkpoint": "note = ''",
    }[table]

    url = database("ice")
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.execute(
            "INSERT INTO record (action, recorded_at, record) VALUES ('a', now(), 'some bytes')"
        )
    with (
        psycopg.connect(url, connect_timeout=10) as connection,
        pytest.raises(psycopg.errors.RestrictViolation, match="append-only"),
    ):
        connection.execute(verb.format(table, column).encode())


@pytest.mark.parametrize("agency", ["ice", "hhs"])
def test_migrations_run_from_empty_and_twice(postgres: PostgresServer, agency: str) -> None:
    name = f"empty_{agency}"
    with psycopg.connect(postgres.url, autocommit=True, connect_timeout=10) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = postgres.url_of(name)
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"

    migrate(url, agency)
    first = rows(url, tables)
    migrate(url, agency)

    assert rows(url, tables) == first
    assert rows(url, "SELECT version_num FROM alembic_version") == [(NEWEST,)]


async def test_migrations_that_start_together_wait_for_each_other(
    postgres: PostgresServer,
) -> None:
    with psycopg.connect(postgres.url, autocommit=True, connect_timeout=10) as connection:
        connection.execute(b"CREATE DATABASE together")
    url = postgres.url_of("together")

    await asyncio.gather(*(asyncio.to_thread(migrate, url, "ice") for _ in range(4)))

    assert rows(url, "SELECT version_num FROM alembic_version") == [(NEWEST,)]


def test_database_of_the_other_agency_is_refused(database: Database) -> None:
    with pytest.raises(ConflictError) as caught:
        migrate(database("ice"), "hhs")

    assert caught.value.code == "NB-5011"
    assert "ice" in caught.value.sentence


async def test_store_before_migration_says_so(postgres: PostgresServer) -> None:
    async with opened(postgres.url) as store:
        with pytest.raises(UnavailableError) as caught:
            await keep(store, some_records(1))

    assert caught.value.code == "NB-5010"


@pytest.mark.parametrize(
    "connect", [Store.open, lambda url: asyncio.to_thread(migrate, url, "ice")]
)
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody@127.0.0.1:1/none",
        "postgresql:///none?host=/nowhere",
    ],
)
async def test_address_where_nothing_answers_is_unavailable(
    connect: Callable[[str], Any], url: str
) -> None:
    with pytest.raises(UnavailableError) as caught:
        await connect(url)

    assert caught.value.code == "NB-5001"


@pytest.mark.parametrize("url", ["postgresql://u:secret@[", "secret", "http://u:secret@host/x"])
async def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(RejectedError) as caught:
        await Store.open(url)

    assert caught.value.code == "NB-5012"
    assert "secret" not in str(caught.value)


async def test_statement_that_takes_too_long_is_given_up(database: Database) -> None:
    async with opened(database("ice")) as store:

        async def wait_long() -> None:
            async with store.transaction() as tx:
                await tx.execute("SET LOCAL statement_timeout = 50")
                await tx.execute("SELECT pg_sleep(30)")

        with pytest.raises(UnavailableError, match="statement timeout"):
            await wait_long()
        assert await keep(store, some_records(1))


@pytest.mark.parametrize(
    "setting",
    ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"],
)
async def test_every_transaction_has_timeouts(database: Database, setting: str) -> None:
    async with opened(database("ice")) as store, store.transaction() as tx:
        cursor = await tx.execute("SELECT current_setting(%s)", [setting])
        row = await cursor.fetchone()

    assert row is not None
    assert row[0] not in ("0", "")


async def test_server_that_falls_silent_is_given_up(own_postgres: PostgresServer) -> None:
    """Stopped, not killed: its sockets stay open and nothing answers."""
    async with opened(own_postgres.url) as store, store.session() as session:
        async with session.transaction() as tx:
            backend = tx.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                async with session.transaction(seconds=0.2) as tx:
                    await tx.execute("SELECT 1")
            assert time.monotonic() - started < 5
        finally:
            os.kill(backend, signal.SIGCONT)


async def test_store_goes_on_after_the_server_was_restarted(own_postgres: PostgresServer) -> None:
    await asyncio.to_thread(migrate, own_postgres.url, "ice")
    async with opened(own_postgres.url) as store:
        # Several connections in the pool, all of which the restart ends.
        await asyncio.gather(*(keep(store, some_records(5)) for _ in range(6)))
        own_postgres.kill()
        for _ in range(7):
            with pytest.raises(UnavailableError) as caught:
                await asyncio.wait_for(keep(store, some_records(1)), 5)
            assert caught.value.code == "NB-5001"
        own_postgres.start()

        ids = await asyncio.gather(*(keep(store, some_records(5)) for _ in range(6)))

    assert [len(each) for each in ids] == [5] * 6


async def test_transactions_beyond_the_limit_wait_their_turn(database: Database) -> None:
    url = database("ice")
    most = 0

    async def work(store: Store) -> None:
        nonlocal most
        async with store.transaction() as tx:
            cursor = await tx.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            (row,) = await cursor.fetchall()
            most = max(most, row[0])

    async with await Store.open(url, pool_max=2) as store:
        await asyncio.gather(*(work(store) for _ in range(20)))

    assert most == 2


async def test_wait_for_a_connection_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ledger.store.connection.SLOT_WAIT_SECONDS", 0.05)
    async with await Store.open(database("ice"), pool_max=1) as store:
        async with store.transaction():
            with pytest.raises(UnavailableError, match="in use"):
                await keep(store, some_records(1))
        assert await keep(store, some_records(1))


async def test_connection_of_a_cancelled_transaction_is_not_given_out_again(
    database: Database,
) -> None:
    async with await Store.open(database("ice"), pool_max=1) as store:

        async def wait_long() -> None:
            async with store.transaction() as tx:
                await append(tx, some_records(1))
                await tx.execute("SELECT pg_sleep(30)")

        task = asyncio.create_task(wait_long())
        while not task.done():
            async with store.session() as session, session.transaction() as tx:
                cursor = await tx.execute(
                    "SELECT FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event = 'PgSleep'"
                )
                if await cursor.fetchall():
                    task.cancel()
                    await asyncio.wait([task])
        assert task.cancelled()

        assert await keep(store, some_records(1))

        async with store.transaction() as tx:
            cursor = await tx.execute("SELECT count(*) FROM record")
            assert await cursor.fetchall() == [(1,)]


async def test_listener_hears_what_was_committed_and_begins_with_every_channel(
    database: Database,
) -> None:
    stop = asyncio.Event()
    async with opened(database("ice")) as store:
        heard = store.listen(["outbox", "party"], stop)
        async with asyncio.timeout(10):
            assert [await anext(heard), await anext(heard)] == ["outbox", "party"]
            async with store.transaction() as tx:
                await notify(tx, "party")
                await notify(tx, "elsewhere")

            assert await anext(heard) == "party"

            stop.set()
            with pytest.raises(StopAsyncIteration):
                await anext(heard)


async def test_listener_ends_with_its_connection(database: Database) -> None:
    async with opened(database("ice")) as store:
        heard = store.listen(["outbox"], asyncio.Event())
        async with asyncio.timeout(10):
            await anext(heard)
            async with store.transaction() as tx:
                await tx.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

            with pytest.raises(UnavailableError):
                await anext(heard)
