"""Every setting is read somewhere: a variable that changes nothing would be a lie in the README."""

import ast
from collections.abc import Iterator

from pydantic import BaseModel

from services.settings import Settings
from tests.house.tree import python_files

PARTS: dict[str, type[BaseModel]] = {
    name: type(field.default)
    for name, field in Settings.model_fields.items()
    if isinstance(field.default, BaseModel)
}
MODELS = {part.__name__: name for name, part in PARTS.items()} | {"Settings": ""}
DECLARED = {("", name) for name in Settings.model_fields if name not in PARTS} | {
    (name, field) for name, part in PARTS.items() for field in part.model_fields
}


def test_every_setting_is_read() -> None:
    read = {setting for path in python_files("services") for setting in reads(path.read_text())}

    unread = sorted(f"{part}.{field}" if part else field for part, field in DECLARED - read)
    assert not unread, f"nothing reads {unread}"


def test_what_is_read_by_another_name_is_found_and_what_is_not_read_is_not() -> None:
    source = """
def one(given: Settings) -> None:
    mine = given.relay
    print(mine.batch_max, given.streams.model_dump())

class Two:
    def __init__(self, how: SealerSettings) -> None:
        self._how = how

    def three(self, other: object) -> int:
        other.relay.window_max = 1
        return self._how.interval_seconds + other.batch_max
"""
    assert reads(source) == {
        ("relay", "batch_max"),
        ("sealer", "interval_seconds"),
        ("streams", "live"),
        ("streams", "backlog"),
    }


def reads(source: str) -> set[tuple[str, str]]:
    """Return the settings, (part, field), that a module reads; the part is "" for those of none.

    Names that stand for a part are those that are called like it, annotated with its model, or
    given one that stands for it; one that stands for several parts is any of them.
    """
    tree = ast.parse(source)
    known: dict[str, set[str]] = {name: {name} for name in PARTS} | {"settings": {""}}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            name = node.arg if isinstance(node, ast.arg) else _last(node.target)
            model = _last(node.annotation)
            if name is not None and model in MODELS:
                known.setdefault(name, set()).add(MODELS[model])
    for name, given in _assigned(tree):
        if parts := _parts(given, known):
            known.setdefault(name, set()).update(parts)
    found: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=model) if model in MODELS:
                # What a part works out of its own fields.
                found |= {
                    (MODELS[model], inner.attr)
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute) and _last(inner.value) == "self"
                }
            case ast.Call(func=ast.Attribute(attr="model_dump", value=whole)):
                parts = _parts(whole, known) - {""}
                found |= {(part, field) for part in parts for field in PARTS[part].model_fields}
            case ast.Call(func=ast.Attribute(attr="_required"), args=[ast.Constant(value=field)]):
                found.add(("", str(field)))
            case ast.Attribute(attr=field, value=whole, ctx=ast.Load()):
                found |= {(part, field) for part in _parts(whole, known)}
    return found & DECLARED


def _assigned(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield names and what they are given, those of tuples one by one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        pairs = (
            zip(target.elts, node.value.elts, strict=False)
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            else [(target, node.value)]
        )
        for to, given in pairs:
            if (name := _last(to)) is not None:
                yield name, given


def _parts(node: ast.expr, known: dict[str, set[str]]) -> set[str]:
    name = _last(node) or ""
    return known.get(name) or known.get(name.removeprefix("_")) or set()


def _last(node: ast.expr) -> str | None:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return None
