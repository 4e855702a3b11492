"""The catalog: bytes to bodies and back, versions and upcasts, and one kind of error."""

import json
import re
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import canonical
from schemas.catalog import CATALOG, Catalog, body_of, dataschema_of, json_schemas, parse_body
from schemas.envelope import Kind, Lane, stream_name
from schemas.errors import RejectedError
from schemas.fields import Body, Count, Id, Time
from schemas.reply import (
    Acknowledgement,
    ActionCode,
    DispositionCode,
    OutcomeCode,
    Resend,
)

NOTICE_ID = "019c0de0-1111-7222-8333-000000000001"
AT = "2026-11-23T21:04:05.123456Z"
FIELD = json_schemas()["refusal.v1.json"]["properties"]["field"]["pattern"]


def a_body(kind: str, **fields: Any) -> bytes:
    return canonical({"schema_version": f"{kind}/1.0", "notice_id": NOTICE_ID, "at": AT} | fields)


def refused(kind: Kind, body: bytes, *, major: int = 1) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        parse_body(kind, major, body)
    return caught.value


def refusal_of(kind: Kind, major: int, body: bytes) -> Any:
    try:
        parse_body(kind, major, body)
    except RejectedError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *((Kind.OUTCOME, {"code": str(code)}) for code in OutcomeCode),
        *((Kind.ACTION, {"code": str(code)}) for code in ActionCode),
        *(
            (Kind.DISPOSITION, {"disposition": verdict, "code": str(code)})
            for code in DispositionCode
            for verdict in ("REJECTED", "HELD")
        ),
        (Kind.DISPOSITION, {"disposition": "ACCEPTED"}),
        (Kind.ACKNOWLEDGEMENT, {}),
    ],
)
def test_every_code_of_the_replies_travels_both_ways(kind: Kind, fields: dict[str, str]) -> None:
    body = a_body(kind, **fields)

    assert body_of(parse_body(kind, 1, body)) == body


def test_every_kind_of_message_has_a_model() -> None:
    assert {kind for kind, _ in CATALOG.models} == set(Kind)


def test_a_model_reads_the_version_that_it_writes() -> None:
    for (kind, major), model in CATALOG.models.items():
        assert model.versions[-1].startswith(f"{kind}/{major}.")
        assert model.model_fields["schema_version"].default == model.versions[-1]


def test_the_uri_of_a_schema_differs_for_each_major_version() -> None:
    assert dataschema_of(Kind.FTA, 1) == "https://noticebus.example/schemas/fta.v1.json"
    assert dataschema_of(Kind.FTA, 2) != dataschema_of(Kind.FTA, 1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (a_body("outcome"), "code"),
        (a_body("outcome", code="MARISOL"), "code"),
        (a_body("outcome", code="IN_CARE", sponsor="Marisol"), "*"),
        (a_body("outcome", code="IN_CARE", notice_id=NOTICE_ID.upper()), "notice_id"),
        (a_body("outcome", code="IN_CARE", notice_id="{" + NOTICE_ID + "}"), "notice_id"),
        (a_body("outcome", code="IN_CARE", at="2026-11-23T21:04:05Z"), "at"),
        (a_body("outcome", code="IN_CARE", at="2026-11-23T16:04:05.123456-05:00"), "at"),
        (a_body("outcome", code="IN_CARE", at="2026-02-30T21:04:05.123456Z"), "at"),
        (a_body("outcome", code="IN_CARE", at=1795467845), "at"),
        (a_body("outcome", code="IN_CARE", schema_version="fta/1.0"), "schema_version"),
        (b'{"a":1,"a":1}', "*"),
        (b"{}", "notice_id"),
        (b"[]", "(body)"),
        (b"null", "(body)"),
        (b"", "(body)"),
        (b"{", "(body)"),
        (b"\xff\xfe", "(body)"),
        (b'{"a":"\\ud800"}', "(body)"),
        (b"[" * 100_000, "(body)"),
        (b'{"a":' * 100_000, "(body)"),
        (a_body("outcome", code="IN_CARE").replace(b",", b", "), "(body)"),
        (a_body("outcome", code="IN_CARE")[:-1] + b',"code":"IN_CARE"}', "(body)"),
        (a_body("outcome", code="IN_CARE") + b"\n", "(body)"),
        (a_body("outcome", code="IN_CARE").replace(b"IN_CARE", b"\\u0049N_CARE"), "(body)"),
    ],
)
def test_a_body_that_breaks_its_schema_is_refused_by_the_name_of_the_field(
    body: bytes, field: str
) -> None:
    error = refused(Kind.OUTCOME, body)

    assert (error.code, error.where["field"]) == ("NB-2100", field)
    assert "arisol" not in f"{error} {error.fix}".lower()


@pytest.mark.parametrize("name", ["attempts", "code"])
def test_null_is_no_way_to_say_that_a_field_is_absent(name: str) -> None:
    body = a_body("action", **({"code": "NONE"} | {name: None}))

    assert refused(Kind.ACTION, body).code == "NB-2100"


def test_null_inside_a_record_of_a_receipt_is_part_of_the_record() -> None:
    body = canonical(
        {
            "schema_version": "receipts/1.0",
            "index": 0,
            "frontier": [],
            "entries": [{"record": {"v": 1, "reason": None}}],
            "checkpoint": "note",
        }
    )

    assert body_of(parse_body(Kind.RECEIPTS, 1, body)) == body


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"record": {"v": 1}, "leaf": "A" * 43},
        {"leaf": "A" * 44},
        {"record": {"v": "x" * 8192}},
        {"record": {"v": 2**60}},
    ],
)
def test_an_entry_of_a_receipt_is_one_small_canonical_record_or_one_leaf(
    entry: dict[str, Any],
) -> None:
    body = json.dumps(
        {
            "checkpoint": "note",
            "entries": [entry],
            "frontier": [],
            "index": 0,
            "schema_version": "receipts/1.0",
        },
        separators=(",", ":"),
    ).encode()

    error = refused(Kind.RECEIPTS, body)

    assert error.code == "NB-2100"
    assert str(error.where["field"]).startswith("entries.0")


@pytest.mark.parametrize("lane", Lane)
def test_the_streams_of_the_envelope_fit_the_bodies_that_name_them(lane: Lane) -> None:
    stream = stream_name("ice", "hhs", lane, 0)

    body = body_of(Resend(stream=stream, generation=1, first=7, last=9))

    assert parse_body(Kind.RESEND, 1, body) == Resend(stream=stream, generation=1, first=7, last=9)


def test_a_major_version_beyond_the_catalog_asks_for_an_upgrade() -> None:
    assert refused(Kind.OUTCOME, b"{}", major=2).code == "NB-2101"


def test_a_newer_minor_version_asks_for_an_upgrade_and_is_not_called_broken() -> None:
    body = a_body("outcome", code="MET_AT_SCHOOL", schema_version="outcome/1.7", more=1)

    assert refused(Kind.OUTCOME, body).code == "NB-2102"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
field_names = sorted({name for model in CATALOG.models.values() for name in model.model_fields})


@settings(deadline=None)
@given(st.sampled_from(sorted(CATALOG.models)), st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_refusal(key: tuple[Kind, int], body: bytes) -> None:
    with pytest.raises(RejectedError):
        parse_body(*key, body)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(CATALOG.models)),
    st.dictionaries(st.sampled_from(field_names) | st.text(), json_values),
)
def test_no_json_makes_anything_but_a_body_or_a_refusal(
    key: tuple[Kind, int], fields: dict[str, Any]
) -> None:
    body = json.dumps({"schema_version": CATALOG.models[key].versions[-1]} | fields).encode()

    error = refusal_of(*key, body)

    # What is wrong goes back to the sender, so it must fit the field of a refusal.
    assert error is None or error.code == "NB-2102" or re.fullmatch(FIELD, error.where["field"])


class _SecondAcknowledgement(Body):
    """A later major version, as it could come to be: the time was renamed, a count was added."""

    versions: ClassVar[tuple[str, ...]] = ("acknowledgement/2.0", "acknowledgement/2.1")

    schema_version: Literal["acknowledgement/2.0", "acknowledgement/2.1"] = "acknowledgement/2.1"
    notice_id: Id
    taken_at: Time
    handovers: Count | None = None


def _second(content: dict[str, Any]) -> dict[str, Any]:
    at = content.pop("at")
    return content | {"schema_version": "acknowledgement/2.0", "taken_at": at}


LATER = Catalog(
    models={
        (Kind.ACKNOWLEDGEMENT, 1): Acknowledgement,
        (Kind.ACKNOWLEDGEMENT, 2): _SecondAcknowledgement,
    },
    upcasts={(Kind.ACKNOWLEDGEMENT, 1): _second},
)


def test_an_older_major_version_is_upcast_to_the_newest() -> None:
    old = LATER.parse(Kind.ACKNOWLEDGEMENT, 1, a_body("acknowledgement"))

    assert isinstance(old, _SecondAcknowledgement)
    assert b'"taken_at":"2026-11-23T21:04:05.123456Z"' in body_of(old)
    assert LATER.newest(Kind.ACKNOWLEDGEMENT) == 2


def test_a_broken_body_of_an_older_version_is_refused_by_its_own_fields() -> None:
    with pytest.raises(RejectedError) as caught:
        LATER.parse(Kind.ACKNOWLEDGEMENT, 1, a_body("acknowledgement", at="yesterday"))

    assert caught.value.where["field"] == "at"


def test_both_minor_versions_of_a_major_are_read_as_they_were_written() -> None:
    for version in _SecondAcknowledgement.versions:
        body = canonical({"schema_version": version, "notice_id": NOTICE_ID, "taken_at": AT})

        assert body_of(LATER.parse(Kind.ACKNOWLEDGEMENT, 2, body)) == body


def test_a_catalog_without_a_way_to_the_newest_version_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="needs one upcast"):
        Catalog(models=LATER.models)
