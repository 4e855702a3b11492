"""Envelopes as somebody would forge them: signed with any header, any payload, any content.

`code_of` is what a recipient answers; `take` is all it does with an entry before the schema.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from schemas import jose
from schemas.canonical import b64, b64_bytes, canonical, parse, unb64
from schemas.envelope import (
    Envelope,
    Opened,
    PrivateKey,
    SigningKey,
    VerifyKey,
    expect,
    open_data,
    read,
    seal,
    verify,
)
from schemas.errors import RejectedError
from tests.vectors.make import ENCRYPT_TO, ICE, OPENING, SIGNING, VERIFY, an_fta

STREAM = "{ice.hhs.live.0}:out"
KEYS = {OPENING["hhs"].kid: OPENING["hhs"]}
TYP = "cloudevents+jws"

ATTRIBUTES, BODY, SALT = an_fta()
GOOD = seal(ATTRIBUTES, data=BODY, signing=SIGNING["ice"], encrypt_to=ENCRYPT_TO["hhs"], salt=SALT)


def take(
    jws: bytes,
    *,
    verify_keys: Mapping[str, VerifyKey] = VERIFY,
    decrypt_keys: Mapping[str, PrivateKey] = KEYS,
    stream: str = STREAM,
    recipient: str = "hhs",
) -> tuple[Envelope, Opened]:
    """Do what a recipient does with one stream entry, before the schema."""
    envelope = verify(read(jws), verify_keys)
    expect(envelope, stream=stream, recipient=recipient)
    return envelope, open_data(envelope, decrypt_keys)


def code_of(jws: bytes, **how: Any) -> str:
    """Return the code an envelope is refused with; its words can be read."""
    with pytest.raises(RejectedError) as refused:
        take(jws, **how)
    assert refused.value.sentence
    assert refused.value.fix
    return refused.value.code


def signed(payload: bytes, header: bytes | None = None, key: SigningKey = SIGNING["ice"]) -> bytes:
    """Sign anything, under any header."""
    if header is None:
        return jose.sign_jws(payload, key, TYP)
    return with_header(jose.sign_jws(payload, key, TYP), header)


def with_header(jws: bytes, header: bytes) -> bytes:
    _, payload, signature = jws.split(b".")
    return b".".join((b64_bytes(header), payload, signature))


def header(**members: Any) -> bytes:
    return canonical({"alg": "ES256", "kid": SIGNING["ice"].kid, "typ": TYP} | members)


def payload(*, without: str = "", **members: Any) -> bytes:
    """Return the good envelope's payload with anything changed or left out."""
    content = parse(unb64(GOOD.split(b".")[1])) | members
    content.pop(without, None)
    return canonical(content)


def encrypted(plaintext: bytes, apu: str = ICE, apv: str = "hhs") -> str:
    return jose.encrypt_jwe(
        plaintext, ENCRYPT_TO["hhs"], apu=apu.encode(), apv=apv.encode()
    ).decode()


def plaintext(body: bytes = BODY, salt: bytes = SALT) -> bytes:
    return b'{"payload":%b,"salt":"%b"}' % (body, b64_bytes(salt))


def with_jwe_header(change: Callable[[dict[str, Any]], object]) -> str:
    """Encrypt honestly, then change the header: everything up to the key still fits."""
    head, _, rest = encrypted(plaintext()).partition(".")
    members = parse(unb64(head))
    change(members)
    return f"{b64(canonical(members))}.{rest}"


def epk_of(curve: ec.EllipticCurve) -> dict[str, str]:
    numbers = ec.generate_private_key(curve).public_key().public_numbers()
    length = (curve.key_size + 7) // 8
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": b64(numbers.x.to_bytes(length, "big")),
        "y": b64(numbers.y.to_bytes(length, "big")),
    }
