"""The files of a key ring: PEM keys for their owner alone, and `ring.json`, which orders them.

A key appears whole or not at all, and never in another one's place; `ring.json` is replaced in one
step. Whatever is cut off in between leaves what was there before.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from schemas.canonical import format_time, parse_time
from schemas.casetag import parse_index_key
from schemas.checkpoint import Signer
from schemas.ending import Retirement, Revocation
from schemas.errors import NotAllowedError, NotFoundError, RejectedError

RING_FILE = "ring.json"
INDEX_FILE = "index.key"
LOG, COSIGNER = "log", "cosigner"
PUT_AWAY = "put-away"
FOLDER_MODE, FILE_MODE = 0o700, 0o600

AnyPrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """What `ring.json` says; `signing` is the number of the key that signs, None for the newest.

    `made` is when keys were made, by the names of their files.
    """

    agency: str
    domain: str
    generation: int
    changed_at: datetime
    signing: int | None = None
    retired: tuple[Retirement, ...] = ()
    revoked: tuple[Revocation, ...] = ()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overlapping: frozenset[str] = frozenset()
    made: Mapping[str, datetime] = field(default_factory=dict)


def raw(private: ed25519.Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def pem(key: AnyPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def p256_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _private_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise RejectedError("NB-4033", path=path, rule="it is no P-256 key")
    return key


def ed25519_key(path: Path) -> ed25519.Ed25519PrivateKey:
    key = _private_key(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise RejectedError("NB-4033", path=path, rule="it is no Ed25519 key")
    return key


def _private_key(path: Path) -> object:
    refuse_open(path)
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RejectedError("NB-4033", path=path, rule=type(error).__name__) from None


def read_index_key(folder: Path) -> bytes | None:
    """Return the index key that both agencies share, None where there is none.

    Raises `NotAllowedError` NB-4032, `RejectedError` NB-4033.
    """
    path = folder / INDEX_FILE
    if not path.exists():
        return None
    refuse_open(path)
    try:
        return parse_index_key(path.read_bytes())
    except (OSError, RejectedError) as error:
        rule = error.sentence if isinstance(error, RejectedError) else type(error).__name__
        raise RejectedError("NB-4033", path=path, rule=rule) from None


def numbered(folder: Path, stem: str) -> list[Path]:
    """Return the files of a numbered key, newest first. Raises `RejectedError` without any."""
    found = [path for path in folder.glob(f"{stem}-*.pem") if number_of(path)]
    if not found:
        raise RejectedError("NB-4033", path=folder / f"{stem}-1.pem", rule="it is missing")
    return sorted(found, key=number_of, reverse=True)


def signers(folder: Path, ring: Ring, use: str, name: str) -> list[Signer]:
    """Return the log or cosigner keys of this generation, the newest first."""
    stems = stems_of(folder, ring, use)
    return [Signer(name, ed25519_key(folder / f"{stem}.pem")) for stem in stems]


def stems_of(folder: Path, ring: Ring, use: str) -> tuple[str, ...]:
    """Return the names of the log or cosigner keys of this generation, the newest first.

    The first of a use has the plain name, but a later generation's log has one of its own.
    """
    own = f"{LOG}-{ring.generation}"
    first = own if use == LOG and (folder / f"{own}.pem").exists() else use
    return ring.notes.get(use, (first,))


def made_at(path: Path, ring: Ring) -> datetime:
    """Return when a key was made; of one from before that was noted, when its file was written."""
    noted = ring.made.get(path.stem)
    return noted or datetime.fromtimestamp(path.stat().st_mtime, UTC)


def number_of(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isascii() and text.isdecimal() else 0


def refuse_open(path: Path) -> None:
    """Refuse what others than the owner may read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise RejectedError("NB-4033", path=path, rule=error.strerror) from None
    if mode & 0o077:
        raise NotAllowedError("NB-4032", path=path)


def read_ring(folder: Path) -> Ring:
    path = folder / RING_FILE
    refuse_open(path)
    try:
        ring = orjson.loads(path.read_bytes())
        return Ring(
            agency=str(ring["agency"]),
            domain=str(ring["domain"]),
            generation=int(ring["generation"]),
            changed_at=parse_time(ring["changed_at"]),
            signing=int(ring["signing"]) if "signing" in ring else None,
            retired=tuple(map(Retirement.model_validate, ring.get("retired", []))),
            revoked=tuple(map(Revocation.model_validate, ring.get("revoked", []))),
            notes={use: tuple(ring[use]) for use in (LOG, COSIGNER) if use in ring},
            overlapping=frozenset(ring.get("overlapping", [])),
            made={stem: parse_time(at) for stem, at in ring.get("made", {}).items()},
        )
    except (
        OSError,
        orjson.JSONDecodeError,
        KeyError,
        TypeError,
        ValueError,
        RejectedError,
        ValidationError,
    ):
        raise RejectedError(
            "NB-4033", path=path, rule="it does not say whose keys these are"
        ) from None


def write_ring(folder: Path, said: Ring) -> None:
    """Write `ring.json`, whole or not at all."""
    ring: dict[str, object] = {
        "agency": said.agency,
        "changed_at": format_time(said.changed_at),
        "domain": said.domain,
        "generation": said.generation,
    }
    if said.signing is not None:
        ring["signing"] = said.signing
    if said.retired:
        ring["retired"] = [each.model_dump(mode="json") for each in said.retired]
    if said.revoked:
        ring["revoked"] = [each.model_dump(mode="json") for each in said.revoked]
    ring |= {use: list(stems) for use, stems in said.notes.items()}
    if said.overlapping:
        ring["overlapping"] = sorted(said.overlapping)
    if said.made:
        ring["made"] = {stem: format_time(at) for stem, at in said.made.items()}
    path = folder / RING_FILE
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    write(part, orjson.dumps(ring, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    part.replace(path)
    sync(folder)


def move_key(path: Path, folder: Path) -> None:
    """Move a key into a folder, never in another one's place; safe to repeat where it was cut off.

    Raises `RejectedError` NB-4033 where another key has that name there.
    """
    target = folder / path.name
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if not target.exists():
        target.hardlink_to(path)
        sync(folder)
    elif not target.samefile(path):
        raise RejectedError("NB-4033", path=target, rule="another key has this name there")
    path.unlink()
    sync(path.parent)


def write_key(path: Path, content: bytes) -> None:
    """Write a private key that is there whole or not at all, and never in another one's place."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    write(part, content)
    # Unlike a rename this fails where something is.
    path.hardlink_to(part)
    part.unlink()
    sync(path.parent)


def write(path: Path, content: bytes) -> None:
    """Write a new file for its owner alone, on disk before this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def changing(folder: Path) -> Iterator[Ring]:
    """Give out what `ring.json` says, to be changed; whoever else would change it waits.

    Raises `NotFoundError` NB-4030 without keys, and what `read_ring` raises.
    """
    if not folder.is_dir():
        raise NotFoundError("NB-4030", folder=folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield read_ring(folder)
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power, as its files do."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
