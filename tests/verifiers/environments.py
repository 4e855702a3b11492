"""Environments for verifiers: each tool gets one of its own, below a temporary folder.

Python and JavaScript packages are pinned by hash in files that name no address; Debian's are those
of the release. Whatever cannot be had raises `MissingError`: it is never skipped.
"""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
INSTALL_SECONDS = 240.0
CHECK_SECONDS = 120.0
# A tool that needs a newer Python than this machine's runs in the image of the house.
IMAGE = "python:3.13-slim"


class MissingError(Exception):
    """A tool cannot be had here; its text is what its installer said."""


@dataclass(frozen=True, slots=True)
class Ready:
    """How to run a tool's check on a folder, and in which environment."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    # The container's own mount of the material, where the check runs in one.
    image: str | None = None

    def run(self, material: Path) -> subprocess.CompletedProcess[str]:
        """Run the check; its exit code is 0 for accepted and 3 for refused."""
        command = [*self.command, str(material)]
        if self.image is not None:
            command = [
                *("docker", "run", "--rm", "--network", "none"),
                *("--volume", f"{material}:/material:ro", "--volume", f"{self.folder}:/tool:ro"),
                *("--volume", f"{HERE}:/verifiers:ro", "--env", "PYTHONPATH=/tool"),
                *(self.image, *self.command, "/material"),
            ]
        return subprocess.run(
            command,
            cwd=None if self.image else self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CHECK_SECONDS,
            check=False,
        )


def pypi(name: str, folder: Path) -> Ready:
    """Install a tool of PyPI into a virtual environment."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    lock = HERE / "pypi" / name / "requirements.lock"
    python = folder / "bin" / "python"
    _run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile"),
            *(*_PINNED, "--requirement", str(lock)),
        ]
    )
    return Ready((str(python), str(HERE / "pypi" / name / "check.py")), folder=folder)


def pypi_newer(name: str, folder: Path) -> Ready:
    """Install a tool of PyPI that needs Python 3.13, to be run in that image without a network."""
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        _run(["docker", "pull", IMAGE])
    lock = HERE / "pypi" / name / "requirements.lock"
    wheels = folder / "wheels"
    platforms = [f"manylinux_2_{minor}_{platform.machine()}" for minor in (28, 17)]
    _run(
        [
            *(sys.executable, "-m", "pip", "download", *_PINNED, "--requirement", str(lock)),
            *("--python-version", "3.13", "--dest", str(wheels)),
            *(word for each in platforms for word in ("--platform", each)),
        ]
    )
    # This machine's pip refuses to install for a newer Python; a wheel is an archive of its files.
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return Ready(("python3", f"/verifiers/pypi/{name}/check.py"), folder=folder, image=IMAGE)


def npm(name: str, folder: Path) -> Ready:
    """Install a tool of npm into a folder of its own."""
    folder.mkdir()
    for file in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "npm" / name / file, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    _run(command, folder=folder)
    return Ready(("node", str(HERE / "npm" / name / "check.mjs")), folder=folder)


def debian(name: str, folder: Path) -> Ready:
    """Unpack a tool of Debian and its libraries into a folder; nothing is installed."""
    folder.mkdir()
    packages = (HERE / "debian" / "packages").read_text().split()
    try:
        _run(["apt-get", "download", *packages], folder=folder)
    except MissingError:
        # A new machine has no lists yet.
        _run(["apt-get", "update"], folder=folder)
        _run(["apt-get", "download", *packages], folder=folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(folder)])
    libraries = next((folder / "usr" / "lib").glob("*-linux-gnu*"))
    return Ready(
        ("sh", str(HERE / "debian" / f"{name}.sh")),
        {"PATH": f"{folder}/usr/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(libraries)},
        folder,
    )


def command(name: str, folder: Path) -> Ready:
    """Use a command of this machine."""
    if shutil.which(name) is None:
        raise MissingError(f"the command {name} is not on this machine")
    folder.mkdir()
    return Ready(("sh", str(HERE / "debian" / f"{name}.sh")), folder=folder)


# A lock is whole. Left to look for dependencies, pip takes the newest release for one that is named
# with an extra (`pydantic[email]`), and refuses it for not being pinned.
_PINNED = ("--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:")


def _run(arguments: Sequence[str], *, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{arguments[0]}: {error}") from error
    if done.returncode:
        raise MissingError(f"{' '.join(arguments[:4])} ...\n{done.stdout.strip()}")
