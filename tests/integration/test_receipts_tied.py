"""A receipt's checkpoint is tied to a cosigned one by what the store has, or it is said why not."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.canonical import canonical, parse
from services.ledger.records import make_record
from services.ledger.store import append
from services.proof.checking import check
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.bundles import Members, members_of, ours, run_verify, signed_again, written
from tests.integration.test_revocation import all_sealed
from tests.steps import change, settled, tell_no_heads


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    """Give out two agencies that tell no heads yet, so that nothing is cosigned."""
    async with two_agencies(home, database, redis_url) as pair:
        await tell_no_heads(pair)
        yield pair


async def receipted(pair: Pair, *, number: int = 1) -> list[UUID]:
    """Let ICE send notices, one after the other, and return their ids once each has a receipt."""
    notices = []
    async with pair.running():
        for _ in range(number):
            notice = a_notice()
            await accept(pair.ice, notice)
            await until(partial(answered, pair.ice, [notice]), "the receipt")
            assert notice.notice_id is not None
            notices.append(notice.notice_id)
    return notices


async def cosign(pair: Pair) -> None:
    """Let both tell heads now, until each has cosigned what the other has."""
    for agency in (pair.ice, pair.hhs):
        await change(agency, "DELETE FROM head_told")
    async with pair.running():
        await until(lambda: settled(pair), "both cosigned")


def receipt_of(members: Members, notice_id: UUID) -> dict[str, Any]:
    [message] = parse(members[f"notices/{notice_id}/evidence.json"])["messages"]
    receipt: dict[str, Any] = message["receipt"]
    return receipt


def report_of(members: Members) -> str:
    return " ".join(members["report.txt"].decode().split())


def said_by_both(folder: Path, members: Members) -> tuple[str, str]:
    """Return what both verifiers said of a bundle that holds."""
    verdict = run_verify(written(folder, members))
    assert verdict.code == 0, verdict.out
    return verdict.out, " ".join(each.told for each in check(members).held)


async def test_a_checkpoint_that_was_cosigned_itself_ties_its_receipts(
    pair: Pair, tmp_path: Path
) -> None:
    [notice_id] = await receipted(pair)
    await cosign(pair)

    members = await members_of(pair.ice, tmp_path, notice_id)

    assert receipt_of(members, notice_id).keys() == {"record", "proof"}
    for told in (*said_by_both(tmp_path, members), report_of(members)):
        assert "cosigned at" in told
        assert "NOTHING" not in told
        assert "NOT tied" not in told


async def test_answers_in_between_lead_from_a_receipt_to_the_next_cosigned_checkpoint(
    pair: Pair, tmp_path: Path
) -> None:
    """Five sealed batches, each shown by an answer, and one head at their end."""
    notices = await receipted(pair, number=5)
    await cosign(pair)

    last = await value(pair.hhs, "SELECT size FROM log_head")
    assert isinstance(last, int)

    for at, notice_id in enumerate(notices[:-1], last - 4):
        members = await members_of(pair.ice, tmp_path, notice_id)
        receipt = receipt_of(members, notice_id)
        assert receipt["tied"] == f"consistency/hhs-1-{at:012d}-{last:012d}.json"
        proof = parse(members[receipt["tied"]])
        assert (proof["old"], proof["new"]) == (at, last)
        words = f"under its checkpoint of {at} records, the beginning of that of {last}, which"
        assert words in report_of(members)
        words = f"under the checkpoint of {at} of its log, the beginning of that of {last}, which"
        for told in said_by_both(tmp_path, members):
            assert words in told


async def test_a_receipt_that_nothing_ties_says_so_and_why(pair: Pair, tmp_path: Path) -> None:
    [notice_id] = await receipted(pair)
    size = await value(pair.hhs, "SELECT size FROM log_head")
    assert isinstance(size, int)

    members = await members_of(pair.ice, tmp_path, notice_id)
    why = "none of its checkpoints from then on was cosigned yet"
    assert receipt_of(members, notice_id)["not_tied"] == why
    assert f"1 receipt is NOT tied to a cosigned checkpoint of {origin(pair)}: {why}" in report_of(
        members
    )
    assert f"{origin(pair)}, {size} records: cosigned by nobody." in report_of(members)
    for told in said_by_both(tmp_path, members):
        assert "which NOTHING in here ties to a cosigned one" in told

    # HHS does something that no answer shows, and only then tells where its log stands.
    async with pair.hhs.store.transaction() as tx:
        await append(tx, [make_record("case.looked_at", time=datetime.now(UTC))])
    async with pair.running(ice=("sealer",), hhs=("sealer",)):
        await until(lambda: all_sealed(pair), "all sealed")
    await cosign(pair)
    members = await members_of(pair.ice, tmp_path, notice_id)
    why = "records that no receipt of ours shows stand between it and the next cosigned one"
    assert receipt_of(members, notice_id)["not_tied"] == why
    assert why in report_of(members)
    at = await value(pair.ice, "SELECT cosigned_at FROM peer_head")
    assert isinstance(at, datetime)
    assert (
        f"{origin(pair)}, {size + 1} records: cosigned by {pair.ice.ring.cosigner.name} at"
        f" {at:%Y-%m-%d %H:%M:%SZ}." in report_of(members)
    )
    for told in said_by_both(tmp_path, members):
        assert "which NOTHING in here ties to a cosigned one" in told


def origin(pair: Pair) -> str:
    return pair.hhs.ring.log_key.name


async def test_a_tie_that_is_gone_or_of_something_else_is_refused_by_both(
    pair: Pair, tmp_path: Path
) -> None:
    first, second, *_ = await receipted(pair, number=5)
    await cosign(pair)
    members = await members_of(pair.ice, tmp_path, first)
    of_second = await members_of(pair.ice, tmp_path, second)
    tied, other = receipt_of(members, first)["tied"], receipt_of(of_second, second)["tied"]
    evidence = f"notices/{first}/evidence.json"

    gone = {name: data for name, data in members.items() if name != tied}
    proof = {**parse(members[tied]), "proof": parse(of_second[other])["proof"]}
    more = {n: d for n, d in of_second.items() if n.startswith(("checkpoints/", "consistency/"))}
    said = parse(members[evidence])
    said["messages"][0]["receipt"]["tied"] = other
    for changed, named in (
        (gone, evidence),
        ({**members, tied: canonical(proof)}, tied),
        ({**members, **more, evidence: canonical(said)}, other),
    ):
        bundle = signed_again(pair.ice, changed)
        verdict = run_verify(written(tmp_path, bundle))
        assert verdict.code == 6, verdict.out
        assert named in verdict.last
        assert named in str(ours(bundle))
