"""One server process on one folder: start, stop, kill, and where its socket may live."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import UnavailableError
from services.embedded import child

SOCKET_PATH_BYTES_MAX = 107
START_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.003
LOG_TAIL_BYTES = 600


class Server(ABC):
    """A server that owns `folder`. Not started by making it; usable as a context manager."""

    what: str
    stop_signal: signal.Signals
    # How long to wait for a predecessor on the same folder to end.
    lock_seconds = 10.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; the same for the life of the folder."""

    @property
    @abstractmethod
    def sockets(self) -> Path:
        """The closed folder of the server's socket."""

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The server's process id while it was started and not stopped."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start on whatever the folder holds and return once it answers.

        Waits for a predecessor on the same folder that is still ending. Raises `UnavailableError`
        (NB-9001) with the end of the server's own log; nothing runs then.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start without waiting, so that several servers come up side by side."""
        if self.running:
            return
        self._prepare()
        self._process = self._spawn()

    def wait_ready(self) -> None:
        """Return once the launched server answers; raises as `start` does."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.running:
                raise self._failed()
            if time.monotonic() > deadline:
                self.kill()
                raise self._failed()
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the server in good order; kills it when that takes too long."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End the server like a power cut (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self, *, empty: bool = False) -> None:
        """Stop and start again on the same folder; `empty` forgets all data first."""
        self.stop()
        if empty:
            self.wipe()
        self.start()

    def wipe(self) -> None:
        """Delete the stopped server's data."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make folders, and data where there is none."""

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the process."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the process that we started takes commands."""

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self.folder not in self.sockets.parents:
            shutil.rmtree(self.sockets, ignore_errors=True)

    def _run(
        self,
        argv: Sequence[str],
        *,
        owner: tuple[int, int] | None,
        descriptors: Sequence[int] = (),
        remove: Sequence[Path] = (),
        standard_input: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Execute `argv` through `child`, as user and group `owner`, its output in the log."""
        plan = {
            "parent": os.getpid(),
            "lock": str(self.folder / "server.lock"),
            "lock_seconds": self.lock_seconds,
            "remove": [str(path) for path in remove],
            "uid": None if owner is None else owner[0],
            "gid": None if owner is None else owner[1],
            "signal": int(self.stop_signal),
            "argv": list(argv),
            # Nothing of ours: PGDATA and its like would change what the server does.
            "environment": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        }
        command = [sys.executable, "-I", "-S", str(Path(child.__file__)), json.dumps(plan)]
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=standard_input,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=tuple(descriptors),
            )

    def _failed(self) -> UnavailableError:
        process, self._process = self._process, None
        code = None if process is None else process.wait()
        if code == child.EXIT_LOCKED:
            reason = f"another server still uses {self.folder}"
        else:
            tail = (self.folder / "server.log").read_bytes()[-LOG_TAIL_BYTES:]
            reason = tail.decode("utf-8", "replace").strip() or f"exit code {code}"
        return UnavailableError("NB-9001", what=self.what, folder=self.folder, reason=reason)


def private_folder(path: Path, owner: tuple[int, int] | None = None) -> Path:
    """Make `path` a folder that its owner alone can enter, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    if owner is not None:
        os.chown(path, *owner)
    return path


def socket_folder(folder: Path, file_name: str, *, near: bool = True) -> Path:
    """Return where a server's socket lives: `folder`/run, or a short folder of its own in /tmp.

    A socket's path has at most 107 bytes (sockaddr_un), and its server must be able to walk there
    (`near` says that it can). The short folder's name depends on `folder` alone.
    """
    beside = folder / "run"
    if near and len(os.fsencode(beside / file_name)) <= SOCKET_PATH_BYTES_MAX:
        return beside
    name = f"noticebus-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    short = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(short / file_name)) <= SOCKET_PATH_BYTES_MAX:
        return short
    return Path("/tmp") / name  # noqa: S108  (`make_socket_folder` refuses one that is not ours)


def make_socket_folder(path: Path, owner: tuple[int, int] | None = None) -> None:
    """Make the closed folder for a socket.

    Raises `UnavailableError` (NB-9003) if somebody else made a folder of this name first.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        ours = {os.getuid()} if owner is None else {os.getuid(), owner[0]}
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:
            raise UnavailableError("NB-9003", folder=path) from None
    private_folder(path, owner)
