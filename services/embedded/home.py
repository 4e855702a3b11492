"""One home, many users: `./.noticebus/{bus,ice,hhs}`, started by the first, stopped by the last.

A keeper process holds `keeper.lock`, starts the three servers and writes `keeper.json` once they
answer. Every user holds a shared lock on `users.lock`; the keeper waits for the exclusive one, and
gets it when the last user is gone, however it went. A user that leaves in good order and is the
last waits until the keeper has ended, so that a command leaves no process behind.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from schemas.errors import UnavailableError
from services.embedded.postgres import PostgresServer
from services.embedded.redis import RedisServer
from services.embedded.server import Server

AGENCIES = ("ice", "hhs")
BUS = "redis"
ATTACH_SECONDS = 90.0
KEEPER_LOCK_SECONDS = 0.25
POLL_SECONDS = 0.005
LOG_TAIL_BYTES = 600


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses of what was asked for; the bus' is empty if it was not."""

    redis_url: str
    database_urls: Mapping[str, str]


@contextmanager
def attach(
    home: Path,
    need: Collection[str] = (BUS, *AGENCIES),
    *,
    given: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Servers]:
    """Give out servers for the names in `need` ("redis", "ice", "hhs") while the block runs.

    A name in `given` has a server elsewhere (from the settings) and is passed through; if all
    have, nothing is started. Safe in any number of processes at once. Raises `UnavailableError`
    (NB-9004) when the servers do not come up, with the end of the keeper's log.
    """
    missing = [name for name in need if name not in given]
    if not missing:
        yield _servers(need, given)
        return
    home = home.absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    users = os.open(home / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        urls = _join(home, users)
        try:
            yield _servers(need, {**urls, **given})
        finally:
            _leave(home, users)
    finally:
        os.close(users)


def in_use(home: Path) -> bool:
    """Tell whether any process, ours included, uses the servers of a home now."""
    try:
        users = os.open(home / "users.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(users)
    return False


def is_home(folder: Path) -> bool:
    """Tell whether a folder was ever the home of embedded servers."""
    return (folder / "users.lock").exists()


def _servers(need: Collection[str], urls: Mapping[str, str]) -> Servers:
    return Servers(
        redis_url=urls[BUS] if BUS in need else "",
        database_urls={name: urls[name] for name in need if name != BUS},
    )


def _join(home: Path, users: int) -> Mapping[str, str]:
    """Become a user, starting a keeper if there is none; return the servers' addresses."""
    deadline = time.monotonic() + ATTACH_SECONDS
    # Only a keeper that is ending, or a last user that waits for it, holds this exclusively.
    _until(lambda: _try_lock(users, fcntl.LOCK_SH), deadline, home, "an older keeper does not end")
    keeper: subprocess.Popen[bytes] | None = None
    while (urls := _kept(home)) is None:
        if keeper is not None and keeper.poll() not in {None, 0}:
            raise UnavailableError("NB-9004", home=home, reason=_log_tail(home))
        if (keeper is None or keeper.poll() is not None) and _forget_dead_keeper(home):
            keeper = _start_keeper(home)
        if time.monotonic() > deadline:
            raise UnavailableError("NB-9004", home=home, reason=_log_tail(home))
        time.sleep(POLL_SECONDS)
    return urls


def _forget_dead_keeper(home: Path) -> bool:
    """Say whether no keeper lives, having removed what a killed one published.

    A keeper is started after this alone, so that what is published under a held lock is its own.
    """
    lock = os.open(home / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _try_lock(lock, fcntl.LOCK_EX):
            return False
        (home / "keeper.json").unlink(missing_ok=True)
        return True
    finally:
        os.close(lock)


def _leave(home: Path, users: int) -> None:
    """Stop being a user; the last one ends the keeper and waits for it."""
    if not _try_lock(users, fcntl.LOCK_EX) and _try_lock(users, fcntl.LOCK_SH):
        # Others are here.
        return

    # Else nobody can come who would get servers that are about to end, or the keeper was faster.
    def ended() -> bool:
        if not _locked(home / "keeper.lock"):
            return True
        pid = _keeper_pid(home)
        if pid is None:
            # It ends, or it starts for somebody who was killed: let it see that nobody is here.
            fcntl.flock(users, fcntl.LOCK_UN)
        else:
            # Again each time: a signal just before it begins to wait for the lock is slept over.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return False

    _until(ended, time.monotonic() + ATTACH_SECONDS, home, "the keeper does not end")
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


# Keepers that this process started: they outlive the block that started them if others use them.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _start_keeper(home: Path) -> subprocess.Popen[bytes]:
    with (home / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "services.embedded", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[2],
            # Ctrl-C in the terminal is for the users; the keeper follows them.
            start_new_session=True,
        )
    _children[keeper.pid] = keeper
    return keeper


def keep(home: Path) -> int:
    """Run the servers of `home` until its last user is gone: the keeper process' whole life."""
    lock = os.open(home / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + KEEPER_LOCK_SECONDS
    # Users look whether the lock is held by taking it for a moment, so one failure says little.
    while not _try_lock(lock, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            # Somebody else's keeper was faster; its users are ours.
            return 0
        time.sleep(POLL_SECONDS)
    signal.signal(signal.SIGTERM, _end_once)
    servers: dict[str, Server] = {
        BUS: RedisServer(home / "bus"),
        **{agency: PostgresServer(home / agency) for agency in AGENCIES},
    }
    state = home / "keeper.json"
    try:
        for server in servers.values():
            server.launch()
        for server in servers.values():
            server.wait_ready()
        urls = {name: server.url for name, server in servers.items()}
        fresh = home / "keeper.json.new"
        fresh.write_text(json.dumps({"pid": os.getpid(), "urls": urls}))
        fresh.replace(state)
        users = os.open(home / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(users, fcntl.LOCK_EX)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        state.unlink(missing_ok=True)
        for server in servers.values():
            server.stop()
    return 0


def _end_once(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _kept(home: Path) -> Mapping[str, str] | None:
    """Return the addresses that a living keeper published, if there is one."""
    state = _state(home)
    if state is None or not _locked(home / "keeper.lock"):
        return None
    urls = state["urls"]
    return urls if isinstance(urls, dict) else None


def _keeper_pid(home: Path) -> int | None:
    state = _state(home)
    pid = None if state is None else state["pid"]
    return pid if isinstance(pid, int) else None


def _state(home: Path) -> Mapping[str, object] | None:
    try:
        state: Mapping[str, object] = json.loads((home / "keeper.json").read_bytes())
    except FileNotFoundError:
        return None
    return state


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked(path: Path) -> bool:
    """Whether some process holds `path` locked."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _until(done: Callable[[], bool], deadline: float, home: Path, reason: str) -> None:
    while not done():
        if time.monotonic() > deadline:
            raise UnavailableError("NB-9004", home=home, reason=reason)
        time.sleep(POLL_SECONDS)


def _log_tail(home: Path) -> str:
    return (home / "keeper.log").read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
