"""Party files: strict reading, and keys that are what they say."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import b64, canonical
from schemas.errors import RejectedError
from schemas.jose import public_jwk
from schemas.party import Party, fingerprint
from tests.vectors.make import ENCRYPT_TO, HHS, OPENING, SIGNING, VERIFY, p256, party

FILE = party().to_bytes()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(FILE)
    change(content)
    return canonical(content)


def test_it_gives_the_keys_that_the_other_side_needs() -> None:
    read = Party.from_bytes(FILE)

    assert read == party()
    assert read.source == HHS
    kid = SIGNING["hhs"].kid
    (key,) = read.verify_keys().values()
    assert (key.kid, key.owner) == (kid, HHS)
    assert key.public == VERIFY[kid].public
    assert read.encryption_key().kid == ENCRYPT_TO["hhs"].kid == OPENING["hhs"].kid
    assert read.partitions.live == 2


def test_after_a_rotation_both_signing_keys_verify_and_the_first_encryption_key_is_used() -> None:
    newer = public_jwk(p256("hhs newer").public_key(), use="enc")
    older = public_jwk(p256("hhs older").public_key(), use="sig")

    read = Party.from_bytes(
        changed(lambda c: c["jwks"].update(keys=[newer, older, *c["jwks"]["keys"]]))
    )

    assert read.encryption_key().kid == newer["kid"]
    assert set(read.verify_keys()) == {older["kid"], SIGNING["hhs"].kid}


def _other_kid(content: dict[str, Any]) -> None:
    content["jwks"]["keys"][0]["kid"] = content["jwks"]["keys"][1]["kid"]


@pytest.mark.parametrize(
    ("what", "file", "field"),
    [
        ("nothing", b"", "(file)"),
        ("not canonical", FILE.replace(b":", b": ", 1), "(file)"),
        ("a list", b"[]", "(file)"),
        ("too large", FILE + b" " * 70_000, "(file)"),
        ("agency", changed(lambda c: c.update(agency="H H S")), "agency"),
        ("domain", changed(lambda c: c.update(domain="hhs.example/x")), "domain"),
        ("generation", changed(lambda c: c.update(generation=0)), "generation"),
        ("unknown field", changed(lambda c: c.update(more=1)), "more"),
        ("version", changed(lambda c: c.update(schema_version="party/9.0")), "schema_version"),
        ("no keys", changed(lambda c: c["jwks"].update(keys=[])), "jwks.keys"),
        ("only signing", changed(lambda c: c["jwks"]["keys"].pop(1)), "(file)"),
        (
            "a key twice",
            changed(lambda c: c["jwks"]["keys"].append(c["jwks"]["keys"][0])),
            "(file)",
        ),
        ("a private key", changed(lambda c: c["jwks"]["keys"][0].update(d="AA")), "jwks.keys.0.d"),
        ("another kid", changed(_other_kid), "jwks.keys.0"),
        (
            "no point",
            changed(lambda c: c["jwks"]["keys"][0].update(x=b64(bytes(32)))),
            "jwks.keys.0",
        ),
        (
            "another curve",
            changed(lambda c: c["jwks"]["keys"][0].update(crv="P-384")),
            "jwks.keys.0.crv",
        ),
        ("no log key", changed(lambda c: c.update(log_keys=[])), "(file)"),
        ("a log key that is none", changed(lambda c: c.update(log_keys=["x"])), "(file)"),
        ("a log key of another", changed(lambda c: c.update(domain="ice.example")), "(file)"),
        (
            "a cosigner as log key",
            changed(lambda c: c.update(log_keys=c["cosigner_keys"])),
            "(file)",
        ),
        (
            "a log key as cosigner",
            changed(lambda c: c.update(cosigner_keys=c["log_keys"])),
            "(file)",
        ),
        ("partitions", changed(lambda c: c["partitions"].update(live=0)), "partitions.live"),
        (
            "partitions of control",
            changed(lambda c: c["partitions"].update(control=2)),
            "partitions.control",
        ),
        ("time", changed(lambda c: c.update(made_at="today")), "made_at"),
    ],
)
def test_a_wrong_party_file_is_refused_with_its_field(what: str, file: bytes, field: str) -> None:
    with pytest.raises(RejectedError) as refused:
        Party.from_bytes(file)

    assert (refused.value.code, refused.value.where["field"]) == ("NB-4020", field), what
    assert refused.value.sentence


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_in_one_way(file: bytes) -> None:
    with pytest.raises(RejectedError, match="NB-4020"):
        Party.from_bytes(file)


@given(at=st.integers(0, len(FILE) - 1), put=st.binary(min_size=1, max_size=3))
@settings(deadline=None)
def test_any_damage_is_refused_or_changes_the_fingerprint(at: int, put: bytes) -> None:
    damaged = FILE[:at] + put + FILE[at + len(put) :]

    try:
        Party.from_bytes(damaged)
    except RejectedError as error:
        code = error.code
    else:
        assert damaged == FILE or fingerprint(damaged) != fingerprint(FILE)
        return
    assert code == "NB-4020"


def test_a_private_key_is_nowhere_in_the_file() -> None:
    for name in ("hhs sig", "hhs enc"):
        secret = p256(name).private_numbers().private_value.to_bytes(32, "big")
        assert b64(secret).encode() not in FILE
    assert isinstance(p256("hhs sig").curve, ec.SECP256R1)
