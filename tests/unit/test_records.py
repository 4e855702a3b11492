"""Records: one spelling, nothing personal in it, and the frozen example."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.canonical import b64, canonical, parse, parse_time, unb64
from schemas.errors import EvidenceError, RejectedError
from schemas.proof import leaf_hash
from services.ledger import records
from services.ledger.records import (
    commitment_to,
    differing_column,
    make_record,
    opening_holds,
    read_record,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "records.json"
NOW = datetime(2026, 11, 23, 21, 4, 5, 123456, tzinfo=UTC)
NOTICE = UUID("0193593e-5f3a-7c1d-8a4b-1f2e3d4c5b6a")


def vectors() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["records"]
    return loaded


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["name"])
def test_record_has_the_bytes_that_were_frozen(
    vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    salts = iter(vector["salts"])
    monkeypatch.setattr(records, "urandom", lambda size: unb64(next(salts))[:size])
    given = dict(vector["given"])
    given["time"] = parse_time(given["time"])
    for name in ("notice_id", "message_id"):
        if name in given:
            given[name] = UUID(given[name])
    for name in ("envelope", "commitment"):
        if name in given:
            given[name] = unb64(given[name])

    record = make_record(**given)

    assert record.record.decode() == vector["record"]
    assert leaf_hash(record.record).hex() == vector["leaf"]
    assert record.opened == vector["opened"]


def test_record_of_the_vectors_is_read_back() -> None:
    for vector in vectors():
        said = read_record(vector["record"].encode(), index=0)

        assert said["action"] == vector["given"]["action"]
        assert opening_holds(said, vector["opened"] or {})


def test_names_and_free_text_stand_in_the_record_as_commitments_alone() -> None:
    record = make_record(
        "case.taken", time=NOW, actor="R. Alvarez", office="ORR/San Antonio", text="called twice"
    )

    for value in (b"Alvarez", b"Antonio", b"called"):
        assert value not in record.record
    assert record.opened is not None
    assert {name: each["value"] for name, each in record.opened.items()} == {
        "actor": "R. Alvarez",
        "office": "ORR/San Antonio",
        "text": "called twice",
    }
    assert opening_holds(parse(record.record), record.opened)


def test_who_is_shown_a_record_cannot_try_names_against_it() -> None:
    """The salt in the record is not the one of the commitment, which stays in the side table."""
    record = make_record("case.taken", time=NOW, actor="R. Alvarez")
    said = parse(record.record)

    with_public_salt = commitment_to("actor", "R. Alvarez", salt=unb64(said["salt"]))

    assert said["actor"] != b64(with_public_salt)


@pytest.mark.parametrize(
    "opened",
    [
        {"actor": {"salt": "AAAAAAAAAAAAAAAAAAAAAA", "value": "R. Alvarez"}},
        {"actor": {"value": "R. Alvarez"}},
        {"actor": "R. Alvarez"},
        {"reason": {"salt": "AAAAAAAAAAAAAAAAAAAAAA", "value": "x"}},
        {"office": {"salt": "AAAAAAAAAAAAAAAAAAAAAA", "value": "x"}},
    ],
)
def test_opening_that_was_changed_does_not_hold(opened: dict[str, Any]) -> None:
    record = make_record("case.taken", time=NOW, actor="R. Alvarez")

    assert not opening_holds(parse(record.record), opened)


def test_two_records_of_the_same_act_have_different_hashes() -> None:
    one, other = (make_record("case.taken", time=NOW, notice_id=NOTICE) for _ in range(2))

    assert leaf_hash(one.record) != leaf_hash(other.record)


def test_record_above_eight_kibibytes_is_refused() -> None:
    with pytest.raises(RejectedError) as caught:
        make_record("notes.kept", time=NOW, detail={"note": "x" * 8192})

    assert caught.value.code == "NB-3001"


@pytest.mark.parametrize(
    "bytes_",
    [b"", b"{", b'{"v": 1}', b'{"v":2}', b"[1]", b'{"v":1,"v":1}', b'{"v":1.0}', b"\xff"],
)
def test_bytes_that_are_no_record_raise_evidence_error(bytes_: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        read_record(bytes_, index=7)

    assert caught.value.code == "NB-3002"
    assert caught.value.where["index"] == 7


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({}, None),
        ({"action": "message.sent"}, "action"),
        ({"notice_id": None}, "notice_id"),
        ({"message_id": NOTICE}, "message_id"),
        ({"recorded_at": NOW.replace(microsecond=0)}, "recorded_at"),
    ],
)
def test_column_that_differs_from_the_bytes_is_named(
    change: dict[str, Any], column: str | None
) -> None:
    record = make_record("message.received", time=NOW, notice_id=NOTICE)
    columns: dict[str, Any] = {
        "action": record.action,
        "notice_id": record.notice_id,
        "message_id": record.message_id,
        "recorded_at": record.recorded_at,
    }

    assert differing_column(parse(record.record), **(columns | change)) == column


def test_record_without_a_readable_time_differs_in_its_column() -> None:
    said = parse(canonical({"action": "a", "time": "today", "v": 1}))

    found = differing_column(said, action="a", notice_id=None, message_id=None, recorded_at=NOW)

    assert found == "recorded_at"
