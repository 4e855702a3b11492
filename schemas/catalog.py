"""Kinds and versions known to this build: from bytes to a body, and from a body to bytes.

`parse_body` takes the bytes of one message and answers with the newest model of its kind: bytes of
an older major version are read by their own model first and then upcast, step by step. It raises
nothing but `RejectedError`, and names the field, never its value. Every body has one spelling:
what it read is what `body_of` writes, byte for byte (save for upcasts).

Additive changes raise the minor version in `schema_version`; a body of a newer minor than this
build knows is refused with a code of its own, and redriven after the upgrade.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from schemas.canonical import canonical, parse
from schemas.envelope import Kind
from schemas.errors import RejectedError
from schemas.fields import Body
from schemas.notice import NilReturn, Notice
from schemas.reply import (
    Acknowledgement,
    Action,
    Disposition,
    Head,
    Outcome,
    Receipts,
    Refusal,
    Resend,
    Void,
)

SCHEMAS_AT = "https://noticebus.example/schemas/"
WHOLE_BODY = "(body)"

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
B = TypeVar("B", bound=Body)


def body_of(body: Body) -> bytes:
    """Return the canonical bytes of a body; fields without a value are left out."""
    return canonical(body.model_dump(mode="json", exclude_none=True))


def make_body(model: type[B], fields: Mapping[str, Any]) -> B:
    """Build a body from what people typed or tables hold, with errors that people can read.

    Values may be spelled as on the wire (`"NEW"`, `"7"`). Raises `RejectedError` NB-1000 with
    `field` and `rule`, and shows no value.
    """
    try:
        return model.model_validate(dict(fields), strict=False)
    except ValidationError as error:
        where, rule = _first_fault(model, error)
        raise RejectedError("NB-1000", field=where, rule=rule) from None


@dataclass(frozen=True)
class Catalog:
    """Models by kind and major version, and the way from each older major to the next."""

    models: Mapping[tuple[Kind, int], type[Body]]
    upcasts: Mapping[tuple[Kind, int], Upcast] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, major in self.models:
            older = major < self.newest(kind)
            if older != ((kind, major) in self.upcasts):
                raise ValueError(f"{kind} v{major}: every major but the newest needs one upcast")

    def newest(self, kind: Kind) -> int:
        """Return the newest major version of a kind: the one that is written."""
        return max(major for known, major in self.models if known == kind)

    def parse(self, kind: Kind, major: int, body: bytes) -> Body:
        """Read a body; see `parse_body`."""
        model = self.models.get((kind, major))
        if model is None:
            raise RejectedError("NB-2101", kind=str(kind), version=major)
        said = _read(model, kind, major, body)
        while (upcast := self.upcasts.get((kind, major))) is not None:
            content = upcast(said.model_dump(mode="json", exclude_none=True))
            major += 1
            said = _read(self.models[kind, major], kind, major, canonical(content))
        return said


CATALOG = Catalog(
    models={
        (Kind.FTA, 1): Notice,
        (Kind.NILRETURN, 1): NilReturn,
        (Kind.ACKNOWLEDGEMENT, 1): Acknowledgement,
        (Kind.DISPOSITION, 1): Disposition,
        (Kind.ACTION, 1): Action,
        (Kind.OUTCOME, 1): Outcome,
        (Kind.RECEIPTS, 1): Receipts,
        (Kind.REFUSAL, 1): Refusal,
        (Kind.VOID, 1): Void,
        (Kind.RESEND, 1): Resend,
        (Kind.HEAD, 1): Head,
    }
)


def parse_body(kind: Kind, major: int, body: bytes) -> Body:
    """Return the body of a message as the newest model of its kind.

    `body` is the canonical bytes that the envelope carried. Raises `RejectedError`: NB-2100 with
    `field` where the bytes break the schema, NB-2101 for a kind or major version that is not in
    the catalog, NB-2102 for a minor version newer than this build.
    """
    return CATALOG.parse(kind, major, body)


def dataschema_of(kind: Kind, major: int) -> str:
    """Return the URI that names the schema of a body; incompatible versions differ in it."""
    return f"{SCHEMAS_AT}{_schema_file(kind, major)}"


def _schema_file(kind: Kind, major: int) -> str:
    return f"{kind}.v{major}.json"


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (2020-12) of every kind and major version, by file name."""
    return {
        _schema_file(kind, major): {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": dataschema_of(kind, major),
            **_without_null(model.model_json_schema()),
        }
        for (kind, major), model in CATALOG.models.items()
    }


def schema_text(schema: Mapping[str, Any]) -> str:
    """Return a JSON Schema as it stands in `schemas/json`."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _without_null(schema: Any) -> Any:
    # Absent means absent on the wire: `null` is allowed nowhere, though the models say `| None`.
    # Keys of a map that do not fit are refused, which pydantic leaves unsaid.
    if isinstance(schema, list):
        return [_without_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: _without_null(part)
        for name, part in schema.items()
        if not (name == "default" and part is None)
    }
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    options = [option for option in kept.get("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        del kept["anyOf"]
        kept = {**options[0], **kept}
    return kept


def _read(model: type[B], kind: Kind, major: int, body: bytes) -> B:
    try:
        said = model.model_validate_json(body)
    except ValidationError as error:
        if _is_newer(model, kind, major, body):
            raise RejectedError("NB-2102", kind=str(kind), version=major) from None
        where, rule = _first_fault(model, error)
        raise RejectedError("NB-2100", kind=str(kind), field=where, rule=rule) from None
    if "schema_version" not in said.model_fields_set:
        raise RejectedError("NB-2100", kind=str(kind), field="schema_version", rule="is missing")
    # Equal values in other bytes (a repeated key, other spacing) would hash otherwise. What the
    # models let pass beyond that is `null` for an absent field; only then they are written to tell.
    if not _is_canonical(body) or (b'":null' in body and body_of(said) != body):
        raise RejectedError(
            "NB-2100", kind=str(kind), field=WHOLE_BODY, rule="is not in canonical form"
        )
    return said


def _is_canonical(body: bytes) -> bool:
    try:
        parse(body)
    except RejectedError:
        return False
    return True


def _is_newer(model: type[Body], kind: Kind, major: int, body: bytes) -> bool:
    """Tell whether the bytes claim a minor version beyond those that this build reads."""
    try:
        claimed = parse(body)["schema_version"]
        said = re.fullmatch(rf"{kind}/{major}\.([0-9]{{1,4}})", claimed, re.ASCII)
    except (RejectedError, TypeError, LookupError):
        return False
    return said is not None and int(said[1]) > int(model.versions[-1].rpartition(".")[2])


def _first_fault(model: type[Body], error: ValidationError) -> tuple[str, str]:
    """Return field path and rule of the first fault, without anything that the input said."""
    # An unknown field says more than what is missing because its name was mistyped.
    faults = error.errors(include_url=False, include_input=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    known = _field_names(model)
    path = [
        str(part) if isinstance(part, int) or part in known else "*"
        for part in (*fault["loc"], *_named(fault))
    ]
    return ".".join(path) or WHOLE_BODY, _RULES.get(fault["type"]) or _SUBJECT.sub("", fault["msg"])


def _named(fault: Any) -> tuple[str, ...]:
    name = fault.get("ctx", {}).get("field")
    return () if name is None else (str(name),)


# Pydantic starts its sentences with the thing; ours name the field there.
_SUBJECT = re.compile(r"^(?:Input|String|Value|Tuple|Dictionary) ")

# Pydantic's sentences that could echo the input, or that only programmers understand.
_RULES = {
    "extra_forbidden": "is a field that the schema does not know",
    "missing": "is missing",
    "json_invalid": "is not JSON",
    "string_unicode": "is not Unicode text",
}


@cache
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    names = set(model.model_fields)
    for described in model.model_fields.values():
        for part in _models_in(described.annotation):
            names |= _field_names(part)
    return frozenset(names)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
