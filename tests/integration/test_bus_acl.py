"""The ACL file lets each agency do what the bus does, and nothing else (real server)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from services.bus import Entry, Publisher, Reader, Verdict, group_status
from services.bus.acl import acl_lines
from services.embedded import RedisServer
from services.settings import Settings

ICE_WORD, HHS_WORD = "ice's own", "hhs's own"
TO_HHS = "{ice.hhs.live.0}:out"
TO_ICE = "{hhs.ice.control.0}:out"
SETTINGS = Settings(agency="hhs")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("guarded")
    lines = acl_lines(
        {
            "ice": hashlib.sha256(ICE_WORD.encode()).hexdigest(),
            "hhs": "#" + hashlib.sha256(HHS_WORD.encode()).hexdigest(),
        }
    )
    operator = "user operator on nopass ~* &* +@all"
    file = folder / "users.acl"
    file.write_text("\n".join(["user default off resetkeys -@all", operator, *lines]) + "\n")
    with RedisServer(folder / "redis", options=("--aclfile", str(file))) as server:
        yield server


def url_of(server: RedisServer, agency: str) -> str:
    word = {"ice": ICE_WORD, "hhs": HHS_WORD}[agency].replace(" ", "%20").replace("'", "%27")
    return f"unix://{agency}:{word}@{server.socket_path}"


@pytest_asyncio.fixture
async def ice(guarded: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(url_of(guarded, "ice"))
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def operator(guarded: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(f"unix://operator:any@{guarded.socket_path}")
    await client.flushall()
    await client.acl_log_reset()
    yield client
    await client.aclose()


async def test_publisher_and_reader_need_nothing_that_is_not_granted(
    guarded: RedisServer, operator: Redis
) -> None:
    taken: list[bytes] = []
    stop = asyncio.Event()

    async def take(entries: Sequence[Entry]) -> list[Verdict]:
        taken.extend(entry.jws for entry in entries)
        stop.set()
        return [Verdict.ACKNOWLEDGE] * len(entries)

    async def failed(entry: Entry, error: Exception) -> bool:
        raise AssertionError from error

    async with Publisher.open(url_of(guarded, "ice"), settings=SETTINGS.bus) as publisher:
        await publisher.ping()
        first, second, third = await publisher.publish(TO_HHS, [b"trimmed", b"one", b"two"])
        # Entries that a killed predecessor was given, and one of them removed meanwhile.
        await operator.xgroup_create(TO_HHS, "hhs", id="0")
        await operator.xreadgroup("hhs", "hhs-0", {TO_HHS: ">"}, count=3)
        assert await publisher.trim(TO_HHS, second) == 1
        reader = Reader(
            url_of(guarded, "hhs"),
            stream=TO_HHS,
            group="hhs",
            consumer="hhs-0",
            take=take,
            failed=failed,
            settings=SETTINGS,
        )
        async with asyncio.timeout(20):
            await reader.run(stop)

        assert taken == [b"one", b"two"]
        assert reader.trimmed == 1
        assert await publisher.acknowledged_up_to(TO_HHS, group="hhs") == third
        assert await publisher.held(TO_HHS, [first, third]) == [False, True]
        assert await publisher.length(TO_HHS) == 2
        await publisher.trim_length(TO_HHS, 1)
        assert (await group_status(url_of(guarded, "ice"), TO_HHS, settings=SETTINGS.bus))[
            0
        ].lag == 0
        assert await group_status(url_of(guarded, "hhs"), TO_HHS, settings=SETTINGS.bus)

    denied = [line["object"] for line in await operator.acl_log()]
    assert denied == []


@pytest.mark.parametrize(
    "command",
    [
        f"XADD {TO_ICE} * jws forged",
        f"XTRIM {TO_ICE} MAXLEN 0",
        f"XDEL {TO_ICE} 1-1",
        f"XREADGROUP GROUP hhs hhs-0 STREAMS {TO_HHS} >",
        f"XGROUP CREATE {TO_HHS} mine 0",
        f"XACK {TO_HHS} hhs 1-1",
        f"XGROUP DESTROY {TO_ICE} ice",
        f"XGROUP SETID {TO_ICE} ice 0",
        f"XREAD STREAMS {TO_ICE} 0",
        f"DEL {TO_ICE}",
        f"DEL {TO_HHS}",
        f"RENAME {TO_ICE} {TO_HHS}",
        "XADD {ice.doj.live.0}:out * jws x",
        "XRANGE {doj.hhs.live.0}:out - +",
        "XADD other * jws x",
        "SET key value",
        "GET key",
        "PUBLISH channel x",
        "SUBSCRIBE channel",
        "FLUSHALL",
        "KEYS *",
        "SCAN 0",
        "CONFIG GET *",
        "ACL LIST",
        "MONITOR",
        "SHUTDOWN",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "EVAL return(1) 0",
        "INFO",
    ],
)
async def test_everything_else_is_refused(ice: Redis, operator: Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        await ice.execute_command(*command.split(" "))  # type: ignore[no-untyped-call]  # redis-py


async def test_lines_hold_no_password_and_no_key_beyond_the_two_directions(tmp_path: Path) -> None:
    lines = acl_lines({"ice": "a" * 64, "hhs": "b" * 64})

    assert len(lines) == 2
    assert lines[0].startswith(f"user ice on #{'a' * 64} resetkeys resetchannels -@all")
    assert "~{ice.hhs.*}:out -@all +xadd" in lines[0]
    assert "~{hhs.ice.*}:out -@all +xreadgroup" in lines[0]
    assert "~*" not in "".join(lines)
