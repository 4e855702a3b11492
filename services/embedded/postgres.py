"""A PostgreSQL server on a folder: fsync and checksums on, a Unix socket, no TCP, peer login."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from schemas.errors import UnavailableError
from services.embedded.binaries import postgres_programs
from services.embedded.server import Server, make_socket_folder, private_folder, socket_folder

ROLE = "noticebus"
DATABASE = "noticebus"
SOCKET_NAME = ".s.PGSQL.5432"
PREPARE_SECONDS = 60.0
READY_LINE = 7

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "jit": "off",
    "io_method": "sync",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Statements and key values are personal data; the log may not hold them.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class PostgresServer(Server):
    """A durable PostgreSQL with an empty database `noticebus` and a role of the same name.

    The operating system's user is the login (peer): root and the user that runs this. `options`
    are further settings of the server, which stand before ours.
    """

    what = "PostgreSQL"
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, *, options: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(folder)
        self._options = options

    @property
    def url(self) -> str:
        """The address of the database `noticebus`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the address of another database on this server."""
        return f"postgresql://{ROLE}@/{database}?host={quote(str(self.sockets), safe='')}"

    @cached_property
    def sockets(self) -> Path:
        """The closed folder of the server's socket."""
        # Another user cannot be sure to walk through our folders.
        return socket_folder(self.folder, SOCKET_NAME, near=self._owner() is None)

    def _owner(self) -> tuple[int, int] | None:
        """Return user and group that the server runs as, or None for our own."""
        if os.geteuid() != 0:
            return None
        data = self.folder / "data"
        found = data.stat() if data.exists() else None
        if found is not None and found.st_uid != 0:
            return found.st_uid, found.st_gid
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid

    def _prepare(self) -> None:
        private_folder(self.folder)
        owner = self._owner()
        make_socket_folder(self.sockets, owner)
        data = self.folder / "data"
        if data.exists():
            return
        with ExitStack() as stack:
            # Made beside its place and renamed, so that a half-made one is never taken for data.
            fresh = self.folder / "data.new"
            shutil.rmtree(fresh, ignore_errors=True)
            private_folder(fresh, owner)
            path, descriptors = stack.enter_context(_reach(fresh, owner))
            self._finish(self._run(self._initdb(path), owner=owner, descriptors=descriptors))
            (fresh / "pg_hba.conf").write_text(f"local all {ROLE} peer map={ROLE}\n")
            users = sorted({"root", pwd.getpwuid(os.geteuid()).pw_name})
            (fresh / "pg_ident.conf").write_text(
                "".join(f"{ROLE} {user} {ROLE}\n" for user in users)
            )
            process = self._run(
                [self._program("postgres"), "--single", "-D", path, "postgres"],
                owner=owner,
                descriptors=descriptors,
                standard_input=subprocess.PIPE,
            )
            self._finish(process, f"CREATE DATABASE {DATABASE}\n".encode())
            fresh.rename(data)

    def _initdb(self, path: str) -> list[str]:
        return [
            self._program("initdb"),
            *("-D", path, "--username", ROLE, "--auth", "reject", "--encoding", "UTF8"),
            *("--locale-provider", "builtin", "--locale", "C.UTF-8", "--data-checksums"),
        ]

    def _program(self, name: str) -> str:
        return str(postgres_programs() / name)

    def _finish(self, process: subprocess.Popen[bytes], text: bytes | None = None) -> None:
        with process:
            try:
                process.communicate(text, timeout=PREPARE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        if process.returncode != 0:
            self._process = process
            raise self._failed()

    def _spawn(self) -> subprocess.Popen[bytes]:
        owner = self._owner()
        data = self.folder / "data"
        sockets = {"unix_socket_directories": str(self.sockets)}
        settings = SETTINGS | sockets | dict(self._options)
        flags = [f"--{name}={value}" for name, value in settings.items()]
        with _reach(data, owner) as (path, descriptors):
            return self._run(
                [self._program("postgres"), "-D", path, *flags],
                owner=owner,
                descriptors=descriptors,
                remove=(data / "postmaster.pid",),
            )

    def _answers(self) -> bool:
        # The server writes its state into this file, as pg_ctl reads it.
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return False
        return (
            len(lines) > READY_LINE
            and lines[0].strip() == str(self.pid)
            and lines[READY_LINE].strip() == "ready"
        )


@contextmanager
def _reach(folder: Path, owner: tuple[int, int] | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a path to `folder` that works for `owner`, and descriptors the process must inherit.

    Another user cannot walk through closed folders above (such as /root), but an open descriptor
    leads there directly; the folder itself is theirs.
    """
    if owner is None:
        yield str(folder), ()
        return
    if not Path("/proc/self/fd").is_dir():
        raise UnavailableError("NB-9001", what="PostgreSQL", folder=folder, reason="no /proc")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)
