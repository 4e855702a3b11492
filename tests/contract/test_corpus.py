"""One example body of every published kind and version is read for ever.

The corpus is append-only: a file of it is added with each published version and never changed.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas.canonical import canonical
from schemas.catalog import CATALOG, body_of, json_schemas, parse_body, schema_text
from schemas.envelope import Kind
from schemas.errors import RejectedError

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/vectors/corpus"
JSON = ROOT / "schemas/json"
EXAMPLES = sorted(path.name for path in CORPUS.iterdir())


def published(name: str) -> tuple[Kind, int, dict[str, Any]]:
    """Return kind, major version and content of one file, `<kind>.v<major>.<minor>.json`."""
    kind, _, version = name.removesuffix(".json").partition(".v")
    content = json.loads((CORPUS / name).read_text(encoding="utf-8"))
    return Kind(kind), int(version.partition(".")[0]), content


def validator(kind: Kind, major: int) -> jsonschema.Draft202012Validator:
    schema = json_schemas()[f"{kind}.v{major}.json"]
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_corpus_holds_every_version_of_the_catalog() -> None:
    known = {
        f"{version.replace('/', '.v')}.json"
        for model in CATALOG.models.values()
        for version in model.versions
    }

    assert known <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_published_version_is_still_read(name: str) -> None:
    kind, major, content = published(name)

    said = parse_body(kind, major, canonical(content))

    if major == CATALOG.newest(kind):
        assert body_of(said) == canonical(content)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_json_schema_takes_what_the_model_takes(name: str) -> None:
    kind, major, content = published(name)

    validator(kind, major).validate(content)


def mutations(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return broken copies: an unknown field, each value of another type, each a null."""
    broken: list[dict[str, Any]] = [content | {"sponsor": "x"}, content | {"schema_version": "x"}]
    for name, value in content.items():
        other: object = 7 if isinstance(value, str | list | dict) else "seven"
        broken += [content | {name: other}, content | {name: None}]
    required = {name: value for name, value in content.items() if name != "schema_version"}
    return [*broken, required]


@pytest.mark.parametrize("name", EXAMPLES)
def test_schema_and_model_refuse_the_same_mutated_bodies(name: str) -> None:
    kind, major, content = published(name)
    checked = validator(kind, major)

    for mutated in mutations(content):
        assert not checked.is_valid(mutated), mutated.keys() ^ content.keys()
        if "schema_version" in mutated:
            with pytest.raises(RejectedError):
                parse_body(kind, major, canonical(mutated))


def test_a_body_without_its_version_is_refused() -> None:
    for name in EXAMPLES:
        kind, major, content = published(name)
        del content["schema_version"]

        with pytest.raises(RejectedError):
            parse_body(kind, major, canonical(content))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("fta.v1.0.json", {"notice_kind": "NEW"}),
        ("fta.v1.0.json", {"revision": 1}),
        ("fta.v1.0.json", {"a_number": "A12345417"}),
        ("fta.v1.0.json", {"address_last_known": {"line1": "1 Invented St"}}),
        ("disposition.v1.0.json", {"disposition": "ACCEPTED"}),
        ("receipts.v1.0.json", {"entries": []}),
        ("receipts.v1.0.json", {"entries": [{}]}),
        ("head.v1.0.json", {"highest": {"Itzel": {"generation": 1, "sequence": 1}}}),
        ("refusal.v1.0.json", {"code": "2100"}),
        ("refusal.v1.0.json", {"field": "Itzel Quiej"}),
    ],
)
def test_rules_that_span_fields_are_in_the_json_schema_too(
    name: str, change: dict[str, Any]
) -> None:
    kind, major, content = published(name)
    mutated = content | change

    assert not validator(kind, major).is_valid(mutated)
    with pytest.raises(RejectedError):
        parse_body(kind, major, canonical(mutated))


def test_the_json_schemas_in_the_repository_are_those_of_the_models() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in JSON.glob("*.v*.json")}
    made = {name: schema_text(schema) for name, schema in json_schemas().items()}

    assert written == made, "run: noticebus schema export schemas/json"


@pytest.mark.parametrize("name", sorted(json_schemas()))
def test_no_json_schema_allows_null(name: str) -> None:
    assert '"null"' not in schema_text(json_schemas()[name])
