"""Every error code has its words and a test, and no words are left that no code uses."""

import ast
import json
import re
import string
from collections.abc import Iterator, Mapping

from tests.house.tree import ROOT, place, python_files

CODES = json.loads((ROOT / "schemas/codes/errors.json").read_text(encoding="utf-8"))["codes"]


def test_every_error_code_in_the_sources_has_words() -> None:
    wordless = [
        f"{place(path)} {code}"
        for path in python_files("schemas", "services")
        for code in re.findall(r"NB-\d{4}", path.read_text(encoding="utf-8"))
        if code not in CODES
    ]

    assert not wordless, "\n".join(wordless)


def test_every_worded_error_code_is_used() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in python_files("schemas", "services")
    )

    assert not [code for code in CODES if code not in sources]


# Codes that nothing on one machine can provoke, each with the reason.
NOT_PROVOKED: Mapping[str, str] = {}


def test_every_error_code_is_provoked_by_a_test() -> None:
    """Each class of what can go wrong has a test that meets its code, unless none can."""
    met = set(codes_met())

    untested = sorted(CODES.keys() - met - NOT_PROVOKED.keys())
    assert not untested, f"no test meets {untested}"
    assert not NOT_PROVOKED.keys() & met, "these are provoked after all"
    assert all(len(reason) > 20 for reason in NOT_PROVOKED.values())


def codes_met() -> Iterator[str]:
    """Yield the codes that tests compare with or look for; what prose says of them is none."""
    for path in python_files("tests"):
        if path.parent.name == "house":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str() as text) if node not in prose:
                    yield from re.findall(r"NB-\d{4}", text)


def test_every_error_code_says_what_to_do() -> None:
    mute = [code for code, words in CODES.items() if not (words["sentence"] and words["fix"])]

    assert not mute


def places(code: str) -> set[str]:
    """Return the names that an error of this code has to fill in."""
    text = CODES[code]["sentence"] + CODES[code]["fix"]
    return {re.split(r"[.[]", name)[0] for _, name, _, _ in string.Formatter().parse(text) if name}


def raised(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Yield each call that makes an error, with its code, where all it is given can be seen."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name),
                args=[ast.Constant(value=str() as code), *_],
                keywords=given,
            ) if name.endswith("Error") and code in CODES:
                if all(each.arg is not None for each in given):
                    yield node, code


def test_every_error_fills_in_what_its_words_name() -> None:
    gaps = [
        f"{place(path)}:{call.lineno} {code} lacks {sorted(missing)}"
        for path in python_files("schemas", "services")
        for call, code in raised(ast.parse(path.read_text(encoding="utf-8")))
        if (missing := places(code) - {each.arg for each in call.keywords})
    ]

    assert not gaps, "\n".join(gaps)
