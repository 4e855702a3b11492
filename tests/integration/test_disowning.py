"""Who signed cannot take it back by a later claim alone: its own cosignature stands against it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.canonical import parse
from schemas.checkpoint import Signer, parse_checkpoint
from schemas.cosignature import cosign, cosigner
from schemas.errors import ConflictError
from services.exchange import rotation
from services.exchange.contents import verify_contents
from services.exchange.outbox import Draft
from services.proof import building
from services.proof.checking import check
from services.proof.counting import Counting
from tests.agencies import Pair, a_notice, accept, answered, trust, two_agencies, until
from tests.bundles import Members, members_of, ours, run_verify, signed_again, written
from tests.command_line import CommandLine
from tests.integration.test_revocation import all_count, all_sealed
from tests.steps import change, settled, tell_no_heads

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def sent_and_cosigned(pair: Pair) -> Draft:
    """Let ICE send a notice, and each side cosign the other's log with it."""
    notice = a_notice()
    async with pair.running():
        await accept(pair.ice, notice)
        await until(lambda: answered(pair.ice, [notice]), "the receipt")
        await until(lambda: settled(pair), "both cosigned")
    return notice


async def disown(pair: Pair, patch: pytest.MonkeyPatch) -> str:
    """Let ICE claim that others had its key long before there was one; returns the key."""

    async def long_ago(*_: object) -> datetime:
        return LONG_AGO

    kid = pair.ice.ring.signing.kid
    patch.setattr(rotation, "_there_since", long_ago)
    await rotation.revoke_signing_key(pair.ice, None, since=LONG_AGO, actor="t", reason="regret")
    await trust(pair.hhs, pair.ice)
    return kid


async def seal(pair: Pair) -> None:
    async with pair.running(ice=("sealer",), hhs=("sealer",)):
        await until(lambda: all_sealed(pair), "all sealed")


def place_of(notice: Draft) -> str:
    return f"notices/{notice.notice_id}/messages/{notice.message_id}.jws"


def id_of(notice: Draft) -> UUID:
    assert notice.notice_id is not None
    return notice.notice_id


async def test_a_signer_that_takes_everything_back_is_held_to_its_own_cosignature(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger, bundle and both verifiers keep what HHS holds, and say what ICE claims and when."""
    notice = await sent_and_cosigned(pair)
    kid = await disown(pair, monkeypatch)
    # HHS learned of it and that is not on a checkpoint yet: no bundle can say when it did.
    with pytest.raises(ConflictError, match="NB-3251"):
        await members_of(pair.hhs, tmp_path, id_of(notice))
    await seal(pair)

    contents = await verify_contents(pair.hhs.store)
    [disowned] = contents.disputed
    assert (contents.difference, contents.not_evidence, disowned.messages) == (None, 0, 1)
    assert (disowned.first.kid, disowned.first.since) == (kid, LONG_AGO)
    assert LONG_AGO < disowned.first.cosigned_at < disowned.told_at
    told = await verify_ledger(pair)
    assert "1 message is DISPUTED: their signer revoked its key" in told
    assert "claims that others had it since 2000-01-01 00:00:00Z" in told
    assert "no evidence" not in told

    members = await members_of(pair.hhs, tmp_path, id_of(notice))
    assert place_of(notice) in members
    said = parse(members[f"notices/{notice.notice_id}/evidence.json"])
    [message] = said["messages"]
    assert message["disputed"]["claimed_since"] == "2000-01-01T00:00:00.000000Z"
    assert "left_out" not in said
    report = " ".join(members["report.txt"].decode().split())
    assert f"DISPUTED: 1 signature under the key {kid} of ICE, which claims" in report
    verdict = run_verify(written(tmp_path, members))
    assert verdict.code == 0, verdict.out
    assert verdict.last.endswith("DISPUTED by their signer: 1 signatures, see above")
    [loud] = [line for line in verdict.out.splitlines() if line.startswith("DISPUTED  ")]
    [ours_said] = check(members).disputed
    for told in (loud, f"{ours_said.member}: {ours_said.told}"):
        assert place_of(notice) in told
        assert "claims that others had its key since 2000-01-01" in told
        assert f"{disowned.first.cosigned_at:%Y-%m-%d %H:%M:%SZ} it cosigned itself" in told
    # ICE itself has nothing of what it disowns.
    of_ice = await members_of(pair.ice, tmp_path, id_of(notice))
    assert place_of(notice) not in of_ice
    assert (await verify_contents(pair.ice.store)).not_evidence == 1


async def verify_ledger(pair: Pair) -> str:
    """Return what HHS' `ledger verify` says to people."""
    settings = pair.hhs.settings
    command = CommandLine(
        settings.home,
        {
            "NOTICEBUS_DATABASE_URL": settings.database_url_required,
            "NOTICEBUS_REDIS_URL": settings.redis_url_required,
        },
    )
    done = await asyncio.to_thread(command, "--agency", "hhs", "ledger", "verify")
    assert done.code == 0, done.err
    return " ".join(done.out.split())


async def test_what_the_signer_did_not_cosign_before_the_claim_is_no_evidence_whoever_says_so(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief's message, or one that HHS wrote itself with a key that it was given."""
    await sent_and_cosigned(pair)
    await tell_no_heads(pair)
    forged = a_notice()
    async with pair.running():
        await accept(pair.ice, forged)
        await until(lambda: answered(pair.ice, [forged]), "the receipt")
    await disown(pair, monkeypatch)
    await seal(pair)
    # What ICE cosigns afterwards shows only that it is there now.
    for agency in (pair.ice, pair.hhs):
        await change(agency, "DELETE FROM head_told")
    async with pair.running():
        await until(lambda: settled(pair), "both cosigned")

    contents = await verify_contents(pair.hhs.store)
    assert contents.not_evidence == 1
    assert [each.messages for each in contents.disputed] == [1]
    honest = await members_of(pair.hhs, tmp_path, id_of(forged))
    assert place_of(forged) not in honest
    with monkeypatch.context() as patch:
        patch.setattr(Counting, "divide", all_count)
        patch.setattr(building, "check", lambda _: None)
        dishonest = await members_of(pair.hhs, tmp_path, id_of(forged))
    refused(tmp_path, dishonest, place_of(forged))
    # A witness of HHS' own making has the name of ICE, and is not ICE for that.
    refused(tmp_path, cosigned_by_nobody(pair, dishonest), place_of(forged))


async def test_without_the_record_by_which_it_was_learned_nothing_is_before_it(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notice = await sent_and_cosigned(pair)
    await disown(pair, monkeypatch)
    await seal(pair)
    members = await members_of(pair.hhs, tmp_path, id_of(notice))
    learned = max(name for name in members if name.startswith("keys/records/"))[:-5]

    left = {name: data for name, data in members.items() if not name.startswith(learned)}
    refused(tmp_path, signed_again(pair.hhs, left), place_of(notice))


def refused(folder: Path, members: Members, name: str) -> None:
    verdict = run_verify(written(folder, members))
    assert verdict.code == 6, verdict.out
    assert name in verdict.last
    assert "was revoked" in verdict.last
    assert name in str(ours(members))


def cosigned_by_nobody(pair: Pair, members: Members) -> Members:
    """Return a bundle of HHS' with the line of a third witness that calls itself `ice`."""
    key = Signer("ice", Ed25519PrivateKey.generate())
    vkey = cosigner(key)
    name = max(name for name in members if name.startswith("checkpoints/hhs-"))
    learned = parse_checkpoint(members[name].decode()).checkpoint
    line = cosign(learned, key, datetime(1999, 1, 1, tzinfo=UTC))
    raw = key.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = base64.encodebytes(raw).decode().strip()
    pem = f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
    changed = {
        **members,
        name: members[name] + line.encode(),
        f"keys/witness-{vkey.key_id.hex()}.pem": pem.encode(),
    }
    return signed_again(pair.hhs, changed, lambda said: said.update(witnesses=[vkey.vkey()]))
