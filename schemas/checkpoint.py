"""Checkpoints: the signed size and root of a ledger, as C2SP signed notes.

A checkpoint is three lines (origin, size, root) and one signature line or more; the origin is the
name of the log key. Notes are text that people can read and that other people's tools verify.
Reading is strict: every malformed note raises `EvidenceError`, and nothing else is raised.
Sources: https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.errors import EvidenceError
from schemas.proof import HASH_BYTES, SIZE_MAX

# The signature types of C2SP: what signs a note, and what witnesses a log at a time.
ED25519 = 0x01
COSIGNATURE = 0x04

NOTE_BYTES_MAX = 65_536
SIGNATURES_MAX = 64

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)
_DASH = "— "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a ledger: whose, how many records, and the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note; `key_id` and the key's name say which key made it."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint as it was read; its signatures are not verified yet."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public half of a note key, written as a *vkey*: `name+key id+key`."""

    name: str
    algorithm: int
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a vkey. Raises `EvidenceError` NB-3051."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = _decode(encoded)
        if (
            not _is_name(name)
            or not _KEY_ID.fullmatch(key_id)
            or raw is None
            or len(raw) != 1 + 32
            or raw[0] not in (ED25519, COSIGNATURE)
        ):
            raise EvidenceError("NB-3051", rule="it is not a name, a key id and an Ed25519 key")
        verifier = cls(name, raw[0], raw[1:])
        if verifier.key_id.hex() != key_id:
            raise EvidenceError("NB-3051", rule="its key id belongs to another key")
        return verifier

    @property
    def key_id(self) -> bytes:
        """The 4-byte key id."""
        return key_id_of(self.name, self.algorithm, self.public)

    def vkey(self) -> str:
        """Return the text form."""
        encoded = _encode(bytes([self.algorithm]) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def verifies(self, text: str, signature: bytes) -> bool:
        """Tell whether this key made `signature` over `text` (type Ed25519 alone)."""
        if self.algorithm != ED25519:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs notes under its name, which for a log is its origin."""

    name: str
    private: Ed25519PrivateKey

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ValueError("a key name is not empty and has neither blanks nor a plus")

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Verifier(self.name, ED25519, public)

    def signature_line(self, text: str) -> str:
        """Return the signature line for a note's text, with its newline."""
        signature = self.private.sign(text.encode())
        return signature_line(self.name, self.verifier.key_id, signature)


def signature_line(name: str, key_id: bytes, signature: bytes) -> str:
    """Return one signature as a note spells it, with its newline."""
    return f"{_DASH}{name} {_encode(key_id + signature)}\n"


def key_id_of(name: str, algorithm: int, public: bytes) -> bytes:
    """Return the 4-byte id of a note key: SHA-256(name, newline, algorithm, public key)[:4]."""
    return sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:4]


def sign_checkpoint(size: int, root: bytes, signer: Signer, also: Signer | None = None) -> str:
    """Return the signed note of a ledger's state; the origin is the signer's name.

    While a log key is renewed, the one before it signs `also`, under the same name.
    """
    text = Checkpoint(signer.name, size, root).text()
    beside = "" if also is None else also.signature_line(text)
    return f"{text}\n{signer.signature_line(text)}{beside}"


def verify_checkpoint(note: str, verifiers: Iterable[Verifier]) -> Checkpoint:
    """Return the checkpoint of a note that the log itself signed, under one of `verifiers`.

    A signature of the key that the origin names is needed. Signatures of unknown keys are ignored,
    as C2SP demands; one by a known key that is wrong spoils the note. Raises `EvidenceError`
    NB-3050 (malformed), NB-3052 (no such signature), NB-3053 (a wrong one).
    """
    signed = parse_checkpoint(note)
    known = {(v.name, v.key_id): v for v in verifiers if v.algorithm == ED25519}
    text = signed.checkpoint.text()
    by_log = False
    for signature in signed.signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            continue
        if not verifier.verifies(text, signature.signature):
            raise EvidenceError("NB-3053", name=signature.name)
        by_log = by_log or signature.name == signed.checkpoint.origin
    if not by_log:
        raise EvidenceError("NB-3052", origin=signed.checkpoint.origin)
    return signed.checkpoint


def parse_checkpoint(note: str) -> SignedCheckpoint:
    """Take a signed note apart. Raises `EvidenceError` NB-3050; nothing is verified yet."""
    if len(note) > NOTE_BYTES_MAX or any(
        (character < " " and character != "\n") or _is_surrogate(character) for character in note
    ):
        raise EvidenceError("NB-3050", rule="it is too large or is not plain text")
    text, blank, signatures = note.rpartition("\n\n")
    lines = text.split("\n")
    # Extension lines are allowed by C2SP and not by us: nobody could audit what they say.
    if not blank or len(lines) != 3 or not signatures.endswith("\n"):
        raise EvidenceError("NB-3050", rule="it is not three lines and their signatures")
    origin, size, root = lines[0], lines[1], _decode(lines[2])
    if not _is_name(origin):
        raise EvidenceError("NB-3050", rule="its origin is not a key name")
    if not _SIZE.fullmatch(size) or int(size) > SIZE_MAX:
        raise EvidenceError("NB-3050", rule="its size is not a number")
    if root is None or len(root) != HASH_BYTES:
        raise EvidenceError("NB-3050", rule="its root is not a hash")
    signature_lines = signatures[:-1].split("\n")
    if len(signature_lines) > SIGNATURES_MAX:
        raise EvidenceError("NB-3050", rule="it has too many signatures")
    return SignedCheckpoint(
        Checkpoint(origin, int(size), root), tuple(map(_signature, signature_lines)), note
    )


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    raw = _decode(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or raw is None or len(raw) < 5:
        raise EvidenceError("NB-3050", rule="a line is not a signature")
    return Signature(name, raw[:4], raw[4:])


def _is_name(name: str) -> bool:
    return bool(name) and not any(
        character in "+\x7f" or character.isspace() or character < " " or _is_surrogate(character)
        for character in name
    )


def _is_surrogate(character: str) -> bool:
    # Half a character: Python keeps it in text, and no bytes stand for it.
    return "\ud800" <= character <= "\udfff"


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes | None:
    """Return the bytes of padded base64 in its one spelling, or None."""
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return data if _encode(data) == text else None
