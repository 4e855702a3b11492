"""Show and check what crosses the agency border: kinds, versions, JSON Schemas.

Needs no server and no agency: a developer of either side can check a message body offline.
"""

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ConflictError, NotFoundError
from services.cli.asking import json_of
from services.cli.everywhere import noun
from services.cli.output import Column, emit_text
from services.cli.session import session_of

app = noun("Show and check what crosses the agency border.")

KindArgument = Annotated[
    str, typer.Argument(metavar="KIND", help="fta, or fta/1 for one major version.")
]


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the kinds of messages and their versions."""
    from schemas.catalog import CATALOG, dataschema_of

    session_of(ctx).emit(
        [
            {
                "kind": str(kind),
                "major": major,
                "versions": list(model.versions),
                "dataschema": dataschema_of(kind, major),
            }
            for (kind, major), model in CATALOG.models.items()
        ],
        schema="schema.list",
        columns=[Column("kind"), Column("versions"), Column("dataschema")],
        empty="",
    )


@app.command()
def show(ctx: typer.Context, kind: KindArgument) -> None:
    """Print the JSON Schema of a kind."""
    from schemas.catalog import json_schemas, schema_text

    session_of(ctx)
    name, major = _known(kind)
    emit_text(schema_text(json_schemas()[f"{name}.v{major}.json"]))


@app.command()
def check(
    ctx: typer.Context,
    kind: KindArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A body as JSON; - is stdin.")],
) -> None:
    """Check a body against its kind; what is wrong is named by field, never by value."""
    from schemas.canonical import canonical
    from schemas.catalog import parse_body
    from schemas.envelope import Kind

    session = session_of(ctx)
    name, major = _known(kind)
    body = canonical(json_of(file, "message body"))
    said = parse_body(Kind(name), major, body)
    version = str(getattr(said, "schema_version", f"{name}/{major}"))
    session.emit_one(
        {"valid": True, "kind": name, "schema_version": version},
        schema="schema.check",
        people=[f"valid {version}"],
    )


@app.command()
def export(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
) -> None:
    """Write all JSON Schemas, and the AsyncAPI description, into a folder."""
    from importlib.resources import files

    from schemas.catalog import json_schemas, schema_text

    session = session_of(ctx)
    texts = {name: schema_text(schema) for name, schema in json_schemas().items()}
    described = files("schemas").joinpath("json/asyncapi.yaml")
    if described.is_file():
        texts["asyncapi.yaml"] = described.read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8") != text and not session.given.yes:
            raise ConflictError("NB-7013", path=path)
        path.write_text(text, encoding="utf-8")
    session.emit_one(
        {"folder": folder, "files": sorted(texts)},
        schema="schema.export",
        people=[f"{len(texts)} files in {folder}"],
    )


def _known(kind: str) -> tuple[str, int]:
    """Return name and major version of a kind as a person writes it."""
    from schemas.catalog import CATALOG

    name, _, major = kind.partition("/")
    known = [(str(k), m) for k, m in CATALOG.models if str(k) == name]
    wanted = [each for each in known if not major or str(each[1]) == major.split(".")[0]]
    if not wanted:
        raise NotFoundError("NB-7012", what="kind", value=kind, listing="noticebus schema list")
    return max(wanted)
