"""Content that somebody encrypted to hurt, in envelopes that are signed with a trusted key."""

from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import b64, canonical, parse, unb64
from schemas.envelope import seal
from schemas.envelope.attributes import members_of
from tests.forgery import (
    BODY,
    code_of,
    encrypted,
    epk_of,
    payload,
    plaintext,
    signed,
    with_jwe_header,
)
from tests.vectors.make import ENCRYPT_TO, HHS, SIGNING, an_fta


@pytest.mark.parametrize(
    ("what", "data", "code"),
    [
        ("not a JWE", "x", "NB-2020"),
        ("empty", "", "NB-2020"),
        ("empty parts", "....", "NB-2004"),
        ("six parts", encrypted(plaintext()) + ".AA", "NB-2020"),
        ("not ASCII", "é....", "NB-2020"),
        ("padding", encrypted(plaintext()) + "=", "NB-2003"),
        ("no tag", encrypted(plaintext()).rpartition(".")[0] + ".", "NB-2020"),
        ("alg dir", with_jwe_header(lambda m: m.update(alg="dir")), "NB-2021"),
        ("alg ECDH-ES", with_jwe_header(lambda m: m.update(alg="ECDH-ES")), "NB-2021"),
        ("enc CBC", with_jwe_header(lambda m: m.update(enc="A128CBC-HS256")), "NB-2021"),
        ("zip", with_jwe_header(lambda m: m.update(zip="DEF")), "NB-2021"),
        ("crit", with_jwe_header(lambda m: m.update(crit=["zip"])), "NB-2021"),
        ("jku", with_jwe_header(lambda m: m.update(jku="https://evil.example")), "NB-2021"),
        ("no apu", with_jwe_header(lambda m: m.pop("apu")), "NB-2021"),
        ("kid is a list", with_jwe_header(lambda m: m.update(kid=[])), "NB-2021"),
        (
            "kid of somebody",
            with_jwe_header(lambda m: m.update(kid=ENCRYPT_TO["ice"].kid)),
            "NB-2022",
        ),
        ("kid is a story", with_jwe_header(lambda m: m.update(kid="A 012-345-678")), "NB-2022"),
        ("apu of another", encrypted(plaintext(), apu=HHS), "NB-2023"),
        ("apv of another", encrypted(plaintext(), apv="ice"), "NB-2023"),
        ("apu changed", with_jwe_header(lambda m: m.update(apu=b64(HHS.encode()))), "NB-2023"),
        ("epk is text", with_jwe_header(lambda m: m.update(epk="x")), "NB-2021"),
        ("epk with d", with_jwe_header(lambda m: m["epk"].update(d="AA")), "NB-2021"),
        (
            "epk of another curve",
            with_jwe_header(lambda m: m["epk"].update(crv="P-384")),
            "NB-2024",
        ),
        ("epk of another type", with_jwe_header(lambda m: m["epk"].update(kty="OKP")), "NB-2024"),
        (
            "epk of P-384",
            with_jwe_header(lambda m: m.update(epk=epk_of(ec.SECP384R1()))),
            "NB-2024",
        ),
        (
            "epk of secp256k1",
            with_jwe_header(lambda m: m.update(epk=epk_of(ec.SECP256K1()))),
            "NB-2024",
        ),
        (
            "epk at infinity",
            with_jwe_header(lambda m: m["epk"].update(x=b64(bytes(32)), y=b64(bytes(32)))),
            "NB-2024",
        ),
        ("epk x is a number", with_jwe_header(lambda m: m["epk"].update(x=1)), "NB-2024"),
        ("epk x is short", with_jwe_header(lambda m: m["epk"].update(x="AA")), "NB-2024"),
        (
            "epk x is not base64url",
            with_jwe_header(lambda m: m["epk"].update(x="=" * 43)),
            "NB-2024",
        ),
        (
            "epk of another moment",
            with_jwe_header(lambda m: m.update(epk=epk_of(ec.SECP256R1()))),
            "NB-2025",
        ),
        ("tag changed", encrypted(plaintext())[:-6] + "AAAAAA", "NB-2025"),
        ("plaintext is not ours", encrypted(b"hello"), "NB-2026"),
        ("plaintext is empty", encrypted(b""), "NB-2026"),
        ("a body that is no object", encrypted(plaintext(b"[]")), "NB-2026"),
        ("a short salt", encrypted(plaintext(salt=b"short")), "NB-2026"),
        ("another salt", encrypted(plaintext(salt=bytes(32))), "NB-2027"),
        ("another body", encrypted(plaintext(b"{}")), "NB-2027"),
        (
            "the same body spelled otherwise",
            encrypted(plaintext(BODY.replace(b":", b": ", 1))),
            "NB-2027",
        ),
    ],
)
def test_wrong_content_is_refused(what: str, data: str, code: str) -> None:
    assert code_of(signed(payload(data=data))) == code, what


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1} ',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":"\xff"}',
        b'{"a":1},"x":{}',
        b"{}}",
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
    ],
)
def test_a_body_that_was_committed_to_must_still_be_canonical(body: bytes) -> None:
    attributes, body, salt = an_fta(body=body)
    jws = signed(
        canonical(
            members_of(attributes)
            | {"data": encrypted(plaintext(body, salt)), "datacontenttype": "application/jose"}
        )
    )

    assert code_of(jws) in {"NB-2004", "NB-2026"}


def test_content_cannot_move_between_envelopes() -> None:
    """A second notice with the content of the first: the commitment does not fit."""
    other, other_body, other_salt = an_fta(
        body=b'{"other":1}', id=UUID(int=7), subject=UUID(int=8), sequence=2
    )
    second = seal(
        other,
        data=other_body,
        signing=SIGNING["ice"],
        encrypt_to=ENCRYPT_TO["hhs"],
        salt=other_salt,
    )
    moved = parse(unb64(second.split(b".")[1]))["data"]

    assert code_of(signed(payload(data=moved))) == "NB-2027"


@given(part=st.integers(0, 4), put=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_part_of_the_content_that_is_signed_is_refused_in_one_way(
    part: int, put: bytes
) -> None:
    parts = encrypted(plaintext()).split(".")
    parts[part] = b64(put)

    assert code_of(signed(payload(data=".".join(parts)))).startswith("NB-20")
