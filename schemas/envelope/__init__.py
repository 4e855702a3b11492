"""The signed, addressed wrapper around one message: seal it, read it, verify it, open it.

An envelope is a CloudEvents 1.0.2 JSON object as the payload of a compact JWS. What people say is
in `data` as a JWE to the recipient; what machines say in `control` (receipts, refusals, resend
requests, voids, heads) holds no personal data and stands there in clear. All of it, headers
included, is canonical JSON, so one envelope has one spelling (`canonical.py`).

A reader checks in a fixed order and stops at the first fault: `read` (size, structure, header),
`verify` (key, signature, attributes), `expect` (the stream it was read from), `open_data` (decrypt,
commitment); the schema comes after, in `catalog.py`. Whatever the bytes are, these raise nothing
but `RejectedError`. Nothing is refused for its time, however long ago.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from schemas.canonical import b64_bytes, canonical_again, parse, unb64
from schemas.envelope.attributes import (
    CONTROL_KINDS,
    ENCRYPTED,
    PLAIN,
    Attributes,
    Kind,
    Lane,
    agency_of,
    attributes_of,
    contradiction,
    members_of,
    partition_of,
    source_of,
    stream_name,
)
from schemas.errors import RejectedError
from schemas.jose import (
    PrivateKey,
    PublicEncryptionKey,
    SigningKey,
    VerifyKey,
    begin_of_jws,
    decrypt_jwe,
    encrypt_jwe,
    read_jws,
    recipient_of,
    sign_jws,
    verify_jws,
)

__all__ = [
    "CONTROL_KINDS",
    "MESSAGE_BYTES_MAX",
    "SALT_BYTES",
    "Attributes",
    "Envelope",
    "Kind",
    "Lane",
    "Opened",
    "PrivateKey",
    "PublicEncryptionKey",
    "SigningKey",
    "Unverified",
    "VerifyKey",
    "agency_of",
    "begin_of",
    "commitment",
    "encrypted_to",
    "envelope_hash",
    "expect",
    "open_data",
    "partition_of",
    "read",
    "seal",
    "source_of",
    "stream_name",
    "verify",
]

MESSAGE_BYTES_MAX = 262_144
SALT_BYTES = 32
TYP = "cloudevents+jws"

# The one form of what is encrypted, so that the body's own bytes can be cut out of it.
_PLAINTEXT = re.compile(
    rb'\{"payload":(\{.*\}),"salt":"([A-Za-z0-9_-]{43})"\}', re.ASCII | re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """An envelope that has the right structure and that nobody vouches for yet."""

    kid: str
    raw: bytes
    hash: bytes
    payload: bytes
    signature: bytes

    @property
    def claims(self) -> Attributes | None:
        """What the bytes say of themselves, if readable; believe none of it."""
        try:
            return attributes_of(parse(self.payload))
        except RejectedError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """An envelope whose sender is certain. `data` is a JWE, or in control a JSON object."""

    attributes: Attributes
    data: str | Mapping[str, Any]
    hash: bytes
    kid: str

    def plain(self) -> bytes:
        """Return the canonical body of a control message. Raises `RejectedError` NB-2007."""
        if isinstance(self.data, str):
            raise RejectedError("NB-2007", rule="the content is encrypted")
        return canonical_again(self.data)


@dataclass(frozen=True, slots=True)
class Opened:
    """The content of a message: canonical body, and the salt of its commitment (empty in clear)."""

    body: bytes
    salt: bytes


def encrypted_to(jws: bytes) -> str | None:
    """Return the id of the key that an envelope is encrypted to, None where it is to none.

    Its signature is not looked at.
    """
    try:
        data = parse(read(jws).payload)["data"]
    except (RejectedError, KeyError, TypeError):
        return None
    return recipient_of(data) if isinstance(data, str) else None


def commitment(salt: bytes, body: bytes) -> bytes:
    """Return what binds an envelope and a record to a body without showing it.

    SHA-256 over 32 bytes of salt and the canonical bytes. Raises `ValueError` for another length.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    return sha256(salt + body).digest()


def envelope_hash(jws: bytes) -> bytes:
    """Return SHA-256 of the signing input.

    Never of the signature: anyone can turn it into another one that verifies as well.
    """
    return sha256(jws.rpartition(b".")[0]).digest()


def seal(
    attributes: Attributes,
    *,
    data: bytes,
    signing: SigningKey,
    encrypt_to: PublicEncryptionKey | None,
    salt: bytes | None,
) -> bytes:
    """Return the envelope of one message; `data` is the canonical body.

    With `encrypt_to` the body is encrypted together with `salt`, which `attributes.commitment`
    was made with. Without, it stands in clear, which only control messages may. Raises
    `ValueError` for attributes that say otherwise, `RejectedError` NB-2001 for an envelope over
    `MESSAGE_BYTES_MAX`.
    """
    rule = contradiction(attributes, encrypted=encrypt_to is not None)
    if rule is not None:
        raise ValueError(rule)
    payload = members_of(attributes)
    if encrypt_to is None:
        payload["datacontenttype"] = PLAIN
        payload["data"] = orjson.Fragment(data)
    else:
        if salt is None or commitment(salt, data) != attributes.commitment:
            raise ValueError("the commitment does not belong to this salt and body")
        payload["datacontenttype"] = ENCRYPTED
        payload["data"] = encrypt_jwe(
            b'{"payload":%b,"salt":"%b"}' % (data, b64_bytes(salt)),
            encrypt_to,
            apu=attributes.source.encode("ascii"),
            apv=attributes.recipient.encode("ascii"),
        ).decode("ascii")
    jws = sign_jws(orjson.dumps(payload, option=orjson.OPT_SORT_KEYS), signing, TYP)
    if len(jws) > MESSAGE_BYTES_MAX:
        raise RejectedError("NB-2001", size=len(jws), size_max=MESSAGE_BYTES_MAX)
    return jws


def begin_of(kid: str) -> bytes:
    """Return what the bytes of every envelope begin with that this key signed."""
    return begin_of_jws(kid, TYP)


def read(jws: bytes) -> Unverified:
    """Check size, structure and header of an envelope; nothing is believed yet.

    Raises `RejectedError` NB-2001 (too large) or what `jose.read_jws` raises.
    """
    if len(jws) > MESSAGE_BYTES_MAX:
        raise RejectedError("NB-2001", size=len(jws), size_max=MESSAGE_BYTES_MAX)
    parts = read_jws(jws, TYP)
    return Unverified(
        kid=parts.kid,
        raw=jws,
        hash=parts.digest,
        payload=parts.payload,
        signature=parts.signature,
    )


def verify(unverified: Unverified, verify_keys: Mapping[str, VerifyKey]) -> Envelope:
    """Check who signed an envelope and what it says of itself.

    Raises `RejectedError`: NB-2010 for a key that is not trusted here (it may be tomorrow),
    NB-2011 for a wrong signature under a trusted key (for ever), and for signed bytes NB-2004 (not
    canonical JSON), NB-2006 (an attribute), NB-2007 (attributes that contradict each other),
    NB-2008 (a kind from a later version), NB-2012 (the key belongs to somebody else).
    """
    key = verify_keys.get(unverified.kid)
    if key is None:
        raise RejectedError("NB-2010", kid=unverified.kid)
    verify_jws(unverified.signature, unverified.hash, key)
    members = parse(unverified.payload)
    attributes = attributes_of(members)
    if attributes.source != key.owner:
        raise RejectedError("NB-2012", kid=unverified.kid)
    data = members["data"]
    rule = contradiction(attributes, encrypted=isinstance(data, str))
    if rule is not None:
        raise RejectedError("NB-2007", rule=rule)
    return Envelope(attributes=attributes, data=data, hash=unverified.hash, kid=unverified.kid)


def expect(envelope: Envelope, *, stream: str, recipient: str) -> None:
    """Check that a message was meant for us and for the stream it was read from.

    Raises `RejectedError` NB-2013 (another recipient) or NB-2014 (another sender, lane, partition).
    """
    attributes = envelope.attributes
    if attributes.recipient != recipient:
        raise RejectedError("NB-2013", recipient=attributes.recipient)
    if attributes.stream != stream:
        raise RejectedError("NB-2014", stream=attributes.stream, read_from=stream)


def open_data(envelope: Envelope, decrypt_keys: Mapping[str, PrivateKey]) -> Opened:
    """Return the content of a verified message, held to its commitment.

    Raises `RejectedError`: what `jose.decrypt_jwe` raises, NB-2026 (the plaintext has another
    form), NB-2027 (it is not what the sender committed to).
    """
    attributes = envelope.attributes
    if not isinstance(envelope.data, str):
        return Opened(envelope.plain(), b"")
    plaintext = decrypt_jwe(
        envelope.data,
        decrypt_keys,
        apu=attributes.source.encode("ascii"),
        apv=attributes.recipient.encode("ascii"),
    )
    match = _PLAINTEXT.fullmatch(plaintext)
    if match is None:
        raise RejectedError("NB-2026")
    body = match[1]
    salt = unb64(match[2])
    if commitment(salt, body) != attributes.commitment:
        raise RejectedError("NB-2027")
    # Cut out of its surroundings, it still has to be one value, in canonical form.
    parse(body)
    return Opened(body, salt)
