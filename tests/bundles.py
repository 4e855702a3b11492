"""Proof bundles for tests: built, changed, signed again by a maker who cheats, and verified."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from schemas.canonical import canonical, parse
from schemas.errors import NoticeBusError
from schemas.jose import read_jws, sign_jws
from services.exchange.agency import Agency
from services.proof.archive import packed, unpacked
from services.proof.building import Built, Selection, build
from services.proof.checking import check
from services.proof.members import MANIFEST, TYP
from services.proof.offline import program

Members = dict[str, bytes]
VERIFY_SECONDS = 60


@dataclass(frozen=True)
class Verdict:
    """How `verify.py` ended, and what it said last."""

    code: int
    last: str
    out: str


@cache
def openssl_alone() -> str:
    """Return a folder that holds openssl and nothing else, to be the whole PATH."""
    folder = TemporaryDirectory(prefix="openssl-alone-")
    found = shutil.which("openssl")
    assert found, "openssl is needed"
    Path(folder.name, "openssl").symlink_to(found)
    _kept.append(folder)
    return folder.name


_kept: list[TemporaryDirectory[str]] = []


def run_verify(
    place: Path, *arguments: str, program_file: Path | None = None, path: str | None = None
) -> Verdict:
    """Run the program of the bundles on a place, alone: no environment, no packages, openssl.

    `path` are the folders where it finds commands instead.
    """
    with TemporaryDirectory() as folder:
        script = program_file or Path(folder, "verify.py")
        if program_file is None:
            script.write_bytes(program())
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(script), str(place), *arguments],
            env={"PATH": openssl_alone() if path is None else path},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=VERIFY_SECONDS,
            check=False,
        )
    assert not done.stderr, done.stderr
    return Verdict(done.returncode, done.stdout.splitlines()[-1], done.stdout)


def written(folder: Path, members: Mapping[str, bytes], name: str = "bundle.zip") -> Path:
    """Write members as a zip."""
    path = folder / name
    path.write_bytes(packed(members))
    return path


def ours(members: Mapping[str, bytes]) -> str | None:
    """Return why our own code refuses a bundle, None if all of it holds."""
    try:
        check(members)
    except NoticeBusError as error:
        return f"{error.where.get('member')}: {error.where.get('rule')}"
    return None


def signed_again(
    agency: Agency, members: Members, change: Callable[[dict[str, Any]], None] = lambda _: None
) -> Members:
    """Return members under a manifest that a cheating maker made for them."""
    said = parse(read_jws(members[MANIFEST], TYP).payload)
    others = {name: data for name, data in members.items() if name != MANIFEST}
    said["members"] = {name: sha256(data).hexdigest() for name, data in others.items()}
    change(said)
    return {**others, MANIFEST: sign_jws(canonical(said), agency.ring.signing, TYP)}


async def built(agency: Agency, folder: Path, notice_id: UUID, **more: Any) -> tuple[Built, Path]:
    """Build the bundle of a notice into a new file."""
    path = folder / f"{agency.name}-{os.urandom(4).hex()}.zip"
    done = await build(agency, Selection(notice_id=notice_id), path, actor="inspector", **more)
    return done, path


async def members_of(agency: Agency, folder: Path, notice_id: UUID, **more: Any) -> Members:
    """Build the bundle of a notice and return its members."""
    _, path = await built(agency, folder, notice_id, **more)
    return unpacked(path)


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, hidden ones included."""
    return sorted(path.name for path in folder.iterdir())
