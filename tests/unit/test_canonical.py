"""Canonical JSON against an implementation of RFC 8785 that is not ours, and strict reading."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import (
    DEPTH_MAX,
    INTEGER_MAX,
    b64,
    b64_bytes,
    canonical,
    canonical_again,
    format_time,
    parse,
    parse_time,
    unb64,
)
from schemas.errors import RejectedError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
KEYS = st.text(st.characters(max_codepoint=127), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@given(VALUES)
@settings(deadline=None)
def test_it_writes_what_another_implementation_writes(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(VALUES)
@settings(deadline=None)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert parse(canonical(value)) == value
    assert canonical_again(parse(canonical(value))) == canonical(value)


@given(st.binary(max_size=60))
def test_whatever_is_read_was_spelled_in_the_one_way(data: bytes) -> None:
    try:
        value = parse(data)
    except RejectedError as error:
        code = error.code
    else:
        assert rfc8785.dumps(value) == data
        return
    assert code == "NB-2004"


@pytest.mark.parametrize("character", [chr(code) for code in (*range(0x20), 0x7F, 0x2028, 0xFEFF)])
def test_each_special_character_has_its_own_spelling(character: str) -> None:
    assert canonical([character]) == rfc8785.dumps([character])


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        [0.0],
        {"a": float("nan")},
        INTEGER_MAX + 1,
        [-INTEGER_MAX - 1],
        {"é": 1},
        {1: 1},
        {None: 1},
        {"a": {("b",): 1}},
        "\ud800",
        {"\ud800": 1},
        b"bytes",
        {"at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"a": {1, 2}},
        nested(DEPTH_MAX + 1),
    ],
)
def test_what_has_no_one_spelling_is_refused(value: Any) -> None:
    with pytest.raises(RejectedError, match="NB-2004"):
        canonical(value)


def test_nesting_is_counted_as_people_count() -> None:
    assert parse(canonical(nested(DEPTH_MAX))) == nested(DEPTH_MAX)
    assert parse(b'{"a":{"b":1}}', depth_max=2) == {"a": {"b": 1}}
    with pytest.raises(RejectedError, match="nested"):
        parse(b'{"a":{"b":[]}}', depth_max=2)
    assert canonical("text", depth_max=1) == b'"text"'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" {}",
        b"{}\n",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":"\\u0061"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u00E9"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":"\xc3"}',
        b"\xef\xbb\xbf{}",
        b'{"a":9007199254740992}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 2000 + b"]" * 2000,
        b"[" * 200_000,
        b"{'a':1}",
        b'{"a":1,}',
        b"// none\n{}",
    ],
)
def test_other_spellings_and_other_things_are_refused(data: bytes) -> None:
    with pytest.raises(RejectedError, match="NB-2004"):
        parse(data)


@given(st.binary(max_size=200))
def test_base64url_is_the_standard_one_without_padding(data: bytes) -> None:
    expected = base64.urlsafe_b64encode(data).rstrip(b"=")

    assert b64_bytes(data) == expected
    assert b64(data) == expected.decode()
    assert unb64(expected) == unb64(expected.decode()) == data


@given(st.text(max_size=12) | st.text('AQgwBCD-_+/=\\"u0041 \n', max_size=12))
def test_each_byte_string_has_one_base64url(text: str) -> None:
    try:
        data = unb64(text)
    except RejectedError as error:
        code = error.code
    else:
        assert b64(data) == text
        return
    assert code == "NB-2003"


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AB",
        "AAB",
        "QQ==",
        "QQ=",
        "++++",
        "////",
        "QQ\n",
        " QQ",
        "\\u0051Q",
        '"',
        "é",
        "\ud800",
    ],
)
def test_another_spelling_of_base64url_is_refused(text: str) -> None:
    with pytest.raises(RejectedError, match="NB-2003"):
        unb64(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_read_as_they_were_written(moment: datetime) -> None:
    text = format_time(moment)

    assert len(text) == len("2026-11-23T21:04:05.123456Z")
    assert parse_time(text) == moment
    assert format_time(parse_time(text)) == text


def test_a_time_elsewhere_is_written_in_utc() -> None:
    there = timezone(timedelta(hours=-6))

    assert format_time(datetime(2026, 11, 23, 15, 4, 5, tzinfo=there)) == (
        "2026-11-23T21:04:05.000000Z"
    )
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2026, 11, 23))  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23",
        "2026-11-23T21:04:05Z",
        "2026-11-23T21:04:05.1234567Z",
        "2026-11-23T21:04:05.123456",
        "2026-11-23T21:04:05.123456z",
        "2026-11-23T21:04:05.123456+00:00",
        "2026-11-23 21:04:05.123456Z",
        "2026-11-23T24:00:00.000000Z",
        "2026-11-23T21:04:60.000000Z",
        "2026-02-29T21:04:05.123456Z",
        "0000-01-01T00:00:00.000000Z",
        "\u0662\u066026-11-23T21:04:05.123456Z",
        "2026-11-23T21:04:05.123456Z\n",
    ],
)
def test_another_spelling_of_a_time_is_refused(text: str) -> None:
    with pytest.raises(RejectedError, match="NB-2009"):
        parse_time(text)
