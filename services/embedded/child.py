"""Become a server that ends with its parent: run as a script, it replaces itself by the server.

Standard library alone, because it runs with `-I -S` before anything of ours can be imported. In
order: hold the folder's lock, give up root, ask the kernel for a signal when the parent ends,
execute. The lock's descriptor stays open in the server and in every process it forks, so that the
lock is free exactly when nothing uses the folder any more, also after `kill -9`.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
LOCK_POLL_SECONDS = 0.005
EXIT_LOCKED = 75
EXIT_ORPHANED = 76


def hold(path: str, seconds: float) -> None:
    """Lock `path` for the life of this process and all it forks; exit if others keep it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit(EXIT_LOCKED)
            time.sleep(LOCK_POLL_SECONDS)
        else:
            fcntl.fcntl(descriptor, fcntl.F_SETFD, 0)
            return


def die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send us signal `number` when the thread that forked us ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    # The parent may have ended before we asked.
    if os.getppid() != parent:
        sys.exit(EXIT_ORPHANED)


def main() -> NoReturn:
    plan: dict[str, Any] = json.loads(sys.argv[1])
    hold(plan["lock"], plan["lock_seconds"])
    # Whoever wrote these files is gone: we hold the lock. A zombie would still look alive by pid.
    for path in plan["remove"]:
        if os.path.lexists(path):
            os.unlink(path)  # noqa: PTH108  (pathlib costs more than all else here)
    os.umask(0o077)
    if plan["uid"] is not None:
        os.setgroups([])
        os.setgid(plan["gid"])
        os.setuid(plan["uid"])
    # After setuid, which would clear it.
    die_with_parent(plan["parent"], plan["signal"])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execve(plan["argv"][0], plan["argv"], plan["environment"])  # noqa: S606


if __name__ == "__main__":
    main()
