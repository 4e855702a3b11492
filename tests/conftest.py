"""Real servers for the tests, started here and ended with the tests.

Each xdist worker has its own. A fresh database comes from a template that was migrated once; a
fresh Redis is the same server, emptied. Tests that kill servers make their own ones (`own_redis`,
`own_postgres`) and leave the shared ones alone.
"""

import asyncio
import inspect
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from services.embedded import PostgresServer, RedisServer


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this worker."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests of this worker; use `redis_url`, which is empty."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty Redis."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(redis_server.socket_path))
        client.sendall(b"FLUSHALL\r\n")
        assert client.recv(64) == b"+OK\r\n"
    return redis_server.url


@pytest.fixture(scope="session")
def templates(postgres: PostgresServer) -> dict[str, str]:
    """Names of migrated template databases by agency, filled as they are asked for."""
    return {}


@pytest.fixture
def database(postgres: PostgresServer, templates: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """Make a fresh migrated database: `database("ice")` returns its address."""
    made: list[str] = []

    def make(agency: str) -> str:
        if agency not in templates:
            name = f"template_{agency}"
            _execute(postgres, "CREATE DATABASE {}", name)
            _migrate(postgres.url_of(name), agency)
            templates[agency] = name
        fresh = f"{agency}_{uuid4().hex}"
        _execute(postgres, "CREATE DATABASE {} TEMPLATE {}", fresh, templates[agency])
        made.append(fresh)
        return postgres.url_of(fresh)

    yield make
    for name in made:
        _execute(postgres, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis of this test alone, to be killed, emptied and started again."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A running PostgreSQL of this test alone, to be killed and started again."""
    with PostgresServer(tmp_path / "postgres") as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, with no settings from the outside."""
    for name in [name for name in os.environ if name.startswith("NOTICEBUS_")]:
        monkeypatch.delenv(name)
    return tmp_path / "home"


def _execute(server: PostgresServer, statement: str, *names: str) -> None:
    text = sql.SQL(statement).format(*map(sql.Identifier, names))
    with psycopg.connect(server.url, autocommit=True, connect_timeout=10) as connection:
        connection.execute(text)


def _migrate(url: str, agency: str) -> None:
    from services.ledger import store

    failures: list[BaseException] = []

    def run() -> None:
        try:
            result = store.migrate(url, agency)
            if inspect.isawaitable(result):
                asyncio.run(_wait(result))
        except BaseException as error:  # noqa: BLE001  (raised again in the test's thread)
            failures.append(error)

    # A thread of its own, because the test's event loop may run in this one.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


async def _wait(result: object) -> None:
    assert inspect.isawaitable(result)
    await result
