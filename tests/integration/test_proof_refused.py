"""A bundle that was changed, or forged by its own maker, is refused by both verifiers by name."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.canonical import b64, canonical, parse
from schemas.checkpoint import Signer, parse_checkpoint, sign_checkpoint
from schemas.errors import EvidenceError, RejectedError
from schemas.proof import parse_tlog_proof, tlog_proof
from services.proof.checking import check
from services.proof.members import MANIFEST
from tests.agencies import until
from tests.bundles import Members, members_of, names_in, ours, run_verify, signed_again, written
from tests.lives import Life
from tests.steps import change, grow, is_sealed, settled


def flipped(data: bytes) -> bytes:
    """Return other bytes of the same length, still text where they were."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def refused(folder: Path, members: Members, name: str) -> str:
    """Check that both verifiers refuse a bundle because of `name`; return what ours said."""
    verdict = run_verify(written(folder, members))
    said = ours(members)
    assert verdict.code == 6, verdict.out
    assert verdict.last.startswith(f"FAILED  {name}: "), (name, verdict.last)
    assert said is not None, name
    assert said.startswith(f"{name}: "), (name, said)
    return said


@pytest.mark.timeout(240)
async def test_each_member_that_is_changed_swapped_or_removed_is_named(
    worked_life: Life, tmp_path: Path
) -> None:
    members = await members_of(
        worked_life.pair.ice, tmp_path, worked_life.notices[2], reason="a drill"
    )
    names = sorted(members)
    assert len(names) > 40
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        refused(tmp_path, {**members, name: flipped(members[name])}, name)
        refused(tmp_path, {n: data for n, data in members.items() if n != name}, name)
        first = min(name, other) if MANIFEST not in (name, other) else MANIFEST
        swapped = {**members, name: members[other], other: members[name]}
        assert ours(swapped) is not None
        verdict = run_verify(written(tmp_path, swapped))
        assert verdict.last.startswith(f"FAILED  {first}: ")
    refused(tmp_path, {**members, "notices/more.json": b"{}"}, "notices/more.json")
    assert ours(members) is None


async def test_what_a_cheating_maker_signs_anew_is_refused_where_it_does_not_fit(
    worked_life: Life, tmp_path: Path
) -> None:
    """The maker holds its own keys: what it cannot do is make the other agency's evidence."""
    ice, first, second = worked_life.pair.ice, worked_life.notices[2], worked_life.notices[5]
    # The newest checkpoint is one that answers nothing, however fast all else went.
    await grow(ice)
    async with worked_life.pair.running(ice=("sealer",), hhs=("sealer",)):
        await until(lambda: is_sealed(ice), "sealed")
    of_first = await members_of(ice, tmp_path, first, reason="a drill")
    of_second = await members_of(ice, tmp_path, second)
    [of_hhs, *_] = [await members_of(worked_life.pair.hhs, tmp_path, first)]
    stranger = Ed25519PrivateKey.generate()

    def evidence(members: Members, notice_id: UUID) -> dict[str, Any]:
        said: dict[str, Any] = parse(members[f"notices/{notice_id}/evidence.json"])
        return said

    def sent(members: Members, notice_id: UUID) -> dict[str, Any]:
        return next(
            each for each in evidence(members, notice_id)["messages"] if each["kind"] == "fta"
        )

    message, other = sent(of_first, first), sent(of_second, second)
    record = evidence(of_first, first)["records"][0]
    of_other_log = evidence(of_hhs, first)["records"][0]
    note = next(name for name in of_first if name.startswith("checkpoints/hhs-"))
    forged_note = sign_checkpoint(
        parse_checkpoint(of_first[note].decode()).checkpoint.size,
        bytes(32),
        Signer(parse_checkpoint(of_first[note].decode()).checkpoint.origin, stranger),
    )
    proof = parse_tlog_proof(of_first[message["receipt"]["proof"]].decode())
    under = parse_checkpoint(proof.checkpoint)
    signed_elsewhere = sign_checkpoint(
        under.checkpoint.size, under.checkpoint.root, Signer(under.checkpoint.origin, stranger)
    )
    content = next(name for name in of_first if "/revealed/" in name and "openings" not in name)
    receipts, others = message["receipt"], other["receipt"]
    cases: list[tuple[str, dict[str, bytes], str]] = [
        (
            "a receipt of another notice",
            {receipts[part]: of_second[others[part]] for part in ("record", "proof")},
            receipts["record"],
        ),
        (
            "a receipt that was altered",
            {receipts["record"]: of_first[receipts["record"]].replace(b"taken", b"token")},
            receipts["record"],
        ),
        (
            "a record of another log",
            {record[part]: of_hhs[of_other_log[part]] for part in ("record", "proof")},
            record["proof"],
        ),
        (
            "a record of another notice",
            {
                record[part]: of_second[evidence(of_second, second)["records"][0][part]]
                for part in ("record", "proof")
            },
            record["record"],
        ),
        (
            "a record that says something else",
            {record["record"]: of_first[record["record"]].replace(b'"ok"', b'"no"')},
            record["record"],
        ),
        ("a checkpoint signed by another key", {note: forged_note.encode()}, note),
        (
            "a receipt under a checkpoint signed by another key",
            {receipts["proof"]: tlog_proof(proof.index, proof.proof, signed_elsewhere).encode()},
            receipts["proof"],
        ),
        (
            "a message of another notice",
            {message["envelope"]: of_second[other["envelope"]]},
            message["envelope"],
        ),
        (
            "a message that was altered",
            {message["envelope"]: altered(of_first[message["envelope"]])},
            message["envelope"],
        ),
        (
            "a content that nobody committed to",
            {content: of_first[content].replace(b"GTM", b"HND")},
            content,
        ),
    ]
    for what, changes, named in cases:
        assert any(of_first.get(name) != data for name, data in changes.items()), what
        refused(tmp_path, signed_again(ice, {**of_first, **changes}), named)
    assert ours(signed_again(ice, of_first)) is None

    # Its own log, forked with its own key: a root that the proofs do not have.
    newest = max(name for name in of_first if name.startswith("checkpoints/ice-"))
    size = parse_checkpoint(of_first[newest].decode()).checkpoint.size
    of_older = {
        name
        for name in of_first
        if name.startswith(("checkpoints/ice-", "consistency/")) and name != newest
    }
    assert of_older
    forked = {name: data for name, data in of_first.items() if name not in of_older}
    forked[newest] = sign_checkpoint(size, bytes(32), ice.ring.log_key).encode()
    proofs = min(name for name in of_first if name.endswith(".tlog"))
    refused(tmp_path, signed_again(ice, forked), proofs)
    # An older checkpoint of which nothing shows that the newest grew out of it.
    shown = min(name for name in of_older if name.startswith("consistency/"))
    without = {name: data for name, data in of_first.items() if name != shown}
    assert shown in refused(tmp_path, signed_again(ice, without), MANIFEST)


def altered(jws: bytes) -> bytes:
    """Return an envelope whose time is another, under the signature that it had."""
    header, payload, signature = jws.split(b".")
    said = json.loads(base64.urlsafe_b64decode(payload + b"=="))
    said["time"] = "2020-01-01T00:00:00.000000Z"
    return b".".join((header, b64(canonical(said)).encode(), signature))


async def test_a_maker_that_names_other_keys_is_found_by_their_fingerprint_alone(
    worked_life: Life, tmp_path: Path
) -> None:
    """Whose keys these are is for people: that is what the printed fingerprints are for."""
    ice = worked_life.pair.ice
    members = await members_of(ice, tmp_path, worked_life.notices[1])
    name = next(name for name in members if name.startswith("keys/hhs-") and "party" in name)
    party = parse(members[name])
    party["made_at"] = "2020-01-01T00:00:00.000000Z"

    refused(tmp_path, signed_again(ice, {**members, name: canonical(party)}), name)


async def test_revealed_contents_of_a_bundle_that_says_it_has_none_are_refused(
    worked_life: Life, tmp_path: Path
) -> None:
    ice = worked_life.pair.ice
    members = await members_of(ice, tmp_path, worked_life.notices[1], reason="a drill")
    name = min(name for name in members if "/revealed/" in name)

    claims = signed_again(ice, members, lambda said: said.update(revealed=False))

    refused(tmp_path, claims, name)


async def test_a_bundle_of_a_later_version_is_not_judged(worked_life: Life, tmp_path: Path) -> None:
    ice = worked_life.pair.ice
    members = await members_of(ice, tmp_path, worked_life.notices[1])

    later = signed_again(ice, members, lambda said: said.update(schema="noticebus.proof/2"))

    verdict = run_verify(written(tmp_path, later))
    assert verdict.code == 6
    assert "later version (noticebus.proof/2)" in verdict.last


async def test_further_signature_lines_of_a_checkpoint_are_passed_over(
    worked_life: Life, tmp_path: Path
) -> None:
    """Cosignatures of witnesses come into the same notes; who does not know them reads on."""
    ice = worked_life.pair.ice
    members = await members_of(ice, tmp_path, worked_life.notices[1])
    name = max(name for name in members if name.startswith("checkpoints/ice-"))
    line = "\u2014 a.witness.example " + base64.b64encode(bytes(76)).decode() + "\n"

    more = signed_again(ice, {**members, name: members[name] + line.encode()})

    assert ours(more) is None
    verdict = run_verify(written(tmp_path, more))
    assert verdict.code == 0
    assert "1 further signatures, not checked" in verdict.out


async def test_a_store_that_was_tampered_with_makes_no_bundle(
    worked_life: Life, tmp_path: Path
) -> None:
    ice = worked_life.pair.ice
    await change(
        ice,
        "UPDATE envelope SET envelope = overlay(envelope placing '\\x41' from 300)"
        " WHERE message_id = (SELECT message_id FROM sent WHERE notice_id = %s LIMIT 1)",
        worked_life.notices[1],
    )

    with pytest.raises(EvidenceError, match="NB-3100"):
        await members_of(ice, tmp_path, worked_life.notices[1])

    assert names_in(tmp_path) == ["home"]


async def test_a_cosignature_that_its_witness_did_not_make_is_refused(
    worked_life: Life, tmp_path: Path
) -> None:
    """Both agencies cosign each other's checkpoints; the bundle holds both, to be checked."""
    async with worked_life.both():
        await until(lambda: settled(worked_life.pair), "both cosigned")
    for agency in (worked_life.pair.ice, worked_life.pair.hhs):
        members = await members_of(agency, tmp_path, worked_life.notices[1])
        cosigned = [
            name
            for name, data in members.items()
            if name.startswith("checkpoints/") and b"/cosigner " in data
        ]
        assert {name.split("/")[1][:3] for name in cosigned} == {"ice", "hhs"}
        assert "and cosigned it" in run_verify(written(tmp_path, members)).out
        for name in cosigned:
            text, _, line = members[name].decode().rstrip("\n").rpartition(" ")
            raw = bytearray(base64.b64decode(line))
            for place in (5, 11, 40):
                raw[place] ^= 1
                spoilt = f"{text} {base64.b64encode(raw).decode()}\n".encode()
                refused(tmp_path, signed_again(agency, {**members, name: spoilt}), name)
                raw[place] ^= 1


async def test_a_bundle_of_a_later_version_is_told_from_one_that_was_changed(
    worked_life: Life, tmp_path: Path
) -> None:
    ice = worked_life.pair.ice
    members = await members_of(ice, tmp_path, worked_life.notices[2])
    later = signed_again(ice, members, lambda said: said.update(schema="noticebus.proof/2"))
    other = signed_again(ice, members, lambda said: said.update(schema="somebody.else/1"))

    with pytest.raises(RejectedError) as caught:
        check(later)

    assert str(caught.value) == (
        "NB-3104 the bundle was made by a later version (noticebus.proof/2; this program knows"
        " noticebus.proof/1)"
    )
    assert caught.value.fix.startswith("Use the verify.py in the bundle")
    refused(tmp_path, other, MANIFEST)
