"""Envelopes that somebody made to hurt: each gives one kind of error with its code, never a crash.

Most are signed with a key that is trusted here, because that is the harder case: a sender who went
bad, or whose key was taken.
"""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import jose
from schemas.canonical import b64_bytes, canonical, parse, unb64
from schemas.envelope import (
    MESSAGE_BYTES_MAX,
    Attributes,
    Kind,
    Lane,
    Opened,
    PrivateKey,
    PublicEncryptionKey,
    SigningKey,
    VerifyKey,
    envelope_hash,
    read,
    seal,
)
from schemas.envelope.attributes import members_of
from schemas.errors import RejectedError
from tests.forgery import (
    ATTRIBUTES,
    BODY,
    GOOD,
    SALT,
    TYP,
    code_of,
    header,
    payload,
    signed,
    take,
    with_header,
)
from tests.vectors.make import (
    ENCRYPT_TO,
    HHS,
    ICE,
    OPENING,
    ORDER,
    SIGNING,
    a_refusal,
)


def test_the_good_envelope_is_taken() -> None:
    envelope, content = take(GOOD)

    assert (envelope.attributes, content) == (ATTRIBUTES, Opened(BODY, SALT))


def in_the_plain_alphabet() -> bytes:
    """Return a good envelope in the other base64 alphabet, whose two characters are in it.

    Base64 of ASCII rarely has them, and of a signature not always: sign until they are there.
    """
    while True:
        jws = signed(payload())
        if b"-" in jws and b"_" in jws:
            return jws.replace(b"-", b"+").replace(b"_", b"/")


@pytest.mark.parametrize(
    ("what", "jws", "code"),
    [
        ("nothing", b"", "NB-2002"),
        ("unsigned", GOOD.rpartition(b".")[0], "NB-2002"),
        ("not signed at all", payload(), "NB-2002"),
        ("empty signature", GOOD.rpartition(b".")[0] + b".", "NB-2011"),
        ("empty parts", b"..", "NB-2004"),
        ("five parts", GOOD + b".a.b", "NB-2002"),
        ("JWS in JSON", canonical({"payload": "e30", "signatures": []}), "NB-2002"),
        (
            "flattened JWS in JSON",
            json.dumps(
                dict(
                    zip(
                        ("protected", "payload", "signature"),
                        GOOD.decode().split("."),
                        strict=True,
                    )
                )
            ).encode(),
            "NB-2002",
        ),
        ("too large", b"." * (MESSAGE_BYTES_MAX + 1), "NB-2001"),
        ("padding", GOOD + b"==", "NB-2003"),
        ("blank at the end", GOOD + b"\n", "NB-2003"),
        ("plain alphabet", in_the_plain_alphabet(), "NB-2003"),
        ("not ASCII", b"\xff\xfe." + GOOD, "NB-2002"),
        ("not ASCII inside", GOOD[:-5] + b"\xc3\xa9abc", "NB-2003"),
        ("NUL", GOOD[:-3] + b"\0ab", "NB-2003"),
    ],
)
def test_a_wrong_structure_is_refused(what: str, jws: bytes, code: str) -> None:
    assert code_of(jws) == code, what


@pytest.mark.parametrize(
    ("what", "members", "code"),
    [
        ("alg none", header(alg="none"), "NB-2005"),
        ("a shared secret", header(alg="HS256"), "NB-2005"),
        ("another curve", header(alg="ES384"), "NB-2005"),
        ("another type", header(typ="JWT"), "NB-2005"),
        ("zip", header(zip="DEF"), "NB-2005"),
        ("crit", header(crit=["exp"]), "NB-2005"),
        ("b64", header(b64=False, crit=["b64"]), "NB-2005"),
        ("jku", header(jku="https://evil.example/keys"), "NB-2005"),
        (
            "jwk",
            header(jwk=jose.public_jwk(OPENING["ice"].private.public_key(), use="sig")),
            "NB-2005",
        ),
        ("x5c", header(x5c=["AA"]), "NB-2005"),
        ("x5u", header(x5u="https://evil.example/cert"), "NB-2005"),
        ("no kid", canonical({"alg": "ES256", "typ": TYP}), "NB-2005"),
        ("kid is a path", header(kid="../../etc/passwd"), "NB-2005"),
        ("kid is a number", header(kid=7), "NB-2005"),
        ("kid of 43 characters that are no hash", header(kid="é" * 43), "NB-2005"),
        ("alg is a list", header(alg=["ES256"]), "NB-2005"),
        ("a list", b"[]", "NB-2005"),
        ("blanks", header().replace(b":", b": "), "NB-2004"),
        (
            "other order",
            header().replace(b'"alg":"ES256",', b"")[:-1] + b',"alg":"ES256"}',
            "NB-2004",
        ),
        ("alg twice", header().replace(b'{"alg"', b'{"alg":"none","alg"'), "NB-2004"),
        ("not UTF-8", b'{"alg":"\xff"}', "NB-2004"),
        ("not JSON", b"alg=ES256", "NB-2004"),
        ("deep", b"[" * 5000 + b"]" * 5000, "NB-2004"),
        ("a float", b'{"alg":1.5}', "NB-2004"),
    ],
)
def test_a_header_with_anything_else_is_refused(what: str, members: bytes, code: str) -> None:
    assert code_of(with_header(GOOD, members)) == code, what


def test_the_header_is_refused_before_a_key_is_used() -> None:
    assert code_of(with_header(GOOD, header(zip="DEF")), verify_keys={}) == "NB-2005"


def test_a_key_that_is_not_trusted_is_told_from_a_wrong_signature() -> None:
    stranger = SigningKey.of(ec.generate_private_key(ec.SECP256R1()))
    under_our_kid = replace(stranger, kid=SIGNING["ice"].kid)

    assert code_of(signed(payload(), key=stranger)) == "NB-2010"
    assert code_of(signed(payload(), key=under_our_kid)) == "NB-2011"


@pytest.mark.parametrize(
    "signature",
    [
        bytes(64),
        bytes(32) + b"\x01" * 32,
        ORDER.to_bytes(32, "big") * 2,
        b"\xff" * 64,
        b"\x01" * 63,
        b"\x01" * 65,
        SIGNING["ice"].private.sign(b"x", ec.ECDSA(SHA256())),
    ],
    ids=["zeros", "one", "order", "ones", "short", "long", "of something else, in DER"],
)
def test_a_made_up_signature_is_refused(signature: bytes) -> None:
    signing_input = GOOD.rpartition(b".")[0]

    assert code_of(signing_input + b"." + b64_bytes(signature)) == "NB-2011"


def test_a_twin_signature_is_the_same_message() -> None:
    """Anyone can turn (r, s) into (r, n - s), which verifies as well: the hash must not see it."""
    signing_input, _, encoded = GOOD.rpartition(b".")
    raw = unb64(encoded)
    twin_s = (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    twin = signing_input + b"." + b64_bytes(raw[:32] + twin_s)

    envelope, content = take(twin)

    assert twin != GOOD
    assert envelope.hash == envelope_hash(GOOD) == envelope_hash(twin)
    assert content.body == BODY


def test_another_spelling_of_the_same_signature_is_refused() -> None:
    """The last character of 64 bytes carries two bits; the four that are left must be zero."""
    last = GOOD[-1:]
    others = [bytes([c]) for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef" if bytes([c]) != last]
    spellings = [GOOD[:-1] + other for other in others]

    assert {code_of(jws) for jws in spellings} <= {"NB-2003", "NB-2011"}
    same_bytes = [
        jws
        for jws in spellings
        if base64.urlsafe_b64decode(jws.rpartition(b".")[2] + b"==")
        == base64.urlsafe_b64decode(GOOD.rpartition(b".")[2] + b"==")
    ]
    assert all(code_of(jws) == "NB-2003" for jws in same_bytes)


def test_the_key_of_another_agency_is_refused() -> None:
    assert code_of(signed(payload(), key=SIGNING["hhs"])) == "NB-2012"
    assert code_of(signed(payload(source=HHS))) == "NB-2012"


@pytest.mark.parametrize(
    ("stream", "recipient", "code"),
    [
        ("{ice.hhs.live.0}:out", "ice", "NB-2013"),
        ("{ice.hhs.backlog.0}:out", "hhs", "NB-2014"),
        ("{ice.hhs.live.1}:out", "hhs", "NB-2014"),
        ("{hhs.ice.live.0}:out", "hhs", "NB-2014"),
        ("ice.hhs.live.0", "hhs", "NB-2014"),
    ],
)
def test_a_message_for_elsewhere_is_refused(stream: str, recipient: str, code: str) -> None:
    assert code_of(GOOD, stream=stream, recipient=recipient) == code


@pytest.mark.parametrize(
    ("what", "content", "code"),
    [
        ("not UTF-8", b'{"id":"\xff"}', "NB-2004"),
        ("a lone surrogate", payload().replace(b'"hhs"', b'"\\ud800"'), "NB-2004"),
        ("not JSON", b"{", "NB-2004"),
        ("empty", b"", "NB-2004"),
        ("NaN", b'{"id":NaN}', "NB-2004"),
        ("deep", payload().replace(b'"hhs"', b"[" * 40 + b"]" * 40), "NB-2004"),
        ("very deep", b"[" * 100_000, "NB-2004"),
        ("id twice", payload().replace(b'{"', b'{"id":"x","', 1), "NB-2004"),
        ("a float", payload().replace(b'"partition":0', b'"partition":0.0'), "NB-2004"),
        ("minus zero", payload().replace(b'"partition":0', b'"partition":-0'), "NB-2004"),
        (
            "huge integer",
            payload().replace(b'"partition":0', b'"partition":1' + b"0" * 400),
            "NB-2004",
        ),
        ("blanks", payload() + b" ", "NB-2004"),
        ("byte order mark", b"\xef\xbb\xbf" + payload(), "NB-2004"),
        ("other escapes", payload().replace(b'"hhs"', b'"\\u0068hs"'), "NB-2004"),
        ("a key that is not ASCII", payload()[:-1] + ',"é":1}'.encode(), "NB-2004"),
        ("a list", b"[]", "NB-2006"),
        ("a number", b"7", "NB-2006"),
        ("unknown attribute", payload(also="this"), "NB-2006"),
        *[
            (f"without {name}", payload(without=name), "NB-2006")
            for name in members_of(ATTRIBUTES)
            if name not in ("subject", "revision", "commitment")
        ],
        ("without commitment", payload(without="commitment"), "NB-2007"),
        ("a revision of nothing", payload(without="subject"), "NB-2007"),
        ("content in clear", payload(data={}, datacontenttype="application/json"), "NB-2007"),
        (
            "a control kind in a lane of people",
            payload(type="gov.noticebus.receipts.v1"),
            "NB-2007",
        ),
        ("a notice in control", payload(lane="control"), "NB-2007"),
        ("a kind of tomorrow", payload(type="gov.noticebus.telepathy.v1"), "NB-2008"),
        ("content of another media type", payload(datacontenttype="application/json"), "NB-2006"),
        ("content is a number", payload(data=7), "NB-2006"),
        ("content is a list", payload(data=[], datacontenttype="application/json"), "NB-2006"),
    ],
)
def test_a_wrong_payload_is_refused(what: str, content: bytes, code: str) -> None:
    assert code_of(signed(content)) == code, what


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", 1),
        ("id", "019C0DE0-2222-7222-8333-000000000002"),
        ("id", "{019c0de0-2222-7222-8333-000000000002}"),
        ("id", ""),
        ("id", ["x"]),
        ("type", "gov.noticebus.fta"),
        ("type", "gov.noticebus.fta.v0"),
        ("type", "gov.noticebus.fta.v1\n"),
        ("type", {}),
        ("source", "https://ice.noticebus.example"),
        ("source", "//ice.noticebus.example/noticebus/ice/../hhs"),
        ("source", None),
        ("subject", ""),
        ("subject", None),
        ("time", "2026-11-23T21:04:05Z"),
        ("time", "2026-11-23T21:04:05.123456+00:00"),
        ("time", "2026-11-23T24:00:00.000000Z"),
        ("time", "2026-02-30T21:04:05.123456Z"),
        ("time", "٢026-11-23T21:04:05.123456Z"),
        ("time", 1),
        ("sequence", "1"),
        ("sequence", 1),
        ("sequence", "0" * 20),
        ("sequence", "9" * 20),
        ("sequence", "-0000000000000000001"),
        ("correlationid", "x"),
        ("causationid", 0),
        ("recipient", "HHS"),
        ("recipient", "hhs\n"),
        ("recipient", ["hhs"]),
        ("lane", "fast"),
        ("lane", ["live"]),
        ("partition", -1),
        ("partition", True),
        ("partition", "0"),
        ("partition", 2**31),
        ("generation", 0),
        ("revision", 0),
        ("revision", None),
        ("commitment", ""),
        ("commitment", "AAAA"),
        ("commitment", "A" * 42 + "B"),
        ("commitment", 7),
        ("dataschema", ""),
        ("dataschema", "https://noticebus.example/ schemas"),
        ("dataschema", "x" * 257),
    ],
)
def test_an_attribute_has_one_spelling(name: str, value: Any) -> None:
    with pytest.raises(RejectedError) as refused:
        take(signed(payload(**{name: value})))

    assert refused.value.code == "NB-2006"
    assert refused.value.where["field"] == name


@pytest.mark.parametrize("year", [1, 1970, 2009, 9999])
def test_no_message_is_refused_for_its_time(year: int) -> None:
    attributes = replace(ATTRIBUTES, time=datetime(year, 1, 1, tzinfo=UTC))
    jws = seal(
        attributes, data=BODY, signing=SIGNING["ice"], encrypt_to=ENCRYPT_TO["hhs"], salt=SALT
    )

    envelope, _ = take(jws)

    assert envelope.attributes.time.year == year


def test_the_largest_message_is_sealed_and_one_byte_more_is_not() -> None:
    """Base64 grows by three to four, so sizes go in steps: the last that fits, and the next."""
    attributes, _ = a_refusal()

    def sealed(size: int) -> bytes:
        return seal(
            attributes,
            data=canonical({"text": "x" * size}),
            signing=SIGNING["hhs"],
            encrypt_to=None,
            salt=None,
        )

    overhead = len(sealed(0))
    size = (MESSAGE_BYTES_MAX - overhead) * 3 // 4
    while len(sealed(size)) < MESSAGE_BYTES_MAX - 1:
        size += 1

    envelope, content = take(
        sealed(size), stream="{hhs.ice.control.0}:out", recipient="ice", decrypt_keys={}
    )

    assert content == Opened(canonical(envelope.data), b"")
    with pytest.raises(RejectedError, match="NB-2001"):
        sealed(size + 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lane": Lane.CONTROL},
        {"kind": Kind.RECEIPTS},
        {"commitment": None},
        {"commitment": bytes(32)},
        {"subject": None},
    ],
)
def test_what_would_be_refused_is_not_sealed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        seal(
            replace(ATTRIBUTES, **wrong),
            data=BODY,
            signing=SIGNING["ice"],
            encrypt_to=ENCRYPT_TO["hhs"],
            salt=SALT,
        )


def test_a_notice_is_never_sealed_in_clear() -> None:
    with pytest.raises(ValueError, match="encrypted"):
        seal(ATTRIBUTES, data=BODY, signing=SIGNING["ice"], encrypt_to=None, salt=None)


def test_claims_of_unverified_bytes_are_there_for_reports_and_none_if_unreadable() -> None:
    assert read(GOOD).claims == ATTRIBUTES
    assert read(signed(b"{}")).claims is None
    assert read(signed(b"\xff")).claims is None


@given(st.binary(max_size=400))
@example(b"...")
@example(b"e30.e30.e30")
@settings(deadline=None)
def test_any_bytes_are_refused_in_one_way(jws: bytes) -> None:
    assert code_of(jws).startswith("NB-20")


@given(at=st.integers(0, len(GOOD) - 1), put=st.binary(max_size=8), drop=st.integers(0, 8))
@settings(max_examples=300, deadline=None)
def test_any_damage_is_refused_in_one_way(at: int, put: bytes, drop: int) -> None:
    damaged = GOOD[:at] + put + GOOD[at + drop :]

    if damaged != GOOD:
        assert code_of(damaged).startswith("NB-20")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def _bytes_of(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


@given(members=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "zip", "é"]), JSON))
@settings(deadline=None)
def test_any_header_is_refused_in_one_way(members: dict[str, Any]) -> None:
    assert code_of(with_header(GOOD, _bytes_of(members))).startswith("NB-20")


@given(
    name=st.sampled_from(sorted([*members_of(ATTRIBUTES), "data", "datacontenttype", "new"])),
    value=JSON,
)
@settings(max_examples=300, deadline=None)
def test_any_attribute_that_is_signed_is_taken_or_refused(name: str, value: Any) -> None:
    content = parse(unb64(GOOD.split(b".")[1])) | {name: value}
    try:
        raw = canonical(content)
    except RejectedError:
        raw = _bytes_of(content)
    jws = signed(raw)

    code = None
    try:
        envelope, _ = take(jws)
    except RejectedError as error:
        code = error.code
    else:
        assert isinstance(envelope.attributes, Attributes)

    assert code is None or code.startswith("NB-20")


def test_a_key_of_another_curve_is_no_key() -> None:
    other = ec.generate_private_key(ec.SECP384R1())

    for wrap in (SigningKey.of, PrivateKey.of):
        with pytest.raises(ValueError, match="P-256"):
            wrap(other)
    with pytest.raises(ValueError, match="P-256"):
        PublicEncryptionKey.of(other.public_key())
    with pytest.raises(ValueError, match="P-256"):
        VerifyKey.of(other.public_key(), owner=ICE)
