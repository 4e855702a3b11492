"""JSON, CSV and arguments that no message can carry: named by field and rule, nothing recorded."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from services.embedded import attach
from tests.command_line import CommandLine, Done

NOTICE = {
    "a_number": "A200000417",
    "family_name": "Child",
    "birth_date": "2012-05-04",
    "court": "HOU",
    "office": "HOU",
    "hearing": "2026-03-03T09:00",
}
GOOD = json.dumps(NOTICE)
DIGITS = "9" * 5_000


def also(name: str, value: str) -> bytes:
    """Return the good notice with one more field, whose value is written as it is."""
    return f'{GOOD[:-1]}, "{name}": {value}}}'.encode()


# What is piped in, the code, and words of the sentence; none of them holds a value.
WRONG: Mapping[str, tuple[bytes, str, str]] = {
    "100,000 levels of lists": (b"[" * 100_000, "NB-7091", "more than 32 levels deep"),
    "100,000 levels of objects": (b'{"a":' * 100_000, "NB-7091", "more than 32 levels deep"),
    "forty levels in a field": (
        also("address_last_known", "[" * 40 + "]" * 40),
        "NB-7091",
        "more than 32 levels deep",
    ),
    "5,000 digits": (also("eoir_case_key", DIGITS), "NB-7092", "number in eoir_case_key"),
    "5,000 digits below zero": (
        also("eoir_case_key", f"-{DIGITS}"),
        "NB-7092",
        "eoir_case_key cannot be said in a message: it has more than 53 bits",
    ),
    "a key of twenty nines": (
        also("eoir_case_key", "9" * 20),
        "NB-7092",
        "eoir_case_key cannot be said in a message: it has more than 53 bits",
    ),
    "one above the largest": (
        also("eoir_case_key", str(2**53)),
        "NB-7092",
        "eoir_case_key cannot be said in a message: it has more than 53 bits",
    ),
    "half a number": (
        also("eoir_case_key", "1.5"),
        "NB-7092",
        "eoir_case_key cannot be said in a message: it is not whole",
    ),
    "not a number": (also("eoir_case_key", "NaN"), "NB-7092", "eoir_case_key"),
    "endless": (also("eoir_case_key", "1e999"), "NB-7092", "eoir_case_key"),
    "a number within a field": (
        also("address_last_known", '{"zip": ' + "9" * 20 + "}"),
        "NB-7092",
        "number in address_last_known.zip",
    ),
    "a number under a value that lost its name": (
        also("Itzel Quiej", DIGITS),
        "NB-7092",
        "number in (unreadable)",
    ),
    "a field twice": (also("court", '"ELP"'), "NB-7093", "court stands twice"),
    "not UTF-8": (GOOD.encode().replace(b"Child", b"\xff"), "NB-7005", "standard input is not"),
    "not JSON": (b"Itzel", "NB-7005", "standard input is not a valid"),
    "two mebibytes": (also("a_number", '"' + "9" * 2**21 + '"'), "NB-7090", "1,048,576 bytes"),
    "nothing": (b" \n", "NB-7007", "standard input holds no"),
}
# What only a notice refuses, or a correction.
SAID: Mapping[str, tuple[bytes, str, str]] = {
    "half a character": (also("language_raw", '"\\ud800"'), "NB-1000", "field language_raw cannot"),
    "a name that is none": (
        also("address_last_known", '{"é": "x"}'),
        "NB-1000",
        "field address_last_known cannot be said in a message: a key is not ASCII",
    ),
    "a hearing on the last day of all": (
        json.dumps(NOTICE | {"hearing": "9999-12-31T23:59"}).encode(),
        "NB-1072",
        "hearing_local cannot be read",
    ),
    "a hearing before the first": (
        json.dumps(NOTICE | {"hearing": "0001-01-01T00:00+14:00"}).encode(),
        "NB-1072",
        "hearing_local cannot be read",
    ),
}


@pytest.fixture(scope="module")
def noticebus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    noticebus = CommandLine(tmp_path_factory.mktemp("json") / "home")
    with attach(noticebus.home):
        assert noticebus("--agency ice keys generate").code == 0
        yield noticebus


@pytest.fixture(scope="module")
def sent(noticebus: CommandLine) -> str:
    """A notice that was sent, and can be corrected."""
    notice_id: str = noticebus.json("notice send", stdin=GOOD)["notice_id"]
    return notice_id


def refused(done: Done, code: str, words: str) -> None:
    assert (done.code, done.out) == (2, ""), done.err
    first, fix = done.err.splitlines()[-2:]
    assert first.startswith(f"{code}: ")
    assert words in first
    assert fix.startswith("  fix: ")
    assert "Itzel" not in done.err
    assert DIGITS[:20] not in done.err


@pytest.mark.parametrize("what", [*WRONG, *SAID])
def test_what_no_notice_can_say_is_named_and_nothing_is_recorded(
    noticebus: CommandLine, sent: str, what: str
) -> None:
    text, code, words = {**WRONG, **SAID}[what]

    refused(noticebus("notice send", stdin=text), code, words)
    refused(noticebus(f"notice correct {sent} --reason OTHER --yes", stdin=text), code, words)

    assert [each["revision"] for each in noticebus.json("notice list")["items"]] == [1]


@pytest.mark.parametrize("what", [what for what in WRONG if what != "nothing"])
def test_a_body_that_no_message_can_carry_is_checked_without_a_crash(
    noticebus: CommandLine, what: str, tmp_path: Path
) -> None:
    text, code, words = WRONG[what]
    file = tmp_path / "body.json"
    file.write_bytes(text)

    refused(noticebus("schema check fta -", stdin=text), code, words)
    named = words.replace("standard input", str(file))
    refused(noticebus(f"schema check fta {file}"), code, named)


def test_the_same_hearing_is_still_known_after_all_of_them(
    noticebus: CommandLine, sent: str
) -> None:
    """A mark at the beginning, as some editors write it, is no reason to refuse anything."""
    again = noticebus("notice send", stdin=b"\xef\xbb\xbf" + GOOD.encode())

    assert again.code == 0
    assert f"Already sent as {sent}" in again.out


@pytest.mark.parametrize("line", ["notice show", "queue take", "--agency ice notice list --as"])
def test_an_argument_that_is_no_text_is_named_by_its_place(
    noticebus: CommandLine, line: str
) -> None:
    done = noticebus(line, "\udcff\udcfe")

    refused(done, "NB-7094", f"argument {len(line.split()) + 1} of this command is not text")


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (b"ab\0cd,OTHER,Other", "NB-1054", "names no notice"),
        (b"{notice},OTHER," + b"x" * 200_000, None, "a cell is too large at line 2"),
        (b'"{notice},OTHER,Other', None, "its quotes do not close at line 3"),
        (b"{notice},OTHER,\xff", None, "it is not UTF-8"),
    ],
)
def test_a_file_of_corrections_that_cannot_be_read_says_where(
    noticebus: CommandLine, sent: str, tmp_path: Path, row: bytes, code: str | None, words: str
) -> None:
    file, rejects = tmp_path / "corrections.csv", tmp_path / "rejects.csv"
    good = f"{sent},OTHER,\n".encode()
    row = row.replace(b"{notice}", sent.encode())
    file.write_bytes(b"notice,reason,family_name\n" + row + b"\n" + good)

    done = noticebus(f"notice correct --file {file} --rejects {rejects} --yes")

    if code is None:
        refused(done, "NB-1053", words)
        assert not rejects.exists()
    else:
        assert done.code == 5
        assert f"1 x {code}" in done.err
        assert (
            rejects.read_text(encoding="utf-8")
            .splitlines()[1]
            .startswith(f"corrections.csv,2,{code},")
        )
        assert "1 said so already" in done.out


def test_more_rows_than_a_docket_can_have_are_not_invented(
    noticebus: CommandLine, tmp_path: Path
) -> None:
    done = noticebus(f"docket synthesize {tmp_path}/docket --rows {'9' * 30}")

    assert (done.code, "NB-7011" in done.err) == (2, True)
    assert not (tmp_path / "docket").exists()
