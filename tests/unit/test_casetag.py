"""Tags of cases: what they are made of, and where they may stand."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import pytest

from schemas.canonical import b64
from schemas.casetag import casetag, index_key_hash, index_key_text, parse_index_key
from schemas.envelope import Attributes, Kind, Lane, source_of
from schemas.envelope.attributes import attributes_of, contradiction, members_of
from schemas.errors import RejectedError

KEY = bytes(range(32))
NOTICE = Attributes(
    id=UUID("018f0000-0000-7000-8000-000000000001"),
    kind=Kind.FTA,
    version=1,
    source=source_of("ice.example", "ice"),
    subject=UUID("018f0000-0000-7000-8000-000000000002"),
    time=datetime(2026, 11, 23, tzinfo=UTC),
    sequence=1,
    correlationid=UUID("018f0000-0000-7000-8000-000000000003"),
    recipient="hhs",
    lane=Lane.LIVE,
    partition=0,
    generation=1,
    revision=1,
    commitment=bytes(32),
    dataschema="https://noticebus.example/schemas/fta.v1.json",
)


def by_hand(key: bytes, message: bytes) -> bytes:
    """HMAC as RFC 2104 writes it, for a key shorter than a block."""
    block = key.ljust(64, b"\x00")
    inner = sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def test_a_tag_is_an_hmac_of_the_a_number() -> None:
    assert casetag(KEY, "A098765417") == by_hand(KEY, b"noticebus casetag 1\x00A098765417")
    assert casetag(KEY, "A098765418") != casetag(KEY, "A098765417")
    assert casetag(bytes(32), "A098765417") != casetag(KEY, "A098765417")
    # Frozen: records hold it for as long as there are records.
    assert b64(casetag(KEY, "A098765417")) == "zvKXJVWN9lA3FM-liw7jZC3TCaPk8W20xAPtLT8O2e4"
    assert b64(index_key_hash(KEY)) == "4XAJmrbKKWZsSIuqlMtajIQHlRd2Au4ZdwjuD4JxlUU"


def test_an_index_key_is_one_line() -> None:
    assert parse_index_key(index_key_text(KEY)) == KEY
    for spoilt in (b"", b"AAAA\n", index_key_text(KEY) * 2, b"no key at all\n"):
        with pytest.raises(RejectedError, match=r"NB-3221|NB-2003"):
            parse_index_key(spoilt)


def test_an_envelope_bears_a_tag_or_none_and_notices_alone_do() -> None:
    tagged = replace(NOTICE, casetag=casetag(KEY, "A098765417"))
    members = {**members_of(tagged), "datacontenttype": "application/jose", "data": "a.b"}

    assert attributes_of(members) == tagged
    assert "casetag" not in members_of(NOTICE)
    assert contradiction(tagged, encrypted=True) is None
    assert contradiction(replace(tagged, kind=Kind.NILRETURN), encrypted=True) is not None
    for spoilt in ("", "AAAA", 7, b64(bytes(33))):
        with pytest.raises(RejectedError, match="casetag"):
            attributes_of({**members, "casetag": spoilt})
