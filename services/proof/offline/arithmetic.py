#!/usr/bin/env python3
"""Check a noticebus proof bundle with nothing but Python's standard library and `openssl`.

    python3 verify.py                       the folder that this file lies in
    python3 verify.py BUNDLE.zip            a bundle, or a folder that one was unpacked into
    python3 verify.py BUNDLE.zip --fingerprint ice=sha256:...  --fingerprint hhs=sha256:...

Prints every check. Exit 0: all of it holds; what a signer would take back stands behind DISPUTED.
Exit 6: something does not hold, and the last line names the file and the reason. Exit 1: it could
not be checked here, and the last line names what is missing; that says nothing of the bundle.
Nothing is sent anywhere. Whose keys these are is not in the mathematics: compare the fingerprints
that are printed with those that each agency tells you by itself.

Formats: JWS ES256 (RFC 7515, 7518), RFC 6962 Merkle trees, C2SP signed notes and tlog-proofs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# What stands before the raw bytes of a public key in its DER form (SubjectPublicKeyInfo).
P256_DER = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
ED25519_DER = bytes.fromhex("302a300506032b6570032100")
ED25519_NOTE, COSIGNATURE = 1, 4
OPENSSL_SECONDS = 30
# Signatures that hold: RFC 6979 (A.2.5, "sample") and RFC 8032 (7.1, test 2), key and signature.
SAMPLE_P256 = (
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
    "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
)
SAMPLE_ED25519 = (
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
)


class Failed(Exception):  # noqa: N818 - it is the word that is printed
    """A member does not hold; says which and why."""


class CannotCheck(Exception):  # noqa: N818 - as above
    """Something is missing on this machine; nothing is said of the bundle."""


def demand(holds: object, name: object, reason: str) -> None:
    """Fail with the name of a member and a reason unless something holds."""
    if not holds:
        raise Failed(f"{name}: {reason}")


def told(line: str) -> None:
    """Print one check that holds."""
    sys.stdout.write(f"ok      {line}\n")


def loud(line: str) -> None:
    """Print what holds and is contested by whoever signed it."""
    sys.stdout.write(f"DISPUTED  {line}\n")


def moment(seconds: int) -> str:
    """Return seconds after 1970 as people write them."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds after 1970"


# Bytes and their encodings.


def unb64url(text: Any, name: str) -> bytes:
    """Return the bytes of unpadded base64url in its one spelling."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        spelt = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
    except (ValueError, TypeError):
        raw, spelt = b"", None
    demand(spelt == text, name, "holds text that is not base64url")
    return raw


def unb64(text: Any, name: str) -> bytes:
    """Return the bytes of padded base64 in its one spelling."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raw = b""
    demand(base64.b64encode(raw).decode("ascii") == text, name, "holds text that is not base64")
    return raw


def unjson(data: bytes, name: str) -> Any:
    """Return the value of JSON text in which no member stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        demand(len(found) == len(pairs), name, "holds a JSON member twice")
        return found

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise Failed(f"{name}: is not JSON") from None


# Hashes and Merkle trees (RFC 6962, RFC 9162).


def leaf_hash(record: bytes) -> bytes:
    """Return the hash of one record."""
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def included(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes | None:
    """Return the root that an inclusion proof leads to, None if it cannot be one."""
    if not 0 <= index < size:
        return None
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if place % 2 or place == last:
            found = node_hash(sibling, found)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return found if last == 0 else None


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> bool:
    """Say whether the tree of `old` records is the beginning of the one of `new`."""
    if old == new:
        return old_root == new_root and not proof
    if not 0 < old < new or not proof:
        return False
    path = ([old_root] if old & (old - 1) == 0 else []) + list(proof)
    place, last = old - 1, new - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    first = second = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, node)
        place, last = place >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


# Signatures, by openssl.


def pem(der: bytes) -> bytes:
    """Return a public key in PEM."""
    text = base64.encodebytes(der).decode("ascii").replace("\n", "")
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n".encode("ascii")


def thumbprint(key: dict[str, str]) -> str:
    """Return the RFC 7638 thumbprint of a P-256 key."""
    public = {"crv": "P-256", "kty": "EC", "x": key["x"], "y": key["y"]}
    spelt = json.dumps(public, sort_keys=True, separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(hashlib.sha256(spelt).digest()).rstrip(b"=").decode("ascii")


def p256_pem(key: dict[str, str], name: str) -> bytes:
    """Return a JWK as PEM."""
    x, y = unb64url(key["x"], name), unb64url(key["y"], name)
    shape = (key["kty"], key["crv"], len(x), len(y))
    demand(shape == ("EC", "P-256", 32, 32), name, "a key is not one of P-256")
    return pem(P256_DER + b"\x04" + x + y)


def note_key(vkey: str, name: str, algorithm: int) -> tuple[str, bytes, bytes]:
    """Return name, id and raw Ed25519 key of a vkey (C2SP signed note)."""
    key_name, _, rest = vkey.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = unb64(encoded, name)
    demand(len(raw) == 33 and raw[0] == algorithm, name, "a key of notes is of another kind")
    found = hashlib.sha256(key_name.encode() + b"\n" + raw).digest()[:4]
    demand(found.hex() == key_id, name, "a key of notes has another id")
    return key_name, found, raw[1:]


def openssl_holds(public: bytes, data: bytes, signature: bytes, *options: str) -> bool:
    """Say whether a signature holds.

    One that is refused is blamed only if openssl knows its kind: an old one would call every bundle
    forged.
    """
    holds = openssl_accepts(public, data, signature, *options)
    if not holds:
        can_check()
    return holds


def openssl_accepts(public: bytes, data: bytes, signature: bytes, *options: str) -> bool:
    """Say whether openssl accepts a signature; its three inputs are files of a private folder."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            given = {"-inkey": public, "-in": data, "-sigfile": signature}
            command = ["openssl", "pkeyutl", "-verify", "-pubin", *options]
            for option, content in given.items():
                path = Path(folder, option[1:])
                path.write_bytes(content)
                command += [option, str(path)]
            done = subprocess.run(
                command, capture_output=True, timeout=OPENSSL_SECONDS, check=False
            )
    except FileNotFoundError:
        raise CannotCheck("openssl is missing: install it and put it on PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCheck(f"openssl cannot be run: {error}") from None
    return done.returncode == 0 and b"Verified Successfully" in done.stdout


def der_integer(raw: bytes) -> bytes:
    """Return a positive integer in DER."""
    raw = raw.lstrip(b"\x00") or b"\x00"
    raw = b"\x00" + raw if raw[0] & 0x80 else raw
    return b"\x02" + bytes([len(raw)]) + raw


def der_pair(signature: bytes) -> bytes:
    """Return a JWS signature (r and s, 32 bytes each) in DER."""
    pair = der_integer(signature[:32]) + der_integer(signature[32:])
    return b"\x30" + bytes([len(pair)]) + pair


def es256_holds(public: bytes, digest: bytes, signature: bytes) -> bool:
    """Say whether a JWS signature (r and s, 32 bytes each) holds over a SHA-256 digest."""
    if len(signature) != 64:
        return False
    return openssl_holds(public, digest, der_pair(signature), "-pkeyopt", "digest:sha256")


def can_check() -> None:
    """See that openssl knows both kinds of signature, by one of each that is known to hold."""
    key, signature = map(bytes.fromhex, SAMPLE_P256)
    public, digest = pem(P256_DER + b"\x04" + key), hashlib.sha256(b"sample").digest()
    holds = openssl_accepts(public, digest, der_pair(signature), "-pkeyopt", "digest:sha256")
    key, signature = map(bytes.fromhex, SAMPLE_ED25519)
    if not (holds and openssl_accepts(pem(ED25519_DER + key), b"\x72", signature, "-rawin")):
        raise CannotCheck("openssl is too old for ES256 or Ed25519 here: version 3 is needed")


def jws(data: bytes, name: str, typ: str) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    """Take a compact JWS apart: header, payload, digest of what is signed, signature."""
    parts = as_text(data, name).split(".")
    demand(len(parts) == 3, name, "is not a compact JWS")
    header = unjson(unb64url(parts[0], name), name)
    demand(isinstance(header, dict), name, "its header is not an object")
    demand(sorted(header) == ["alg", "kid", "typ"], name, "its header has other members")
    demand(header["alg"] == "ES256" and header["typ"] == typ, name, "its header is another")
    digest = hashlib.sha256(f"{parts[0]}.{parts[1]}".encode("ascii")).digest()
    return header, unb64url(parts[1], name), digest, unb64url(parts[2], name)


def as_text(data: bytes, name: str) -> str:
    """Return bytes as UTF-8 text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Failed(f"{name}: is not text") from None
