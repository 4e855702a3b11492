"""A bundle proves what became of a notice, to somebody who has Python, openssl and nothing else."""

import ast
import io
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.canonical import parse
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.jose import read_jws
from services.exchange.agency import Agency
from services.proof import building
from services.proof.archive import packed, unpacked
from services.proof.building import Selection, build, bundle
from services.proof.checking import check
from services.proof.gathering import gather
from services.proof.members import MANIFEST, TYP, About
from services.proof.offline import program
from tests.agencies import Pair, a_notice, accept, two_agencies, until, value
from tests.bundles import built, members_of, names_in, openssl_alone, ours, run_verify, written
from tests.command_line import CommandLine
from tests.integration.test_guarantees_privacy import in_base64
from tests.lives import Life
from tests.steps import LIVE, relay, rows, settled

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def notices_of(agency: Agency) -> list[UUID]:
    found = await rows(
        agency, "SELECT DISTINCT notice_id FROM record WHERE notice_id IS NOT NULL ORDER BY 1"
    )
    return [row[0] for row in found]


def evidence(members: dict[str, bytes], notice_id: UUID) -> dict[str, Any]:
    said: dict[str, Any] = parse(members[f"notices/{notice_id}/evidence.json"])
    return said


async def test_notices_in_every_state_verify_without_our_code(
    whole_life: Life, tmp_path: Path
) -> None:
    """Sent, receipted, taken, closed, corrected, withdrawn, dismissed, refused and mended."""
    answers = set()
    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        for notice_id in await notices_of(agency):
            done, path = await built(agency, tmp_path, notice_id)

            verdict = run_verify(path)

            assert verdict.code == 0, verdict.out
            assert verdict.last.startswith("ALL HOLDS: 1 notices")
            members = unpacked(path)
            assert ours(members) is None
            said = evidence(members, notice_id)
            assert said["not_sealed"] == 0
            assert len(said["records"]) + 3 >= done.records >= len(said["records"]) > 0
            for message in said["messages"]:
                answers.add((message["direction"], message.get("answer")))
                assert ("receipt" in message) == (message.get("answer") == "receipt")
    assert answers >= {("sent", "receipt"), ("received", "receipt")}


async def test_a_refused_notice_shows_the_signed_refusal_on_both_sides(
    opened_life: Life, tmp_path: Path
) -> None:
    for agency in (opened_life.pair.ice, opened_life.pair.hhs):
        members = await members_of(agency, tmp_path, opened_life.notices[6])

        [message] = evidence(members, opened_life.notices[6])["messages"]
        assert message["answer"] == "refusal"
        assert members[message["refusal"]]
        assert members[message["envelope"]]
        assert ours(members) is None


async def test_an_unanswered_notice_has_no_receipt_and_says_what_waits(
    pair: Pair, tmp_path: Path
) -> None:
    first, second = a_notice(), a_notice()
    await accept(pair.ice, first)
    await relay(pair.ice, LIVE)
    with pytest.raises(ConflictError, match="NB-3108"):
        await members_of(pair.ice, tmp_path, first.notice_id)  # type: ignore[arg-type]  # has one
    async with pair.running(ice=["sealer"], hhs=[]):

        async def sealed() -> bool:
            return await value(pair.ice, "SELECT count(*) FROM unsealed") == 0

        await until(sealed, "everything sealed")
    await accept(pair.ice, second)
    assert first.notice_id is not None
    assert second.notice_id is not None

    of_first = await members_of(pair.ice, tmp_path, first.notice_id)
    of_second = await members_of(pair.ice, tmp_path, second.notice_id)

    [message] = evidence(of_first, first.notice_id)["messages"]
    assert "answer" not in message
    assert "receipt" not in message
    assert evidence(of_second, second.notice_id)["not_sealed"] == 1
    assert b"1 records are not sealed yet" in of_second["report.txt"]
    assert ours(of_first) is None
    assert ours(of_second) is None


async def test_an_office_has_one_bundle_of_all_its_notices(
    worked_life: Life, tmp_path: Path
) -> None:
    for agency in (worked_life.pair.ice, worked_life.pair.hhs):
        path = tmp_path / f"office-{agency.name}.zip"
        done = await build(agency, Selection(office="HOU"), path, actor="inspector")

        assert done.notices > 4
        assert run_verify(path).code == 0
        with pytest.raises(NotFoundError, match="NB-3105"):
            await build(
                agency,
                Selection(office="HOU", until=datetime(2020, 1, 1, tzinfo=UTC)),
                tmp_path / "none.zip",
                actor="inspector",
            )
    assert not [name for name in names_in(tmp_path) if "none" in name]


async def test_more_notices_than_a_bundle_holds_are_refused_and_no_file_is_left(
    worked_life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "NOTICES_MAX", 3)
    ice = worked_life.pair.ice

    with pytest.raises(RejectedError) as caught:
        await build(ice, Selection(office="HOU"), tmp_path / "all.zip", actor="inspector")

    assert str(caught.value) == "NB-3106 there are more than 3 notices"
    assert caught.value.fix.startswith("Narrow the time with --since and --until")
    assert not [name for name in names_in(tmp_path) if "all" in name]


async def test_nothing_personal_is_in_it_unless_it_was_revealed_with_a_reason(
    worked_life: Life, tmp_path: Path
) -> None:
    needles = [b"A100000002", b"100000002", b"Invented", b"2009-05-03", b"clerk"]
    needles += [each for needle in needles for each in in_base64(needle)]
    for agency in (worked_life.pair.ice, worked_life.pair.hhs):
        notice_id = worked_life.notices[2]
        closed = await members_of(agency, tmp_path, notice_id)
        open_ = await members_of(agency, tmp_path, notice_id, reason="case 7 of the court")

        found = {n for n, data in closed.items() for needle in needles if needle in data}
        assert not found
        assert not [name for name in closed if "/revealed/" in name]
        contents = [name for name in open_ if "/revealed/" in name and "openings" not in name]
        assert any(b"A100000002" in open_[name] for name in contents)
        assert ours(open_) is None
        assert run_verify(written(tmp_path, open_)).code == 0


async def test_every_bundle_is_on_record_and_a_revealing_one_with_its_reason(
    opened_life: Life, tmp_path: Path
) -> None:
    notice_id = opened_life.notices[1]
    ice = opened_life.pair.ice
    plain, _ = await built(ice, tmp_path, notice_id)
    _, _ = await built(ice, tmp_path, notice_id, reason="asked by the court")

    found = await rows(
        ice,
        "SELECT r.record, o.opened FROM record AS r LEFT JOIN opening AS o USING (record_id)"
        " WHERE action = 'proof.built' ORDER BY r.record_id",
    )

    said = [parse(bytes(record)) for record, _ in found]
    assert [each["result"] for each in said] == ["ok", "revealed"]
    assert [each["notice_id"] for each in said] == [str(notice_id)] * 2
    assert said[0]["detail"]["notices"] == 1
    assert found[0][1].keys() == {"actor"}
    assert found[1][1]["text"]["value"] == "asked by the court"
    assert found[1][1]["actor"]["value"] == "inspector"
    assert plain.revealed is False


async def test_the_same_content_makes_the_same_bytes(opened_life: Life) -> None:
    ice = opened_life.pair.ice
    about = About(agency="ice", peer="hhs", made_at=NOW, selection={}, revealed=True)

    async def once() -> bytes:
        async with ice.store.transaction() as tx:
            return bundle(await gather(tx, ice, [opened_life.notices[1]], reveal=True), about, ice)

    first, second = await once(), await once()

    assert first == second
    assert packed(_members(first)) == first


async def test_the_report_says_what_happened_what_is_not_shown_and_whose_keys(
    worked_life: Life, tmp_path: Path
) -> None:
    members = await members_of(worked_life.pair.ice, tmp_path, worked_life.notices[2])
    text = unwrapped(members["report.txt"])

    for words in (
        "HHS has it: receipt for the fta message",
        "Each agency can withhold",
        "both agencies acting together",
        "'Did not appear' is what the court recorded",
        "What this does not show",
        "sha256:",
        "Policy P-",
    ):
        assert words in text
    assert members["report.pdf"].startswith(b"%PDF-")
    assert members["report.pdf"].rstrip().endswith(b"%%EOF")
    manifest = parse(read_jws(members[MANIFEST], TYP).payload)
    assert manifest["policies"]
    assert manifest["code_lists"]["offices"]


async def test_the_commands_by_hand_are_the_ones_that_work(
    opened_life: Life, tmp_path: Path
) -> None:
    """Each openssl command of README.txt, as a shell runs it in the unpacked bundle."""
    async with opened_life.both():
        await until(lambda: settled(opened_life.pair), "both cosigned")
    members = await members_of(opened_life.pair.ice, tmp_path, opened_life.notices[1])
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(written(tmp_path, members)) as archive:
        archive.extractall(folder)
    lines = members["README.txt"].decode().splitlines()
    blocks = "\n".join(line[4:] if line.startswith("    ") else "" for line in lines).split("\n\n")
    by_hand = [each.strip() for each in blocks if "openssl pkeyutl" in each]
    assert len(by_hand) == 3
    for script in by_hand:
        done = run(["sh", "-euc", script], folder)
        assert done.returncode == 0, (script, done.stderr)
        assert "Verified Successfully" in done.stdout
    # The last one is of a cosignature: it says when, as the report does, and a later time is a lie.
    [cosigned] = [each for each in by_hand if "cosignature/v1" in each]
    *_, at = run(["sh", "-euc", f"{cosigned} '+%Y-%m-%d %H:%M:%SZ'"], folder).stdout.splitlines()
    assert f"cosigned by hhs.noticebus.example/noticebus/hhs/cosigner at {at}" in unwrapped(
        members["report.txt"]
    )
    lied = cosigned.replace("( printf", "AT=$((AT + 60))\n( printf")
    assert lied != cosigned
    assert "Verified Successfully" not in run(["sh", "-uc", lied], folder).stdout


def unwrapped(text: bytes) -> str:
    return " ".join(text.decode().split())


async def test_it_checks_the_folder_that_it_lies_in_and_the_fingerprints_it_is_given(
    opened_life: Life, tmp_path: Path
) -> None:
    members = await members_of(opened_life.pair.hhs, tmp_path, opened_life.notices[1])
    path = written(tmp_path, members)
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    true = check(members).fingerprints["ice"]
    false = f"sha256:{'0' * 64}"

    alone = run([sys.executable, "-I", "-S", str(folder / "verify.py")], Path("/"))

    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert run_verify(path, "--fingerprint", f"ice={true}").code == 0
    refused = run_verify(path, "--fingerprint", f"ice={false}")
    assert refused.code == 6
    assert ".party.json" in refused.last


async def test_what_cannot_be_checked_here_is_told_from_evidence_that_does_not_hold(
    opened_life: Life, tmp_path: Path
) -> None:
    """Exit 1 says what is missing on this machine; 6 is kept for the bundle."""
    members = await members_of(opened_life.pair.ice, tmp_path, opened_life.notices[1])
    path, spoilt = written(tmp_path, members), tmp_path / "spoilt.zip"
    spoilt.write_bytes(path.read_bytes()[:-100])
    bare, old = tmp_path / "bare", tmp_path / "old"
    for folder in (bare, old):
        folder.mkdir()
    (old / "openssl").write_text("#!/bin/sh\necho 'pkeyutl: unknown option rawin' >&2\nexit 1\n")
    (old / "openssl").chmod(0o755)

    for verdict, words in (
        (run_verify(path, path=str(bare)), "openssl is missing: install it and put it on PATH"),
        (run_verify(path, path=str(old)), "openssl is too old for ES256 or Ed25519 here"),
        (run_verify(tmp_path / "none.zip"), "none.zip cannot be read: No such file"),
    ):
        assert verdict.code == 1, verdict.out
        assert verdict.last.startswith("COULD NOT CHECK  ")
        assert words in verdict.last
        assert "FAILED" not in verdict.out
    verdict = run_verify(spoilt)
    assert verdict.code == 6
    assert verdict.last.startswith("FAILED  ")
    assert b"Exit 1: it could not be" in members["README.txt"]
    assert run_verify(path).code == 0


def test_the_program_imports_the_standard_library_alone() -> None:
    tree = ast.parse(program())

    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [alias.name for alias in node.names])
    }  # fmt: skip
    assert imported <= sys.stdlib_module_names
    assert "services" not in imported


async def test_a_notice_that_nobody_heard_of_makes_a_bundle_of_nothing_and_says_so(
    opened_life: Life, tmp_path: Path
) -> None:
    members = await members_of(opened_life.pair.ice, tmp_path, uuid7())

    assert ours(members) is None
    assert b"0 messages sent, 0 received" in members["report.txt"]


async def test_the_commands_build_and_verify_on_both_sides(
    opened_life: Life, tmp_path: Path
) -> None:
    for agency in (opened_life.pair.ice, opened_life.pair.hhs):
        settings = agency.settings
        noticebus = CommandLine(
            settings.home, {"NOTICEBUS_DATABASE_URL": settings.database_url_required}
        )
        side, notice = f"--agency {agency.name}", str(opened_life.notices[1])
        path = tmp_path / f"by-command-{agency.name}.zip"

        done = noticebus.json(f"{side} proof build --notice {notice} --out {path}")
        again = noticebus(f"{side} proof build --notice {notice} --out {path}")
        unknown = noticebus(f"{side} proof build --notice {uuid7()} --out {path}.2")
        whole = noticebus.json(f"proof verify {path}")
        fingerprint = whole["fingerprints"]["ice"]
        other = noticebus(f"proof verify {path} --fingerprint ice=sha256:{'0' * 64}")
        path.write_bytes(path.read_bytes().replace(b'"taken"', b'"token"'))
        changed = noticebus(f"proof verify {path} -o json")

        assert (done["notices"], done["revealed"]) == (1, False)
        assert (again.code, unknown.code) == (9, 3)
        assert whole["valid"]
        assert whole["made_by"] == agency.name
        assert fingerprint.startswith("sha256:")
        assert other.code == 6
        assert changed.code == 6
        assert changed.data["valid"] is False


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with the commands of a bare system on PATH."""
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": f"{openssl_alone()}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
