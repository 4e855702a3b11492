"""A key that others may have is revoked: refused on the wire, and nothing under way is lost."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.canonical import format_time, parse
from schemas.errors import ConflictError, EvidenceError, NotFoundError, RejectedError
from services.backup import seen
from services.exchange import rotation
from services.exchange.contents import verify_contents
from services.exchange.held import apply_held
from services.exchange.process import delivery_of
from services.ledger.store import Transaction
from services.proof import building
from services.proof.counting import Counting
from services.proof.store import Message
from services.replay.shadow import shadow
from tests.agencies import Pair, a_notice, accept, answered, trust, two_agencies, until, value
from tests.bundles import members_of, ours, run_verify, written
from tests.steps import (
    LIVE,
    TO_ICE,
    attributes_of,
    on_stream,
    relay,
    rows,
    sent,
    settled,
    tell_no_heads,
)


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def revoke(pair: Pair) -> None:
    """Let ICE revoke the key that it signs with, and HHS know of it."""
    await rotation.revoke_signing_key(
        pair.ice, None, since=None, actor="tester", reason="laptop stolen"
    )
    await trust(pair.hhs, pair.ice)


_ANSWERED = """
SELECT count(*) FROM renewed AS r JOIN sent AS s ON s.message_id = r.renewed_as
WHERE s.answer = 'receipt'
"""


async def test_what_a_revoked_key_signed_is_refused_and_goes_again_under_new_ids(
    pair: Pair,
) -> None:
    stolen = pair.ice.ring.signing
    taken, lost = a_notice(), a_notice()
    entries = await sent(pair, taken, lost)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    # HHS took the first, and its receipt did not come back before the key was stolen.
    await delivery.take(entries[:1])

    await revoke(pair)

    assert pair.ice.ring.signing.kid != stolen.kid
    assert pair.ice.ring.prepared is None
    async with pair.running():
        await until(lambda: everything_answered(pair, 2), "receipts of what went again")
        await until(lambda: no_gap(pair), "the gap closed")
    await delivery.take(entries[1:])

    assert await rows(pair.hhs, "SELECT DISTINCT cause, state, authentic FROM dead_letter") == [
        ("NB-3180", "refused", False)
    ]
    first, second = pair.hhs_noted.taken
    assert (first.message_id, first.notice_id) == (taken.message_id, taken.notice_id)
    assert second.notice_id == lost.notice_id
    assert second.attributes.causationid == lost.message_id
    assert second.attributes.commitment == lost.commitment
    renewed = dict(await rows(pair.ice, "SELECT message_id, renewed_as FROM renewed"))
    assert renewed[lost.message_id] == second.message_id
    former = "SELECT answer, answer_code FROM sent WHERE message_id = ANY(%s) ORDER BY sequence"
    assert await rows(pair.ice, former, list(renewed)) == [("receipt", None), ("void", "NB-3183")]
    results = await rows(
        pair.hhs,
        "SELECT convert_from(record, 'UTF8')::jsonb ->> 'result' FROM record"
        " WHERE action = 'message.received' ORDER BY record_id",
    )
    assert sorted(result for (result,) in results) == ["repeated", "taken", "taken"]
    # Nobody has to act: what is void came again.
    assert await rows(pair.hhs, "SELECT code FROM alarm WHERE code = 'NB-5021'") == []
    assert await rows(pair.ice, "SELECT code FROM alarm WHERE code LIKE 'NB-50%%'") == []
    # Effects are only noted here, so nothing but `sent` is there to be made again.
    made_again = await shadow(pair.ice.store, "ice")
    assert [each for each in made_again.differences if each.table == "sent"] == []


async def everything_answered(pair: Pair, number: int) -> bool:
    return await value(pair.ice, _ANSWERED) == number


async def no_gap(pair: Pair) -> bool:
    return await value(pair.hhs, "SELECT count(*) FROM gap") == 0


async def test_what_is_held_waits_in_its_new_message_and_corrections_keep_their_cause(
    pair: Pair,
) -> None:
    first = a_notice()
    held = a_notice(first.notice_id, revision=2)
    one, two = await sent(pair, first, held)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    await delivery.take([two])
    assert await value(pair.hhs, "SELECT state FROM inbox WHERE kind = 'fta'") == "held"

    await revoke(pair)
    await relay(pair.ice, LIVE)
    again = [e for e in await on_stream(pair, LIVE) if e.jws not in (one.jws, two.jws)]
    await delivery.take(again[1:])
    await delivery.take(again[:1])
    while await apply_held(pair.hhs, pair.hhs_noted):
        pass

    assert [(t.revision, t.attributes.causationid) for t in pair.hhs_noted.taken] == [
        (1, first.message_id),
        (2, held.message_id),
    ]
    assert await value(pair.hhs, "SELECT count(*) FROM inbox WHERE state = 'held'") == 0


async def test_answers_that_were_not_read_are_told_again_under_the_new_key(pair: Pair) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running(ice=("relay",)):
        await until(lambda: receipts_out(pair), "HHS's receipts on the bus")
    before = await on_stream(pair, TO_ICE)

    done = await rotation.revoke_signing_key(
        pair.hhs, None, since=None, actor="tester", reason="stolen"
    )
    await trust(pair.ice, pair.hhs)

    assert done.control >= 1
    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt under the new key")
    causes = {attributes_of(entry).id for entry in before}
    told = [a for a in map(attributes_of, await on_stream(pair, TO_ICE)) if a.kind == "receipts"]
    assert any(each.causationid in causes for each in told)
    assert len(pair.hhs_noted.taken) == 1


async def receipts_out(pair: Pair) -> bool:
    entries = await on_stream(pair, TO_ICE)
    return any(attributes_of(entry).kind == "receipts" for entry in entries)


async def test_only_a_key_of_ours_is_revoked_once_and_from_a_moment_that_has_been(
    pair: Pair, tmp_path: Path
) -> None:
    former = pair.ice.ring.signing.kid
    await seen.tell(pair.ice, tmp_path / "seen", since=None, actor="tester")
    seen.check(tmp_path / "seen", pair.hhs.ring, pair.hhs.directory, peer="ice")
    await rotation.rotate_signing_key(pair.ice, actor="tester")
    current = pair.ice.ring.signing.kid
    made = pair.ice.ring.key_made_at[former]
    at = datetime.now(UTC)

    for text in ("?", "", former[:1], current[:3]):
        with pytest.raises(NotFoundError, match="NB-3184"):
            await rotation.revoke_signing_key(pair.ice, text, since=None, actor="t", reason="r")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(RejectedError, match="NB-3186"):
        await rotation.revoke_signing_key(pair.ice, former, since=tomorrow, actor="t", reason="r")
    before = made - timedelta(seconds=2)
    with pytest.raises(RejectedError, match="NB-3250") as found:
        await rotation.revoke_signing_key(pair.ice, former, since=before, actor="t", reason="r")
    assert found.value.where["there"] == format_time(made.replace(microsecond=0))
    await rotation.revoke_signing_key(pair.ice, former[:9], since=at, actor="t", reason="r")
    with pytest.raises(ConflictError, match="NB-3185"):
        await rotation.revoke_signing_key(pair.ice, former, since=None, actor="t", reason="r")

    assert pair.ice.ring.signing.kid == current, "a former key ends, the one in use goes on"
    await trust(pair.hhs, pair.ice)
    [revoked] = [e.revoked for e in pair.hhs.directory.endings.values()]
    assert revoked is not None
    assert (revoked.kid, revoked.at) == (former, at)
    assert set(pair.hhs.directory.endings) == {former}
    with pytest.raises(EvidenceError, match="NB-3062"):
        seen.check(tmp_path / "seen", pair.hhs.ring, pair.hhs.directory, peer="ice")


async def test_as_evidence_a_revoked_key_counts_for_what_the_peer_had_cosigned_before(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundle, verify.py and ledger verify say the same of old, recent and forged messages."""
    old, recent = a_notice(), a_notice()
    async with pair.running():
        await accept(pair.ice, old)
        await until(lambda: answered(pair.ice, [old]), "the receipt")
        await until(lambda: settled(pair), "both cosigned")
        # A cosignature tells whole seconds, and the one in which a key was stolen is too late.
        times = [
            await value(each, "SELECT max(cosigned_at) FROM cosignature")
            for each in (pair.ice, pair.hhs)
        ]
        last = max(each for each in times if isinstance(each, datetime))
        stolen_at = last.replace(microsecond=0) + timedelta(seconds=1)
        await until(lambda: later_than(stolen_at), "the second is over")
        # What ICE cosigned after that, before HHS learns of the theft, would be disputed.
        await tell_no_heads(pair)
        await accept(pair.ice, recent)
        await until(lambda: answered(pair.ice, [recent]), "the receipt")
    kid = pair.ice.ring.signing.kid
    await rotation.revoke_signing_key(pair.ice, None, since=stolen_at, actor="t", reason="stolen")
    await trust(pair.hhs, pair.ice)
    async with pair.running(ice=("sealer",), hhs=("sealer",)):
        await until(lambda: all_sealed(pair), "all sealed")

    for agency in (pair.ice, pair.hhs):
        assert old.notice_id is not None
        assert recent.notice_id is not None
        # What was cosigned before counts, though its key is revoked now.
        before = await members_of(agency, tmp_path, old.notice_id)
        place = f"notices/{old.notice_id}"
        assert f"{place}/messages/{old.message_id}.jws" in before
        assert ours(before) is None
        verdict = run_verify(written(tmp_path, before))
        assert verdict.code == 0, verdict.out
        assert f"the key {kid} COUNTS FOR NOTHING since" in verdict.out
        assert "its key was revoked later; a checkpoint cosigned before covers it" in verdict.out
        # What came after that is left out of an honest bundle, which says so.
        after = await members_of(agency, tmp_path, recent.notice_id)
        said = parse(after[f"notices/{recent.notice_id}/evidence.json"])
        assert (said["messages"], said["left_out"]) == ([], [str(recent.message_id)])
        assert b"Left out: 1 message under a key that had ended" in after["report.txt"]
        assert ours(after) is None
        assert run_verify(written(tmp_path, after)).code == 0
        # In a dishonest one it is refused by both programs, by name.
        with monkeypatch.context() as patch:
            patch.setattr(Counting, "divide", all_count)
            patch.setattr(building, "check", lambda _: None)
            dishonest = await members_of(agency, tmp_path, recent.notice_id)
        name = f"notices/{recent.notice_id}/messages/{recent.message_id}.jws"
        verdict = run_verify(written(tmp_path, dishonest))
        assert verdict.code == 6, verdict.out
        assert name in verdict.last
        assert "was revoked" in verdict.last
        assert name in str(ours(dishonest))

        contents = await verify_contents(agency.store)
        assert contents.difference is None
        assert (contents.not_evidence, contents.disputed) == (1, ())


async def all_count(
    _: Counting, tx: Transaction, messages: Sequence[Message]
) -> tuple[list[Message], list[Message]]:
    """Divide as a maker who cheats: everything counts."""
    return list(messages), []


async def later_than(moment: datetime) -> bool:
    return datetime.now(UTC) > moment + timedelta(milliseconds=50)


async def all_sealed(pair: Pair) -> bool:
    waiting = [await value(a, "SELECT count(*) FROM unsealed") for a in (pair.ice, pair.hhs)]
    return waiting == [0, 0]
