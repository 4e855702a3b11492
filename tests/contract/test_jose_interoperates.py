"""Our JOSE against a library that is not ours, both ways."""

import json
import warnings
from collections.abc import Iterator

import pytest
from joserfc import jwe, jws
from joserfc.jwk import ECKey

from schemas import jose
from schemas.canonical import b64, b64_bytes, canonical, parse, unb64
from schemas.envelope import envelope_hash, open_data, read, seal, verify
from schemas.envelope.attributes import members_of
from schemas.errors import RejectedError
from tests.vectors.make import (
    ENCRYPT_TO,
    FOLDER,
    ICE,
    OPENING,
    SIGNING,
    VERIFY,
    an_fta,
    p256,
)

TYP = "cloudevents+jws"
APU, APV = ICE.encode(), b"hhs"
STORED = json.loads((FOLDER / "keys.json").read_text(encoding="utf-8"))["p256"]


def key_of(name: str, *, private: bool) -> ECKey:
    """Return a stored test key as the library's own, without what only we put there."""
    members = {k: v for k, v in STORED[name].items() if k in ("crv", "kty", "x", "y")}
    if private:
        members["d"] = STORED[name]["d"]
    return ECKey.import_key(members)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_the_thumbprint_is_the_same() -> None:
    for name, stored in STORED.items():
        assert stored["kid"] == jose.thumbprint(p256(name).public_key())
        assert stored["kid"] == key_of(name, private=False).thumbprint()


def test_the_library_verifies_what_we_sign() -> None:
    signed = jose.sign_jws(b'{"a":1}', SIGNING["ice"], TYP)

    found = jws.deserialize_compact(signed, key_of("ice sig", private=False), algorithms=["ES256"])

    assert found.payload == b'{"a":1}'
    assert found.headers() == {"alg": "ES256", "kid": SIGNING["ice"].kid, "typ": TYP}


def test_we_verify_what_the_library_signs() -> None:
    header = {"alg": "ES256", "kid": SIGNING["ice"].kid, "typ": TYP}
    signed = jws.serialize_compact(
        header, b'{"a":1}', key_of("ice sig", private=True), algorithms=["ES256"]
    )

    found = jose.read_jws(signed.encode(), TYP)

    jose.verify_jws(found.signature, found.digest, VERIFY[found.kid])
    assert found.payload == b'{"a":1}'


def test_the_library_decrypts_what_we_encrypt() -> None:
    sealed = jose.encrypt_jwe(b"secret", ENCRYPT_TO["hhs"], apu=APU, apv=APV)

    found = jwe.decrypt_compact(
        sealed,
        key_of("hhs enc", private=True),
        algorithms=["ECDH-ES+A256KW", "A256GCM"],
    )

    assert found.plaintext == b"secret"


def library_jwe() -> str:
    """Encrypt with the library, which puts `epk` at the end of the header."""
    header = {
        "alg": "ECDH-ES+A256KW",
        "apu": b64(APU),
        "apv": b64(APV),
        "enc": "A256GCM",
        "kid": OPENING["hhs"].kid,
    }
    return jwe.encrypt_compact(
        header,
        b"secret",
        key_of("hhs enc", private=False),
        algorithms=["ECDH-ES+A256KW", "A256GCM"],
    )


def test_we_decrypt_what_the_library_encrypts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the order of the header's members is ours to insist on; all else must agree."""
    sealed = library_jwe()
    members = json.loads(unb64(sealed.split(".")[0]))
    with pytest.raises(RejectedError, match="NB-2004"):
        jose.decrypt_jwe(sealed, {OPENING["hhs"].kid: OPENING["hhs"]}, apu=APU, apv=APV)

    monkeypatch.setattr(jose, "parse", lambda data, depth_max: json.loads(data))
    opened = jose.decrypt_jwe(sealed, {OPENING["hhs"].kid: OPENING["hhs"]}, apu=APU, apv=APV)

    assert opened == b"secret"
    assert sorted(members) == ["alg", "apu", "apv", "enc", "epk", "kid"]


def test_the_library_takes_a_whole_envelope_apart() -> None:
    attributes, body, salt = an_fta()
    envelope = seal(
        attributes, data=body, signing=SIGNING["ice"], encrypt_to=ENCRYPT_TO["hhs"], salt=salt
    )

    signed = jws.deserialize_compact(
        envelope, key_of("ice sig", private=False), algorithms=["ES256"]
    )
    members = json.loads(signed.payload)
    content = jwe.decrypt_compact(
        members.pop("data"),
        key_of("hhs enc", private=True),
        algorithms=["ECDH-ES+A256KW", "A256GCM"],
    )

    assert members.pop("datacontenttype") == "application/jose"
    assert members == members_of(attributes)
    assert content.plaintext is not None
    assert parse(content.plaintext) == {"payload": parse(body), "salt": b64(salt)}


def test_an_envelope_that_the_library_signed_is_taken() -> None:
    attributes, body, salt = an_fta()
    ours = seal(
        attributes, data=body, signing=SIGNING["ice"], encrypt_to=ENCRYPT_TO["hhs"], salt=salt
    )
    header = parse(unb64(ours.split(b".")[0]))
    theirs = jws.serialize_compact(
        header,
        unb64(ours.split(b".")[1]),
        key_of("ice sig", private=True),
        algorithms=["ES256"],
    ).encode()

    envelope = verify(read(theirs), VERIFY)

    assert envelope.attributes == attributes
    assert envelope_hash(theirs) == envelope_hash(ours)
    assert open_data(envelope, {OPENING["hhs"].kid: OPENING["hhs"]}).body == body
    assert theirs.split(b".")[0] == b64_bytes(canonical(header))
