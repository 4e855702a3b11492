"""A Redis (or Valkey) server on a folder: AOF `always`, a Unix socket, no TCP."""

import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from services.embedded.binaries import redis_program
from services.embedded.server import Server, make_socket_folder, private_folder, socket_folder

SOCKET_NAME = "redis.sock"
ANSWER_SECONDS = 2.0


class RedisServer(Server):
    """A durable Redis; `options` are further configuration arguments, such as an ACL file."""

    what = "Redis"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._options = tuple(options)

    @cached_property
    def sockets(self) -> Path:
        """The closed folder of the server's socket."""
        return socket_folder(self.folder, SOCKET_NAME)

    @property
    def socket_path(self) -> Path:
        """The Unix socket that the server listens on."""
        return self.sockets / SOCKET_NAME

    @property
    def url(self) -> str:
        """The address for clients, as redis-py reads it."""
        return f"unix://{self.socket_path}"

    def _prepare(self) -> None:
        private_folder(self.folder)
        private_folder(self.folder / "data")
        make_socket_folder(self.sockets)

    def _spawn(self) -> subprocess.Popen[bytes]:
        path = self.socket_path
        argv = [
            str(redis_program()),
            *("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
            *("--dir", str(self.folder / "data"), "--daemonize", "no", "--loglevel", "warning"),
            # Every reply means: on disk. A tail cut short by a power cut is dropped, not fatal.
            *("--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes"),
            *("--no-appendfsync-on-rewrite", "no", "--save", ""),
            *("--maxmemory-policy", "noeviction"),
            *self._options,
        ]
        return self._run(argv, owner=None, remove=(path,))

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_SECONDS)
            try:
                client.connect(str(self.socket_path))
                # An older server on this folder may still answer; ours waits for its end then.
                if sys.platform == "linux" and _peer_pid(client) != self.pid:
                    return False
                client.sendall(b"PING\r\n")
                answer = client.recv(64)
            except OSError:
                return False
        # With users of its own it asks for a password: it is up all the same. -LOADING is not.
        return answer.startswith((b"+PONG", b"-NOAUTH"))


def _peer_pid(client: socket.socket) -> int:
    """Return the process that listens at the other end (Linux, SO_PEERCRED)."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
