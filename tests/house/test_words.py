"""Every error code has its words, and no words are left without a code that uses them."""

import json
import re

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


def test_every_error_code_says_what_to_do() -> None:
    mute = [code for code, words in CODES.items() if not (words["sentence"] and words["fix"])]

    assert not mute
