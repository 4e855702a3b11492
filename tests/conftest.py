"""Real servers for the tests, started here and ended with the tests.

Each xdist worker has its own. A fresh database comes from a template that was migrated once; a
fresh Redis is the same server, emptied. Tests that kill servers make their own ones (`own_redis`,
`own_postgres`) and leave the shared ones alone.
"""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from hypothesis import settings as hypothesis
from psycopg import sql
from redis.asyncio import Redis

from services.bus import Publisher
from services.embedded import PostgresServer, RedisServer
from services.ledger.store import migrate
from services.settings import BusSettings

# No example is timed: machines differ. Where a verdict hangs on it, each run tries the same ones.
hypothesis.register_profile("house", deadline=None, derandomize="CI" in os.environ)
hypothesis.load_profile("house")


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


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the empty Redis, for what an operator or a fault does."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def publisher(redis_url: str) -> AsyncIterator[Publisher]:
    """A publisher onto the empty Redis."""
    async with Publisher.open(redis_url, settings=BusSettings()) as open_publisher:
        yield open_publisher


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
            migrate(postgres.url_of(name), agency)
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
