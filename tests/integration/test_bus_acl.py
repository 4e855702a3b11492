"""The ACL file lets each agency do what the bus does, and nothing else (real server)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from services.bus import (
    Entry,
    Group,
    History,
    Publisher,
    Reader,
    Verdict,
    acl,
    connected,
    group_status,
)
from services.bus.acl import acl_lines
from services.embedded import RedisServer
from services.settings import Settings
from tests.agencies import until

ICE_WORD, HHS_WORD = "ice's own", "hhs's own"
TO_HHS = "{ice.hhs.live.0}:out"
TO_ICE = "{hhs.ice.control.0}:out"
SETTINGS = Settings(agency="hhs")


def users() -> str:
    """Return an ACL file as `init` writes it, with an operator added."""
    lines = acl_lines(
        {
            "ice": hashlib.sha256(ICE_WORD.encode()).hexdigest(),
            "hhs": "#" + hashlib.sha256(HHS_WORD.encode()).hexdigest(),
        }
    )
    operator = "user operator on nopass ~* &* +@all"
    return "\n".join(["user default off resetkeys -@all", operator, *lines]) + "\n"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("guarded")
    file = folder / "users.acl"
    file.write_text(users())
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
    # Whatever a test made of the file.
    (guarded.folder.parent / "users.acl").write_text(users())
    await client.acl_load()
    await client.aclose()


async def work(server: RedisServer, operator: Redis, stop: asyncio.Event) -> None:
    """Do everything that the two agencies do on the bus, each as its own user.

    `stop` is set once the reader took what there is; whoever sets it before ends the reader.
    """
    taken: list[bytes] = []

    async def take(entries: Sequence[Entry]) -> list[Verdict]:
        taken.extend(entry.jws for entry in entries)
        if len(taken) == 2:
            stop.set()
        return [Verdict.ACKNOWLEDGE] * len(entries)

    async def failed(entry: Entry, error: Exception) -> bool:
        raise AssertionError from error

    ice_url, hhs_url = url_of(server, "ice"), url_of(server, "hhs")
    async with Publisher.open(ice_url, settings=SETTINGS.bus) as publisher:
        await publisher.ping()
        first, second, third = await publisher.publish(TO_HHS, [b"trimmed", b"one", b"two"])
        # Entries that a killed predecessor was given, and one of them removed meanwhile.
        await operator.xgroup_create(TO_HHS, "hhs", id="0")
        await operator.xreadgroup("hhs", "hhs-0", {TO_HHS: ">"}, count=2)
        assert await publisher.trim(TO_HHS, second) == 1
        reader = Reader(
            hhs_url,
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
        holding = await publisher.holding(TO_HHS)
        assert holding is not None
        assert [entry.jws async for page in publisher.pages(TO_HHS) for entry in page] == taken
        assert await publisher.has_group(TO_HHS, "hhs")
        await publisher.trim_length(TO_HHS, 1)
        assert (await group_status(ice_url, TO_HHS, settings=SETTINGS.bus))[0].lag == 0
    async with (
        connected(hhs_url, SETTINGS.bus) as client,
        Publisher.open(hhs_url, settings=SETTINGS.bus) as other,
    ):
        # What a person at the other end looks at, and an idle consumer that is removed.
        assert await group_status(hhs_url, TO_HHS, settings=SETTINGS.bus)
        assert await other.holding(TO_HHS) is not None
        await operator.xadd(TO_HHS, {"jws": b"three"})
        await operator.xreadgroup("hhs", "hhs-7", {TO_HHS: ">"}, count=1)
        idle = Group(client, TO_HHS, "hhs", "hhs-7")
        assert (await idle.hand_over("hhs-0")).trimmed == []
        assert await idle.leave() == 0


async def test_publisher_and_reader_need_nothing_that_is_not_granted(
    guarded: RedisServer, operator: Redis
) -> None:
    await work(guarded, operator, asyncio.Event())

    denied = [line["object"] for line in await operator.acl_log()]
    assert denied == []


async def test_a_stream_of_replays_is_written_and_read_without_a_group(
    guarded: RedisServer, operator: Redis
) -> None:
    async with History.open(url_of(guarded, "hhs"), settings=SETTINGS.bus) as history:
        assert await history.last_id("{replay.x}") is None
        for _ in range(2):
            await history.append("{replay.x}", [("5-1", b"a"), ("5-2", b"b")], entries_max=10)
        found = [entry async for entries in history.entries("{replay.x}") for entry in entries]
        [first, gone] = await history.read("{replay.x}", ["5-1", "5-9"])
        last = await history.last_id("{replay.x}")

    assert [(entry.entry_id, entry.jws) for entry in found] == [("5-1", b"a"), ("5-2", b"b")]
    assert (first, gone, last) == (found[0], None, "5-2")
    assert await operator.acl_log() == []


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
        "XADD {replay.x}:out * jws x",
        "DEL {replay.x}",
        "XGROUP CREATE {replay.x} mine 0",
        "XREADGROUP GROUP hhs hhs-0 STREAMS {replay.x} >",
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


# What each agency may do, said a second time and by another hand than `services.bus.acl`: a command
# with its arguments, and on which streams it is allowed.
OWN, PEER, FOREIGN = TO_HHS, TO_ICE, "{ice.doj.live.0}:out"
REPLAYED = "{replay.test}"
ALLOWED = {
    "XADD {} * jws x": {OWN, REPLAYED},
    "XTRIM {} MAXLEN 0": {OWN},
    "XRANGE {} - +": {OWN, PEER, REPLAYED},
    "XLEN {}": {OWN, PEER, REPLAYED},
    "XPENDING {} group": {OWN, PEER},
    "XINFO STREAM {}": {OWN, PEER, REPLAYED},
    "XINFO GROUPS {}": {OWN, PEER},
    "XINFO CONSUMERS {} group": {OWN, PEER},
    "XREADGROUP GROUP group me STREAMS {} >": {PEER},
    "XACK {} group 1-1": {PEER},
    "XCLAIM {} group me 0 1-1": {PEER},
    "XGROUP CREATE {} group 0": {PEER},
    "XGROUP DELCONSUMER {} group me": {PEER},
}
ANYWHERE = ("PING", "CLIENT SETINFO LIB-NAME x")
# Open to everyone who is not even logged in; no grant is needed and none can take them away.
WITHOUT_GRANT = {"hello", "auth", "quit", "reset"}
# Containers are allowed by their subcommands.
IN_PART = {"client", "xinfo", "xgroup"}


async def may(operator: Redis, line: str) -> bool:
    """Say whether ICE's user would be let do this; nothing is done."""
    said = await operator.execute_command("ACL", "DRYRUN", "ice", *line.split(" "))  # type: ignore[no-untyped-call]  # redis-py
    return bool(said == b"OK")


async def granted(operator: Redis) -> set[tuple[str, str]]:
    """Return where ICE's user is granted what, as the server lists it: (place, command)."""
    lines: Any = await operator.acl_list()
    (line,) = [each for each in map(str, lines) if each.startswith("user ice ")]
    root, *selectors = line.split("(")
    places = {"": root} | {each.split("}")[0].split("{")[1]: each for each in selectors}
    return {
        (place, word.removeprefix("+").rstrip(")"))
        for place, text in places.items()
        for word in text.split()
        if word.startswith("+")
    }


def expected() -> set[tuple[str, str]]:
    """Return the same as `granted`, from the table."""
    places = {OWN: "ice.hhs.*", PEER: "hhs.ice.*", REPLAYED: "replay.*"}
    found = set()
    for line, streams in ALLOWED.items():
        words = line.lower().split(" ")
        name = "|".join(words[:2]) if words[0] in IN_PART else words[0]
        found |= {(places[stream], name) for stream in streams}
    return found | {("", "ping"), ("", "client|setinfo")}


async def may_somehow(operator: Redis, name: str, stream: str) -> bool:
    """Say whether ICE's user may call a command on a stream, with any number of arguments."""
    for count in range(8):
        try:
            return await may(operator, " ".join([*name.split("|"), *[stream] * count]))
        except ResponseError:
            # Not so many; or none of these words is what it wants.
            continue
    return False


async def verdict(operator: Redis) -> list[str]:
    """Return where the users' rights differ from what they have to be."""
    found = [line for line in ANYWHERE if not await may(operator, line)]
    for line, streams in ALLOWED.items():
        for stream in (OWN, PEER, REPLAYED, FOREIGN, "other"):
            if await may(operator, line.format(stream)) != (stream in streams):
                found.append(line.format(stream))
    found += [" ".join(each) for each in sorted(await granted(operator) ^ expected())]
    return found


async def beyond_the_table(operator: Redis) -> list[str]:
    """Return every other command that the server has and ICE's user may call."""
    found = []
    named = {line.split(" ")[0].lower() for line in ALLOWED}
    parts = {"|".join(line.lower().split(" ")[:2]) for line in (*ALLOWED, *ANYWHERE)}
    listed: Any = await operator.execute_command("COMMAND LIST")  # type: ignore[no-untyped-call]  # redis-py
    names = {name.decode() for name in listed}
    for name in sorted(names - named - parts - WITHOUT_GRANT - IN_PART - {"ping"}):
        for stream in (OWN, PEER, REPLAYED):
            if await may_somehow(operator, name, stream):
                found.append(f"{name} {stream}")
    return found


async def test_rights_are_exactly_those_of_the_table(operator: Redis) -> None:
    assert await verdict(operator) == []
    assert await beyond_the_table(operator) == []


GRANTS = [
    (name, command)
    for name in ("OWN_COMMANDS", "PEER_COMMANDS", "ANYWHERE_COMMANDS")
    for command in getattr(acl, name)
]


@pytest.mark.parametrize(("name", "command"), GRANTS)
async def test_without_any_one_command_the_work_is_denied_and_the_table_differs(
    guarded: RedisServer,
    operator: Redis,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: str,
) -> None:
    """Nothing is granted that is not needed."""
    left = tuple(each for each in getattr(acl, name) if each != command)
    monkeypatch.setattr(acl, name, left)
    (guarded.folder.parent / "users.acl").write_text(users())
    await operator.acl_load()
    monkeypatch.undo()

    assert await verdict(operator)
    await operator.acl_log_reset()
    stop = asyncio.Event()
    working = asyncio.create_task(work(guarded, operator, stop))

    async def denied() -> bool:
        # Where the other direction has the command, it is the stream that is denied.
        return bool({str(line["object"]) for line in await operator.acl_log()} & {command, TO_HHS})

    try:
        await until(denied, f"a denial of {command}")
    finally:
        stop.set()
        await asyncio.gather(working, return_exceptions=True)


@pytest.mark.parametrize("command", acl.REPLAY_COMMANDS)
async def test_without_any_one_command_for_replays_the_table_differs(
    guarded: RedisServer, operator: Redis, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    left = tuple(each for each in acl.REPLAY_COMMANDS if each != command)
    monkeypatch.setattr(acl, "REPLAY_COMMANDS", left)
    (guarded.folder.parent / "users.acl").write_text(users())
    await operator.acl_load()
    monkeypatch.undo()

    assert await verdict(operator)


@pytest.mark.parametrize(
    "name", ["OWN_COMMANDS", "PEER_COMMANDS", "REPLAY_COMMANDS", "ANYWHERE_COMMANDS"]
)
@pytest.mark.parametrize(
    "command",
    [
        *(
            "flushall",
            "flushdb",
            "xdel",
            "del",
            "unlink",
            "rename",
            "xsetid",
            "xread",
            "xautoclaim",
        ),
        *("xgroup|destroy", "xgroup|setid", "eval", "config|set", "acl|setuser", "keys", "scan"),
        *("subscribe", "publish", "info", "monitor", "shutdown", "client|list", "client|kill"),
        *("multi", "restore", "dump", "migrate", "replicaof", "debug", "function|load"),
    ],
)
async def test_with_any_one_command_more_the_table_differs(
    guarded: RedisServer,
    operator: Redis,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: str,
) -> None:
    monkeypatch.setattr(acl, name, (*getattr(acl, name), command))
    (guarded.folder.parent / "users.acl").write_text(users())
    await operator.acl_load()
    monkeypatch.undo()

    assert await verdict(operator)


@pytest.mark.parametrize("change", [("OWN_COMMANDS", "xreadgroup"), ("PEER_COMMANDS", "xadd")])
async def test_the_two_directions_do_not_run_together(
    guarded: RedisServer,
    operator: Redis,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str],
) -> None:
    name, command = change
    monkeypatch.setattr(acl, name, (*getattr(acl, name), command))
    (guarded.folder.parent / "users.acl").write_text(users())
    await operator.acl_load()
    monkeypatch.undo()

    assert await verdict(operator)
