"""The key ring: an agency's private keys, each in a file that its owner alone can read.

A folder (0700) holds PKCS8 PEM files (0600) and `ring.json`, which says whose they are. Signing and
encryption keys are P-256 and numbered: the newest signs, and every one of them still opens what was
encrypted to it. The log key and the cosigner key are Ed25519; the log key's name is the origin of
the ledger, `<domain>/noticebus/<agency>/<generation>`. What others must know of them is in the
party file, whose bytes stay the same until keys or partitions change.

Files that others may read are refused: a key that leaked must be noticed, not used. Nothing is ever
overwritten. Whoever has the folder can sign for the agency; it is not encrypted at rest.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

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

from schemas.canonical import format_time, parse_time
from schemas.checkpoint import COSIGNATURE, Signer, Verifier
from schemas.errors import ConflictError, NotAllowedError, NotFoundError, RejectedError
from schemas.jose import PrivateKey, SigningKey, public_jwk
from schemas.party import KeySet, LanePartitions, Party, PublicKey

RING_FILE = "ring.json"
FOLDER_MODE, FILE_MODE = 0o700, 0o600

AnyPrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """An agency's keys. The newest signing and encryption keys come first."""

    agency: str
    domain: str
    generation: int
    changed_at: datetime
    signing_keys: tuple[SigningKey, ...]
    encryption_keys: tuple[PrivateKey, ...]
    log_key: Signer
    cosigner: Signer

    @classmethod
    def generate(cls, folder: Path, domain: str, agency: str, *, generation: int = 1) -> Self:
        """Make all keys of an agency in a new folder.

        The folder appears complete or not at all. Raises `ConflictError` NB-4031 when there is
        something in it already, `RejectedError` NB-4034 when it cannot be made.
        """
        if folder.is_dir() and any(folder.iterdir()):
            raise ConflictError("NB-4031", folder=folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
                part = Path(made) / "keys"
                part.mkdir(mode=FOLDER_MODE)
                for name in ("signing-1", "encryption-1"):
                    _write(part / f"{name}.pem", _pem(ec.generate_private_key(ec.SECP256R1())))
                for name in ("log", "cosigner"):
                    _write(part / f"{name}.pem", _pem(ed25519.Ed25519PrivateKey.generate()))
                _write_ring(part, agency=agency, domain=domain, generation=generation)
                part.rename(folder)
            _sync(folder.parent)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise ConflictError("NB-4031", folder=folder) from None
            raise RejectedError("NB-4034", folder=folder, rule=error.strerror) from None
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read all keys from a folder.

        Raises `NotFoundError` NB-4030 without keys, `NotAllowedError` NB-4032 for files that others
        may read, `RejectedError` NB-4033 for what is no such key.
        """
        if not folder.is_dir():
            raise NotFoundError("NB-4030", folder=folder)
        _refuse_open(folder)
        if not (folder / RING_FILE).exists():
            raise NotFoundError("NB-4030", folder=folder)
        ring = _read_ring(folder)
        stem = f"{ring['domain']}/noticebus/{ring['agency']}"
        return cls(
            agency=ring["agency"],
            domain=ring["domain"],
            generation=ring["generation"],
            changed_at=ring["changed_at"],
            signing_keys=tuple(
                SigningKey.of(_p256_key(path)) for path in _numbered(folder, "signing")
            ),
            encryption_keys=tuple(
                PrivateKey.of(_p256_key(path)) for path in _numbered(folder, "encryption")
            ),
            log_key=Signer(
                f"{stem}/{ring['generation']}",
                _ed25519_key(folder / "log.pem"),
            ),
            cosigner=Signer(f"{stem}/cosigner", _ed25519_key(folder / "cosigner.pem")),
        )

    @classmethod
    def rotate(cls, folder: Path) -> Self:
        """Add a new signing key, which signs from now on; the old ones are kept.

        The peer believes it once it trusts the new party file: rotate, hand over the file, and only
        then restart what signs.
        """
        ring = cls.load(folder)
        number = 1 + max(_number(path) for path in _numbered(folder, "signing"))
        _write(folder / f"signing-{number}.pem", _pem(ec.generate_private_key(ec.SECP256R1())))
        _write_ring(folder, agency=ring.agency, domain=ring.domain, generation=ring.generation)
        return cls.load(folder)

    @property
    def signing(self) -> SigningKey:
        """The key that signs envelopes: the newest."""
        return self.signing_keys[0]

    @property
    def decryption(self) -> Mapping[str, PrivateKey]:
        """Every key that opens what was encrypted to this agency, by `kid`."""
        return {key.kid: key for key in self.encryption_keys}

    def party(
        self, *, partitions: Mapping[str, int] | None = None, made_at: datetime | None = None
    ) -> bytes:
        """Return this agency's party file: canonical JSON, the public halves of all keys.

        `made_at` is when the keys last changed, unless given, so that the same keys and partitions
        make the same bytes and keep their fingerprint.
        """
        public = [
            *(public_jwk(key.private.public_key(), use="sig") for key in self.signing_keys),
            *(public_jwk(key.private.public_key(), use="enc") for key in self.encryption_keys),
        ]
        cosigner = Verifier(self.cosigner.name, COSIGNATURE, _raw(self.cosigner.private))
        return Party(
            agency=self.agency,
            domain=self.domain,
            generation=self.generation,
            jwks=KeySet(keys=tuple(map(PublicKey.model_validate, public))),
            log_keys=(self.log_key.verifier.vkey(),),
            cosigner_keys=(cosigner.vkey(),),
            partitions=LanePartitions(**(partitions or {})),
            made_at=made_at or self.changed_at,
        ).to_bytes()


def _raw(private: ed25519.Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _pem(key: AnyPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _p256_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _private_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise RejectedError("NB-4033", path=path, rule="it is no P-256 key")
    return key


def _ed25519_key(path: Path) -> ed25519.Ed25519PrivateKey:
    key = _private_key(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise RejectedError("NB-4033", path=path, rule="it is no Ed25519 key")
    return key


def _private_key(path: Path) -> object:
    _refuse_open(path)
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RejectedError("NB-4033", path=path, rule=type(error).__name__) from None


def _numbered(folder: Path, stem: str) -> list[Path]:
    """Return the files of a numbered key, newest first. Raises `RejectedError` without any."""
    found = [path for path in folder.glob(f"{stem}-*.pem") if _number(path)]
    if not found:
        raise RejectedError("NB-4033", path=folder / f"{stem}-1.pem", rule="it is missing")
    return sorted(found, key=_number, reverse=True)


def _number(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isascii() and text.isdecimal() else 0


def _refuse_open(path: Path) -> None:
    """Refuse what others than the owner may read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise RejectedError("NB-4033", path=path, rule=error.strerror) from None
    if mode & 0o077:
        raise NotAllowedError("NB-4032", path=path)


def _read_ring(folder: Path) -> dict[str, Any]:
    path = folder / RING_FILE
    _refuse_open(path)
    try:
        ring = orjson.loads(path.read_bytes())
        return {
            "agency": str(ring["agency"]),
            "domain": str(ring["domain"]),
            "generation": int(ring["generation"]),
            "changed_at": parse_time(ring["changed_at"]),
        }
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, RejectedError):
        raise RejectedError(
            "NB-4033", path=path, rule="it does not say whose keys these are"
        ) from None


def _write_ring(folder: Path, *, agency: str, domain: str, generation: int) -> None:
    ring = {
        "agency": agency,
        "changed_at": format_time(datetime.now(UTC)),
        "domain": domain,
        "generation": generation,
    }
    path = folder / RING_FILE
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    _write(part, orjson.dumps(ring, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    part.replace(path)
    _sync(folder)


def _write(path: Path, content: bytes) -> None:
    """Write a new file for its owner alone, on disk before this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power, as its files do."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
