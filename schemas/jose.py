"""The part of JOSE that envelopes use, and nothing beside it: ES256, and ECDH-ES+A256KW.

A header has exactly the members named here, in canonical JSON, so there is nothing to negotiate and
nothing to ignore: `zip`, `crit`, `jku`, `jwk` and `x5c` are refused before a key is used, and the
algorithm comes from the key. `kid` is the RFC 7638 thumbprint. Every part is strict base64url.
Sources: RFC 7515 (JWS), 7516 (JWE), 7518 (algorithms), 7638 (thumbprints).

Written on `cryptography` directly because that takes two thirds of the time of a JOSE library; the
tests hold it against one, both ways.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from os import urandom
from typing import Any, Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_wrap,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.canonical import b64, b64_bytes, canonical, parse, unb64
from schemas.errors import RejectedError

SIGNATURE_BYTES = 64
COORDINATE_BYTES = 32
JWE_ALGORITHM = "ECDH-ES+A256KW"
JWE_ENCRYPTION = "A256GCM"

_CURVE = ec.SECP256R1()
_ES256 = ec.ECDSA(Prehashed(hashes.SHA256()))
# RFC 6979: the same bytes under the same key have the same signature.
_ES256_SAME = ec.ECDSA(Prehashed(hashes.SHA256()), deterministic_signing=True)
_ECDH = ec.ECDH()
_WRAPPED_KEY_BYTES, _IV_BYTES, _TAG_BYTES = 40, 12, 16
_JWS_MEMBERS = {"alg", "kid", "typ"}
_JWE_MEMBERS = {"alg", "apu", "apv", "enc", "epk", "kid"}
_EPK_MEMBERS = {"crv", "kty", "x", "y"}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key that signs envelopes."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> Self:
        """Wrap a private key. Raises `ValueError` for another curve."""
        return cls(thumbprint(private.public_key()), private)


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public P-256 key and whose it is: `owner` is the `source` it may sign for."""

    kid: str
    public: ec.EllipticCurvePublicKey
    owner: str

    @classmethod
    def of(cls, public: ec.EllipticCurvePublicKey, *, owner: str) -> Self:
        """Wrap a public key. Raises `ValueError` for another curve."""
        return cls(thumbprint(public), public, owner)


@dataclass(frozen=True, slots=True)
class PublicEncryptionKey:
    """A public P-256 key that messages are encrypted to."""

    kid: str
    public: ec.EllipticCurvePublicKey

    @classmethod
    def of(cls, public: ec.EllipticCurvePublicKey) -> Self:
        """Wrap a public key. Raises `ValueError` for another curve."""
        return cls(thumbprint(public), public)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A P-256 key that opens messages."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> Self:
        """Wrap a private key. Raises `ValueError` for another curve."""
        return cls(thumbprint(private.public_key()), private)


@dataclass(frozen=True, slots=True)
class Jws:
    """A JWS taken apart; nobody has checked its signature yet."""

    kid: str
    payload: bytes
    signature: bytes
    digest: bytes
    """SHA-256 of the signing input, `header.payload` as they stand."""


def sign_jws(payload: bytes, key: SigningKey, typ: str, *, deterministic: bool = False) -> bytes:
    """Return the compact JWS of `payload`, signed by ES256.

    With a fresh nonce each time, unless the same payload is to make the same bytes.
    """
    signing_input = _jws_header(key.kid, typ) + b"." + b64_bytes(payload)
    scheme = _ES256_SAME if deterministic else _ES256
    r, s = decode_dss_signature(key.private.sign(sha256(signing_input).digest(), scheme))
    raw = r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")
    return signing_input + b"." + b64_bytes(raw)


def read_jws(jws: bytes, typ: str) -> Jws:
    """Take a compact JWS apart and hold its header to the rules; no key is used.

    Raises `RejectedError` NB-2002 (not three parts), NB-2003 (base64url), NB-2004 and NB-2005 (the
    header), NB-2011 (a signature that ES256 cannot have made).
    """
    if jws.count(b".") != 2:
        raise RejectedError("NB-2002")
    parts = jws.split(b".")
    header, payload, signature = parts
    kid = _jws_kid(header, typ)
    raw = unb64(signature)
    if len(raw) != SIGNATURE_BYTES:
        raise RejectedError("NB-2011", kid=kid)
    signing_input = memoryview(jws)[: len(jws) - len(signature) - 1]
    return Jws(kid, unb64(payload), raw, sha256(signing_input).digest())


def verify_jws(signature: bytes, digest: bytes, key: VerifyKey) -> None:
    """Check a raw signature over a digest of `Jws`. Raises `RejectedError` NB-2011."""
    r = int.from_bytes(signature[:COORDINATE_BYTES], "big")
    s = int.from_bytes(signature[COORDINATE_BYTES:], "big")
    try:
        key.public.verify(encode_dss_signature(r, s), digest, _ES256)
    except InvalidSignature:
        raise RejectedError("NB-2011", kid=key.kid) from None


def begin_of_jws(kid: str, typ: str) -> bytes:
    """Return what every JWS begins with that this key signed as this type."""
    return _jws_header(kid, typ) + b"."


@lru_cache(maxsize=64)
def _jws_header(kid: str, typ: str) -> bytes:
    return b64_bytes(canonical({"alg": "ES256", "kid": kid, "typ": typ}))


# An agency signs with few keys, so nearly every header was seen before.
@lru_cache(maxsize=64)
def _jws_kid(header: bytes, typ: str) -> str:
    members = parse(unb64(header), depth_max=2)
    _exactly(members, _JWS_MEMBERS)
    if members["alg"] != "ES256" or members["typ"] != typ:
        raise RejectedError("NB-2005", rule="algorithm or type is another")
    return _kid(members)


def encrypt_jwe(plaintext: bytes, to: PublicEncryptionKey, *, apu: bytes, apv: bytes) -> bytes:
    """Return the compact JWE of `plaintext` for one recipient, under a fresh ephemeral key."""
    ephemeral = ec.generate_private_key(_CURVE)
    x, y = _coordinates(ephemeral.public_key())
    apu_text, apv_text = b64_bytes(apu), b64_bytes(apv)
    # Canonical JSON by hand: every value is base64url or a constant, so nothing needs escaping.
    header = b64_bytes(
        b'{"alg":"ECDH-ES+A256KW","apu":"%b","apv":"%b","enc":"A256GCM",'
        b'"epk":{"crv":"P-256","kty":"EC","x":"%b","y":"%b"},"kid":"%b"}'
        % (apu_text, apv_text, b64_bytes(x), b64_bytes(y), to.kid.encode("ascii"))
    )
    kek = _derive(ephemeral.exchange(_ECDH, to.public), apu, apv)
    cek = urandom(32)
    iv = urandom(_IV_BYTES)
    sealed = AESGCM(cek).encrypt(iv, plaintext, header)
    return b".".join(
        (
            header,
            b64_bytes(aes_key_wrap(kek, cek)),
            b64_bytes(iv),
            b64_bytes(sealed[:-_TAG_BYTES]),
            b64_bytes(sealed[-_TAG_BYTES:]),
        )
    )


def decrypt_jwe(jwe: str, keys: Mapping[str, PrivateKey], *, apu: bytes, apv: bytes) -> bytes:
    """Return the plaintext of a compact JWE from `apu` to `apv`.

    Raises `RejectedError`: NB-2020 (not five parts, or parts of impossible lengths), NB-2003
    (base64url), NB-2004 and NB-2021 (the header), NB-2022 (encrypted to a key that is not ours),
    NB-2023 (other agreement parties), NB-2024 (no point of the curve), NB-2025 (does not open).
    """
    if not jwe.isascii() or jwe.count(".") != 4:
        raise RejectedError("NB-2020")
    parts = jwe.encode("ascii").split(b".")
    members = _jwe_header(parts[0])
    wrapped, iv, ciphertext, tag = map(unb64, parts[1:])
    if (len(wrapped), len(iv), len(tag)) != (_WRAPPED_KEY_BYTES, _IV_BYTES, _TAG_BYTES):
        raise RejectedError("NB-2020")
    if members["apu"] != b64(apu) or members["apv"] != b64(apv):
        raise RejectedError("NB-2023")
    key = keys.get(members["kid"])
    if key is None:
        # The error is read by people and logged: it repeats a key id, not whatever stands there.
        kid = members["kid"] if is_thumbprint(members["kid"]) else "(not a thumbprint)"
        raise RejectedError("NB-2022", kid=kid)
    kek = _derive(key.private.exchange(_ECDH, _point(members["epk"])), apu, apv)
    try:
        return AESGCM(aes_key_unwrap(kek, wrapped)).decrypt(iv, ciphertext + tag, parts[0])
    except (InvalidUnwrap, InvalidTag, ValueError):
        raise RejectedError("NB-2025") from None


def recipient_of(jwe: str) -> str | None:
    """Return the id of the key that a compact JWE is encrypted to, None for what is no JWE."""
    try:
        kid = _jwe_header(jwe.partition(".")[0].encode("ascii"))["kid"]
    except (RejectedError, UnicodeEncodeError):
        return None
    return str(kid)


def _jwe_header(segment: bytes) -> dict[str, Any]:
    members = parse(unb64(segment), depth_max=3)
    if not isinstance(members, dict) or members.keys() != _JWE_MEMBERS:
        raise RejectedError("NB-2021", rule="members are missing, or there are others")
    if members["alg"] != JWE_ALGORITHM or members["enc"] != JWE_ENCRYPTION:
        raise RejectedError("NB-2021", rule="algorithm or encryption is another")
    if not isinstance(members["kid"], str):
        raise RejectedError("NB-2021", rule="the key id is not text")
    return members


def _point(epk: object) -> ec.EllipticCurvePublicKey:
    """Return the ephemeral public key, which the sender chose: hold it to the curve."""
    if not isinstance(epk, dict) or epk.keys() != _EPK_MEMBERS:
        raise RejectedError("NB-2021", rule="the ephemeral key has other members")
    try:
        return public_key_of(epk)
    except ValueError:
        raise RejectedError("NB-2024") from None


def _derive(shared: bytes, apu: bytes, apv: bytes) -> bytes:
    """Return the 32-byte key that wraps the content key (Concat KDF, RFC 7518, section 4.6.2)."""
    # One round of SHA-256 gives the 256 bits that A256KW needs.
    algorithm = JWE_ALGORITHM.encode("ascii")
    return sha256(
        b"\x00\x00\x00\x01%b%b%b%b%b%b%b\x00\x00\x01\x00"
        % (
            shared,
            len(algorithm).to_bytes(4, "big"),
            algorithm,
            len(apu).to_bytes(4, "big"),
            apu,
            len(apv).to_bytes(4, "big"),
            apv,
        )
    ).digest()


def thumbprint(public: ec.EllipticCurvePublicKey) -> str:
    """Return the RFC 7638 thumbprint of a P-256 key: 43 characters of base64url.

    Raises `ValueError` for another curve.
    """
    return b64(sha256(canonical(_coordinate_members(public))).digest())


def public_jwk(public: ec.EllipticCurvePublicKey, *, use: str) -> dict[str, str]:
    """Return a public key as a JWK with `kid` and `use` (`sig` or `enc`)."""
    return {**_coordinate_members(public), "kid": thumbprint(public), "use": use}


def public_key_of(jwk: Mapping[str, object]) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key with the coordinates of a JWK.

    Raises `ValueError` for another curve, wrong lengths, or a point that is not on the curve.
    """
    x, y = jwk.get("x"), jwk.get("y")
    if (jwk.get("kty"), jwk.get("crv")) != ("EC", "P-256"):
        raise ValueError("not a P-256 key")
    if not (isinstance(x, str) and isinstance(y, str)):
        raise ValueError("a coordinate is missing")  # noqa: TRY004 - one kind of error for callers
    try:
        point = b"\x04" + unb64(x) + unb64(y)
    except RejectedError:
        raise ValueError("a coordinate is not base64url") from None
    if len(point) != 1 + 2 * COORDINATE_BYTES or len(x) != len(y):
        raise ValueError("a coordinate has not 32 bytes")
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point)


def is_thumbprint(value: object) -> bool:
    """Tell whether a value looks like a SHA-256 in base64url."""
    try:
        return isinstance(value, str) and len(value) == 43 and len(unb64(value)) == 32
    except RejectedError:
        return False


def _coordinate_members(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    if not isinstance(public.curve, ec.SECP256R1):
        raise ValueError("not a P-256 key")  # noqa: TRY004 - the type is right, the curve is not
    x, y = _coordinates(public)
    return {"crv": "P-256", "kty": "EC", "x": b64(x), "y": b64(y)}


def _coordinates(public: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return point[1 : 1 + COORDINATE_BYTES], point[1 + COORDINATE_BYTES :]


def _exactly(members: object, names: set[str]) -> None:
    if not isinstance(members, dict) or members.keys() != names:
        raise RejectedError("NB-2005", rule="members are missing, or there are others")


def _kid(members: Mapping[str, object]) -> str:
    kid = members["kid"]
    if isinstance(kid, str) and is_thumbprint(kid):
        return kid
    raise RejectedError("NB-2005", rule="the key id is not a thumbprint")
