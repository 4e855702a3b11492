"""Real servers for the tests, started here and ended with the tests.

Each xdist worker has its own. A fresh database comes from a template that was migrated once, as
copied files; a fresh Redis is the same server, emptied. Tests that kill servers make their own ones
(`own_redis`, `own_postgres`) and leave the shared ones alone: nothing shared ever loses its power,
so its PostgreSQL lies in memory where there is room and does not wait for the disk. Making and
removing the files of thousands of databases there had cost a third of all the time.
"""

import gc
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
from hypothesis import settings as hypothesis
from redis.asyncio import Redis

from services.bus import Publisher
from services.embedded import PostgresServer, RedisServer
from services.settings import BusSettings
from tests.databases import Databases
from tests.lives import STEPS, Life, SavedLives, opened, worked
from tests.replays import SavedWays, Way
from tests.saved import Keeper

# No example is timed: machines differ. Where a verdict hangs on it, each run tries the same ones.
hypothesis.register_profile("house", deadline=None, derandomize="CI" in os.environ)
hypothesis.load_profile("house")

# Files that are held in memory; a container's are often 64 MB.
MEMORY = Path("/dev/shm")  # noqa: S108 - its files are in a folder of our own
MEMORY_BYTES_MIN = 4 * 2**30


def pytest_configure() -> None:
    """Let the commands that tests start hear Ctrl-C, also where a shell started us with `&`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep the collector from walking all that was imported and collected, test after test."""
    gc.freeze()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this worker."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("postgres")
        if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="noticebus-", dir=MEMORY)))
        yield stack.enter_context(PostgresServer(folder, options={"fsync": "off"}))


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
def databases(postgres: PostgresServer) -> Databases:
    """All databases of this worker's tests."""
    return Databases(postgres)


@pytest.fixture
def database(databases: Databases) -> Iterator[Callable[[str], str]]:
    """Make a fresh migrated database: `database("ice")` returns its address."""
    made: list[str] = []

    def make(agency: str) -> str:
        made.append(databases.fresh(agency))
        return made[-1]

    yield make
    for url in made:
        databases.drop(url)


@pytest.fixture(scope="session")
def keeper(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    """Keeps what two agencies did once."""
    return Keeper(databases, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="session")
def saved_lives(keeper: Keeper) -> SavedLives:
    """Lives that were lived once, to be gone on with from where they ended."""
    return SavedLives(keeper)


@pytest.fixture(scope="session")
def saved_ways(keeper: Keeper) -> SavedWays:
    """The way of five notices, gone once."""
    return SavedWays(keeper)


@pytest.fixture
async def way(home: Path, saved_ways: SavedWays, redis_url: str) -> AsyncIterator[Way]:
    """Five notices that were corrected, withdrawn, overtaken, taken and closed; at rest."""
    async with saved_ways.again(home, redis_url) as way:
        yield way


@pytest.fixture
async def whole_life(home: Path, saved_lives: SavedLives, redis_url: str) -> AsyncIterator[Life]:
    """A life after all its steps, at rest."""
    async with saved_lives.after(STEPS, home, redis_url) as life:
        yield life


@pytest.fixture
async def opened_life(home: Path, saved_lives: SavedLives, redis_url: str) -> AsyncIterator[Life]:
    """A life in which notices went out, at rest."""
    async with saved_lives.after((opened,), home, redis_url) as life:
        yield life


@pytest.fixture
async def worked_life(home: Path, saved_lives: SavedLives, redis_url: str) -> AsyncIterator[Life]:
    """A life in which notices went out and people at HHS work on them, at rest."""
    async with saved_lives.after((opened, worked), home, redis_url) as life:
        yield life


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
