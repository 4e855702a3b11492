"""One file of encrypted, signed parts: the form of backups, archives, and what a peer has seen.

Two lines in clear (form, then a header as canonical JSON, without personal data), then chunks: four
bytes of length and AES-256-GCM over one byte of type and zlib-compressed content. The nonce counts
chunks and marks the last, the header's hash is the associated data: nothing can be cut off, moved,
or put under another header. The key travels in the header, encrypted like any message (JWE). The
last chunk is a manifest of all parts, signed like any message (JWS), because whoever has the public
key could encrypt a file to it. Memory is flat: a part is a stream of at most 256 KiB at a time.
"""

import os
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.canonical import b64, canonical, format_time, parse, parse_time, unb64
from schemas.errors import EvidenceError, NotAllowedError, RejectedError
from schemas.jose import (
    PrivateKey,
    PublicEncryptionKey,
    SigningKey,
    VerifyKey,
    decrypt_jwe,
    encrypt_jwe,
    read_jws,
    sign_jws,
    verify_jws,
)

FORM = 1
MAGIC = b"noticebus-container/"
MANIFEST_TYP = "noticebus-manifest+jws"
HEADER_BYTES_MAX = 65_536
BLOCK_BYTES = 256 * 1024
# Content that does not shrink grows by a few bytes; the manifest of thousands of parts is larger.
CHUNK_BYTES_MAX = 8 * 1024 * 1024
PLAIN_BYTES_MAX = 16 * 1024 * 1024

_BEGIN, _BLOCK, _END, _MANIFEST = b"B", b"D", b"E", b"M"


class Content(StrEnum):
    """What a file holds."""

    BACKUP = "backup"
    ARCHIVE = "archive"
    SEEN = "seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands in clear: who wrote it for whom, when, and facts about the content."""

    content: Content
    sender: str
    recipient: str
    made_at: datetime
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a file: its name, facts about it, and at its end what it held."""

    name: str
    about: Mapping[str, Any]
    rows: int = 0
    size: int = 0
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Block:
    """Some bytes of the part that began last, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """A part's end; its bytes were those that the writer hashed."""

    part: Part


@dataclass(frozen=True, slots=True)
class Signed:
    """The end of the file: every part was whole, and `kid` signed the list of them."""

    parts: tuple[Part, ...]
    kid: str
    digest: bytes


Event = Part | Block | Ended | Signed


@dataclass(slots=True)
class Writer:
    """Writes one file; nothing of it can be read before `finish`."""

    file: BinaryIO
    header_line: bytes
    signing: SigningKey
    cipher: AESGCM
    count: int = 0
    parts: list[Part] = field(default_factory=list)
    _part: Part | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _hash: Any = None
    _size: int = 0

    def begin(self, name: str, **about: Any) -> None:
        """Begin a part; the one before has ended."""
        assert self._part is None
        self._part = Part(name=name, about=about)
        self._hash, self._size = sha256(), 0
        self._chunk(_BEGIN, canonical(_members(self._part)))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes to the part."""
        self._hash.update(data)
        self._size += len(data)
        self._buffer += data
        while len(self._buffer) >= BLOCK_BYTES:
            self._chunk(_BLOCK, bytes(self._buffer[:BLOCK_BYTES]))
            del self._buffer[:BLOCK_BYTES]

    def end(self, *, rows: int) -> Part:
        """End the part; `rows` is told to readers."""
        assert self._part is not None
        if self._buffer:
            self._chunk(_BLOCK, bytes(self._buffer))
            self._buffer.clear()
        part = Part(
            name=self._part.name,
            about=self._part.about,
            rows=rows,
            size=self._size,
            digest=self._hash.digest(),
        )
        self._chunk(_END, canonical(_members(part)))
        self.parts.append(part)
        self._part = None
        return part

    def finish(self) -> bytes:
        """Sign what was written and end the file; returns the SHA-256 of the manifest."""
        assert self._part is None
        manifest = canonical(
            {
                "header": b64(sha256(self.header_line).digest()),
                "parts": [_members(part) for part in self.parts],
            }
        )
        self._chunk(_MANIFEST, sign_jws(manifest, self.signing, MANIFEST_TYP), last=True)
        return sha256(manifest).digest()

    def _chunk(self, kind: bytes, content: bytes, *, last: bool = False) -> None:
        sealed = self.cipher.encrypt(
            _nonce(self.count, last=last),
            kind + zlib.compress(content, 1),
            sha256(self.header_line).digest(),
        )
        self.file.write(len(sealed).to_bytes(4, "big") + sealed)
        self.count += 1


def write_header(
    file: BinaryIO, header: Header, *, to: PublicEncryptionKey, signing: SigningKey
) -> Writer:
    """Begin a file that the holder of `to` can read, and return what writes its parts."""
    key = os.urandom(32)
    line = (
        canonical(
            {
                "about": dict(header.about),
                "content": str(header.content),
                "key": encrypt_jwe(
                    key, to, apu=header.sender.encode(), apv=header.recipient.encode()
                ).decode("ascii"),
                "made_at": format_time(header.made_at),
                "recipient": header.recipient,
                "sender": header.sender,
            }
        )
        + b"\n"
    )
    magic = MAGIC + str(FORM).encode() + b"\n"
    file.write(magic + line)
    return Writer(file, magic + line, signing, AESGCM(key))


def read_header(path: Path) -> Header:
    """Return what a file says of itself; nobody vouches for it before `read` has come to its end.

    Raises what `read` raises for a header.
    """
    with _opened(path) as file:
        header, _, _ = _header(file, path)
        return header


def read(
    path: Path,
    *,
    keys: Mapping[str, PrivateKey],
    signers: Mapping[str, VerifyKey],
    expected: Content,
) -> Generator[Event, None, None]:
    """Read a file from its first part to its signature, checking every byte on the way.

    Raises `RejectedError` NB-5040 (a later form), NB-5041 (no such file of ours), NB-5049 (cannot
    be read), `NotAllowedError` NB-5043 (encrypted to a key that is not ours), `EvidenceError`
    NB-3061 (damaged), NB-3062 (not signed by one of `signers`). What was yielded before an error
    must not be believed; the last event of a whole file is `Signed`.
    """
    with _opened(path) as file:
        header, line, jwe = _header(file, path)
        if header.content is not expected:
            raise RejectedError("NB-5041", path=path, expected=expected)
        cipher = AESGCM(_file_key(jwe, header, keys, path))
        yield from _parts(file, path, line, cipher, signers)


def _parts(
    file: BinaryIO, path: Path, line: bytes, cipher: AESGCM, signers: Mapping[str, VerifyKey]
) -> Generator[Event, None, None]:
    parts: list[Part] = []
    part: Part | None = None
    seen, size = sha256(), 0
    for kind, content in _chunks(file, path, sha256(line).digest(), cipher):
        if kind == _BLOCK and part is not None:
            seen.update(content)
            size += len(content)
            yield Block(content)
        elif kind == _BEGIN and part is None:
            part = _part(content, path)
            seen, size = sha256(), 0
            yield part
        elif kind == _END and part is not None:
            ended = _part(content, path)
            if (ended.name, ended.size, ended.digest) != (part.name, size, seen.digest()):
                raise EvidenceError("NB-3061", path=path, rule=f"part {part.name} has other bytes")
            parts.append(ended)
            part = None
            yield Ended(ended)
        elif kind == _MANIFEST and part is None:
            yield _signed(content, path, line, tuple(parts), signers)
        else:
            raise EvidenceError("NB-3061", path=path, rule="its parts are out of order")


def _chunks(
    file: BinaryIO, path: Path, bound: bytes, cipher: AESGCM
) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of every chunk; the last one ends the file."""
    count, last = 0, False
    while not last:
        prefix = file.read(4)
        length = int.from_bytes(prefix, "big")
        if len(prefix) < 4 or not 17 < length <= CHUNK_BYTES_MAX:
            raise EvidenceError("NB-3061", path=path, rule="it is cut short")
        sealed = file.read(length)
        if len(sealed) < length:
            raise EvidenceError("NB-3061", path=path, rule="it is cut short")
        plain, last = _open(cipher, sealed, count, bound, path)
        inflate = zlib.decompressobj()
        try:
            content = inflate.decompress(plain[1:], PLAIN_BYTES_MAX)
        except zlib.error:
            raise EvidenceError("NB-3061", path=path, rule=f"chunk {count} is spoilt") from None
        if not inflate.eof or (plain[:1] == _MANIFEST) != last:
            raise EvidenceError("NB-3061", path=path, rule=f"chunk {count} is spoilt")
        yield plain[:1], content
        count += 1
    if file.read(1):
        raise EvidenceError("NB-3061", path=path, rule="something follows its end")


def _open(
    cipher: AESGCM, sealed: bytes, count: int, bound: bytes, path: Path
) -> tuple[bytes, bool]:
    """Return a chunk's plaintext, and whether it is the last one."""
    for last in (False, True):
        try:
            return cipher.decrypt(_nonce(count, last=last), sealed, bound), last
        except InvalidTag:
            continue
    raise EvidenceError("NB-3061", path=path, rule=f"chunk {count} is spoilt")


def _signed(
    jws: bytes, path: Path, line: bytes, parts: tuple[Part, ...], signers: Mapping[str, VerifyKey]
) -> Signed:
    """Check who signed the manifest, and that it lists this header and these parts."""
    try:
        signed = read_jws(jws, MANIFEST_TYP)
        key = signers.get(signed.kid)
        if key is None:
            raise EvidenceError("NB-3062", path=path)
        verify_jws(signed.signature, signed.digest, key)
        manifest = parse(signed.payload)
    except RejectedError:
        raise EvidenceError("NB-3062", path=path) from None
    if manifest != {
        "header": b64(sha256(line).digest()),
        "parts": [_members(part) for part in parts],
    }:
        raise EvidenceError("NB-3061", path=path, rule="its manifest lists other parts")
    return Signed(parts, signed.kid, sha256(signed.payload).digest())


def _header(file: BinaryIO, path: Path) -> tuple[Header, bytes, str]:
    """Return the header, its lines as they are bound to the rest, and the encrypted file key."""
    magic = file.readline(64)
    form = magic.removeprefix(MAGIC).strip()
    if not magic.startswith(MAGIC) or not form.isdigit():
        raise RejectedError("NB-5041", path=path, expected="file of noticebus")
    if int(form) != FORM:
        raise RejectedError("NB-5040", path=path, rule=f"its form is {int(form)}")
    line = file.readline(HEADER_BYTES_MAX)
    try:
        said = parse(line.removesuffix(b"\n"))
        header = Header(
            content=Content(said["content"]),
            sender=str(said["sender"]),
            recipient=str(said["recipient"]),
            made_at=parse_time(said["made_at"]),
            about=dict(said["about"]),
        )
        return header, magic + line, str(said["key"])
    except (RejectedError, KeyError, TypeError, ValueError):
        raise EvidenceError("NB-3061", path=path, rule="its header is spoilt") from None


def _file_key(jwe: str, header: Header, keys: Mapping[str, PrivateKey], path: Path) -> bytes:
    try:
        key = decrypt_jwe(jwe, keys, apu=header.sender.encode(), apv=header.recipient.encode())
    except RejectedError as error:
        if error.code == "NB-2022":
            raise NotAllowedError("NB-5043", path=path, kid=error.where["kid"]) from None
        raise EvidenceError("NB-3061", path=path, rule="its key does not open") from None
    if len(key) != 32:
        raise EvidenceError("NB-3061", path=path, rule="its key does not open")
    return key


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise RejectedError("NB-5049", path=path, cause=error.strerror) from error


def _nonce(count: int, *, last: bool) -> bytes:
    return count.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _members(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "about": dict(part.about),
        "rows": part.rows,
        "size": part.size,
        "digest": b64(part.digest),
    }


def _part(content: bytes, path: Path) -> Part:
    try:
        said = parse(content)
        return Part(
            name=str(said["name"]),
            about=dict(said["about"]),
            rows=int(said["rows"]),
            size=int(said["size"]),
            digest=unb64(said["digest"]),
        )
    except (RejectedError, KeyError, TypeError, ValueError):
        raise EvidenceError("NB-3061", path=path, rule="a part of it is spoilt") from None
