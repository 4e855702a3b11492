"""What is no bundle is told so before anything of it is believed."""

import json
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from schemas.errors import NoticeBusError
from services import cli
from services.proof import archive
from services.proof.archive import packed, unpacked
from tests.bundles import run_verify

MEMBERS = {"b.txt": b"second", "a/c.json": b"{}", "a/b.txt": b""}


def test_members_are_read_as_they_were_packed_and_pack_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(packed(MEMBERS))

    assert unpacked(path) == MEMBERS
    assert packed(dict(reversed(MEMBERS.items()))) == path.read_bytes()
    with zipfile.ZipFile(path) as opened:
        assert opened.namelist() == sorted(MEMBERS)
        assert {each.date_time for each in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {stat.S_IMODE(each.external_attr >> 16) for each in opened.infolist()} == {0o644}


def zipped(path: Path, names: Iterable[str]) -> None:
    with zipfile.ZipFile(path, "w") as opened:
        for name in names:
            opened.writestr(name, b"x")


def code_of(path: Path) -> str:
    with pytest.raises(NoticeBusError) as caught:
        unpacked(path)
    return caught.value.code


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "a\\b", "a//b", ".x"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.zip"
    zipped(path, [name])

    assert code_of(path) == "NB-3103"
    assert run_verify(path).code == 6


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    zipped(path, ["manifest.jws", "manifest.jws"])

    assert code_of(path) == "NB-3103"
    verdict = run_verify(path)
    assert verdict.code == 6
    assert "twice" in verdict.last


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(17)])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)

    assert code_of(path) == "NB-3101"
    verdict = run_verify(path)
    assert verdict.code == 6
    assert "not a zip" in verdict.last


def test_a_zip_that_was_cut_or_spoilt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    whole = packed({"manifest.jws": b"x" * 5_000})
    for spoilt, code in (
        (whole[:-30], "NB-3101"),
        (whole[10:], "NB-3101"),
        (whole[:1_000] + b"y" + whole[1_001:], "NB-3100"),
    ):
        path.write_bytes(spoilt)

        assert code_of(path) == code
        verdict = run_verify(path)
        assert verdict.code == 6
        assert ("manifest.jws: was changed" in verdict.last) == (code == "NB-3100")


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("manifest.jws", bytes(archive.MEMBER_BYTES_MAX + 1))

    assert path.stat().st_size < 100_000
    assert code_of(path) == "NB-3102"
    assert run_verify(path).code == 6
    monkeypatch.setattr(archive, "ARCHIVE_BYTES_MAX", 1_000)
    assert code_of(path) == "NB-3102"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"a.txt": b"x"}, 6),
        ({"manifest.jws": b"x"}, 6),
        ({"manifest.jws": b"e30.e30.e30"}, 6),
    ],
)
def test_the_command_names_what_is_wrong_and_exits_6(
    tmp_path: Path, members: dict[str, bytes], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(packed(members))

    assert cli.execute(["proof", "verify", str(path), "-o", "json"]) == code

    told = capsys.readouterr()
    said = json.loads(told.out)
    assert said["valid"] is False
    assert said["member"] == "manifest.jws"
    assert "NB-3100: manifest.jws" in told.err


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("proof verify {none}", "NB-3101"),
        ("proof verify {none} --fingerprint x", "NB-7011"),
        ("--agency ice proof build --out x.zip", "NB-7011"),
        ("--agency ice proof build --out x.zip --notice a --office HOU", "NB-7011"),
        ("--agency ice proof build --out x.zip --notice a --since 7d", "NB-7011"),
        ("--agency ice proof build --out x.zip --notice a --reveal", "NB-7011"),
        ("--agency ice proof build --out x.zip --notice a --reason why", "NB-7011"),
        ("proof build --out x.zip --notice a", "NB-7001"),
    ],
)
def test_lines_that_say_too_little_or_too_much_exit_2(
    tmp_path: Path, line: str, error: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    arguments = line.format(none=tmp_path / "none.zip").split()

    assert cli.execute(["--home", str(home), *arguments]) == 2

    assert error in capsys.readouterr().err
