"""The AsyncAPI document says what is really sent, and the file in the repository is this one."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from schemas.catalog import CATALOG, dataschema_of, json_schemas
from schemas.envelope import CONTROL_KINDS, Attributes, Kind, Lane, source_of
from schemas.envelope.attributes import _KNOWN, _REQUIRED, members_of
from services.bus import asyncapi

FILE = Path(__file__).parents[2] / "schemas" / "json" / "asyncapi.yaml"
BASE = "https://noticebus.example/schemas/asyncapi.yaml"
DOCUMENT = asyncapi.document()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def an_envelope(kind: Kind, major: int) -> dict[str, Any]:
    """What is signed, but for its data."""
    control = kind in CONTROL_KINDS
    attributes = Attributes(
        id=UUID("018f0000-0000-7000-8000-000000000001"),
        kind=kind,
        version=major,
        source=source_of("ice.example", "ice"),
        subject=UUID("018f0000-0000-7000-8000-000000000002"),
        time=datetime(2026, 11, 23, tzinfo=UTC),
        sequence=1,
        correlationid=UUID("018f0000-0000-7000-8000-000000000003"),
        causationid=UUID("018f0000-0000-7000-8000-000000000004"),
        recipient="hhs",
        lane=Lane.CONTROL if control else Lane.LIVE,
        partition=0,
        generation=1,
        revision=1,
        commitment=None if control else bytes(32),
        dataschema=dataschema_of(kind, major),
    )
    return {
        **members_of(attributes),
        "datacontenttype": "application/json" if control else "application/jose",
    }


def validator(kind: Kind, major: int) -> jsonschema.Draft202012Validator:
    document: Any = {"$schema": "https://json-schema.org/draft/2020-12/schema", **DOCUMENT}
    registry: Registry[Any] = Registry().with_resources(
        [
            (BASE, Resource.from_contents(document)),
            *(
                (f"https://noticebus.example/schemas/{name}", Resource.from_contents(schema))
                for name, schema in json_schemas().items()
            ),
        ]
    )
    schema = {"$ref": f"{BASE}#/components/schemas/{kind}.v{major}.envelope"}
    return jsonschema.Draft202012Validator(schema, registry=registry)


def test_the_document_in_the_repository_is_the_generated_one() -> None:
    assert FILE.read_text(encoding="utf-8") == asyncapi.text(), (
        "run: python -m services.bus.asyncapi > schemas/json/asyncapi.yaml"
    )


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        place, _, path = reference.partition("#")
        if place:
            assert place.removeprefix("./") in json_schemas()
            continue
        found: Any = DOCUMENT
        for name in path.strip("/").split("/"):
            found = found[name]
        assert found


def test_both_directions_and_all_lanes_have_a_sender_and_a_receiver() -> None:
    assert DOCUMENT["asyncapi"].startswith("3.")
    assert set(DOCUMENT["channels"]) == {
        f"{way}.{lane}" for way in ("ice.hhs", "hhs.ice") for lane in Lane
    }
    for name, operation in DOCUMENT["operations"].items():
        sender, recipient, _, way = name.split(".")
        assert operation["action"] == way
        assert operation["x-agency"] == (sender if way == "send" else recipient)
    assert len(DOCUMENT["operations"]) == 12


def test_every_kind_travels_somewhere() -> None:
    travelling = {key for channel in DOCUMENT["channels"].values() for key in channel["messages"]}

    assert travelling == {f"{kind}.v{major}" for kind, major in CATALOG.models}


def test_the_envelope_has_the_attributes_that_are_read() -> None:
    envelope = DOCUMENT["components"]["schemas"]["envelope"]

    assert set(envelope["properties"]) == _KNOWN
    assert set(envelope["required"]) == _REQUIRED


@pytest.mark.parametrize(("kind", "major"), list(CATALOG.models))
def test_what_is_signed_fits_the_described_payload(kind: Kind, major: int) -> None:
    envelope = an_envelope(kind, major)
    check = validator(kind, major)
    if kind in CONTROL_KINDS:
        # The content has its own schema and tests; an empty one breaks exactly that.
        faults = list(check.iter_errors({**envelope, "data": {}}))
        assert faults
        assert all("data" in fault.absolute_path for fault in faults)
    else:
        check.validate({**envelope, "data": "a.b.c.d.e"})

    assert not check.is_valid({**envelope, "data": 1})
    assert not check.is_valid({**envelope, "data": "a.b.c.d.e", "surplus": 1})


def test_the_document_is_json_and_yaml_alike() -> None:
    assert yaml.safe_load(asyncapi.text()) == json.loads(json.dumps(DOCUMENT))
