"""Receipts that are told again under a new id are believed for what they prove, not for saying so.

After a revocation they come under later sequences than receipts of a larger log. A log that went
back looks the same, so what is told again has to be known, shown by what was believed, or proven to
be the beginning of a log that is no smaller.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from schemas.canonical import canonical, parse
from schemas.envelope import Kind, read
from services.bus import Entry
from services.exchange import rotation
from services.exchange.process import delivery_of
from services.ledger.records import make_record
from services.ledger.store import append
from tests.agencies import Pair, a_notice, accept, trust, two_agencies, until, value
from tests.steps import (
    LIVE,
    TO_ICE,
    attributes_of,
    is_sealed,
    on_stream,
    receipts,
    received,
    relay,
    rows,
    said,
    sent,
)

Records = list[dict[str, Any]]


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


@pytest.fixture
async def log(pair: Pair) -> Records:
    """What HHS would write: of four notices that ICE published, and of other things."""
    await accept(pair.ice, *(a_notice() for _ in range(4)))
    await relay(pair.ice, LIVE)
    known = await rows(pair.ice, "SELECT message_id, envelope_hash FROM sent ORDER BY sequence")
    answers = [received(message_id, bytes(envelope_hash)) for message_id, envelope_hash in known]
    return [*answers, *(received(uuid7(), bytes(32), action="report.made") for _ in range(4))]


async def take(pair: Pair, *entries: Entry) -> None:
    await delivery_of(pair.ice, pair.ice_noted).take(entries)


async def believed(pair: Pair) -> list[int]:
    """Return the numbers of ICE's notices that are receipted."""
    found = await rows(pair.ice, "SELECT sequence - 1 FROM sent WHERE answer = 'receipt'")
    return sorted(row[0] for row in found)


async def found_out(pair: Pair) -> tuple[list[str], list[str]]:
    """Return the codes of open conflicts, and of what was set aside."""
    conflicts = await rows(pair.ice, "SELECT code FROM conflict ORDER BY found_at")
    dead = await rows(pair.ice, "SELECT cause FROM dead_letter ORDER BY dead_id")
    return [row[0] for row in conflicts], [row[0] for row in dead]


def pick(log: Records, numbers: Sequence[int]) -> Records:
    return [log[number] for number in numbers]


async def test_a_fork_that_claims_to_be_told_again_is_a_rollback(pair: Pair, log: Records) -> None:
    true = receipts(pair.hhs, pick(log, (0, 1, 4, 5)), sequence=1)
    fork = pick(log, (0, 2, 3))
    await take(pair, true)

    # A cause is named, of nothing and of what was known; so is a fork that grew, but to less.
    for sequence, (causation, grown) in enumerate(
        [(uuid7(), ()), (attributes_of(true).id, ()), (uuid7(), fork)], 2
    ):
        told = receipts(pair.hhs, fork, sequence=sequence, causation=causation, grown=grown)
        await take(pair, told)

    assert await believed(pair) == [0, 1]
    assert await found_out(pair) == (["NB-3157"], ["NB-3157"] * 3)


async def test_what_is_known_is_told_again_as_often_as_one_likes(pair: Pair, log: Records) -> None:
    small, large = log[:1], log[:3]
    first = receipts(pair.hhs, small, sequence=1)
    await take(pair, first, receipts(pair.hhs, large, first=1, sequence=2))

    await take(pair, receipts(pair.hhs, small, sequence=3, causation=attributes_of(first).id))

    assert await found_out(pair) == ([], [])
    # Without a cause it is another thing: a log that says it has less.
    await take(pair, receipts(pair.hhs, small, sequence=4))
    assert await found_out(pair) == (["NB-3157"], ["NB-3157"])


async def test_what_was_not_read_is_believed_if_later_receipts_show_the_same_log(
    pair: Pair, log: Records
) -> None:
    """The later ones begin where these end, or before: their frontier is the tree between."""
    await take(pair, receipts(pair.hhs, log[:4], first=2, sequence=2))

    await take(pair, receipts(pair.hhs, log[:2], sequence=3, causation=uuid7()))
    assert await believed(pair) == [0, 1, 2, 3]
    assert await found_out(pair) == ([], [])

    # Another log of that size is found out, told again or under the old sequence that was missing.
    fork = pick(log, (0, 4))
    await take(pair, receipts(pair.hhs, fork, sequence=4, causation=uuid7()))
    assert await found_out(pair) == (["NB-3021"], ["NB-3021"])


async def test_a_fork_that_fills_a_gap_is_held_to_the_receipts_above_it(
    pair: Pair, log: Records
) -> None:
    await take(pair, receipts(pair.hhs, pick(log, (4, 0, 1)), first=1, sequence=2))

    await take(pair, receipts(pair.hhs, pick(log, (2,)), sequence=1))

    assert await believed(pair) == [0, 1]
    assert await found_out(pair) == (["NB-3021"], ["NB-3021"])


async def test_what_nobody_here_can_show_comes_with_the_proof_that_the_log_grew_out_of_it(
    pair: Pair, log: Records
) -> None:
    # Between the two lies what ICE was told nothing of.
    whole = pick(log, (0, 1, 4, 5, 2, 3, 6))
    await take(pair, receipts(pair.hhs, whole[:6], first=4, sequence=2))
    known = "SELECT size, sequence FROM peer_checkpoint ORDER BY size"

    told = receipts(pair.hhs, whole[:2], sequence=3, causation=uuid7(), grown=whole)
    await take(pair, told)

    assert await believed(pair) == [0, 1, 2, 3]
    assert await found_out(pair) == ([], [])
    # What it grew into is kept, and held against what comes; it gets a place with its receipts.
    assert await rows(pair.ice, known) == [(2, 3), (6, 2), (7, None)]
    await take(pair, receipts(pair.hhs, pick(log, (0, 1, 4, 5, 2, 3, 7)), sequence=4))
    assert await found_out(pair) == (["NB-3021"], ["NB-3021"])
    await take(pair, receipts(pair.hhs, whole, first=6, sequence=5))
    assert await rows(pair.ice, known) == [(2, 3), (6, 2), (7, None)], "it is in doubt"


async def test_a_proof_of_growth_has_to_hold(pair: Pair, log: Records) -> None:
    whole = log[:6]
    await take(pair, receipts(pair.hhs, whole[:5], first=4, sequence=2))
    forked = pick(log, (1, 0, 2, 3, 4, 5))
    honest = receipts(pair.hhs, whole[:2], sequence=3, causation=uuid7(), grown=whole)
    other = receipts(pair.hhs, forked[:2], sequence=3, causation=uuid7(), grown=forked)
    body, theirs = (parse(read(each.jws).payload)["data"] for each in (honest, other))

    for sequence, change in enumerate(
        ({"grown": theirs["grown"]}, {"consistency": []}, {"grown": body["checkpoint"]}), 3
    ):
        spoilt = canonical(body | change)
        await take(
            pair, said(pair.hhs, Kind.RECEIPTS, spoilt, sequence=sequence, causation=uuid7())
        )
    # It holds by itself, and what it grew into has another root here.
    await take(pair, receipts(pair.hhs, whole, first=5, sequence=8))
    await take(pair, receipts(pair.hhs, forked[:2], sequence=9, causation=uuid7(), grown=forked))

    assert await believed(pair) == []
    assert await found_out(pair) == (["NB-3021"], [*["NB-3231"] * 3, "NB-3021"])


async def test_receipts_that_were_lost_before_a_revocation_are_told_with_that_proof(
    pair: Pair,
) -> None:
    """ICE read the later receipts and not the earlier, and HHS cannot know that."""
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    for draft in (a_notice(), None, a_notice()):
        if draft is not None:
            await delivery.take(await sent(pair, draft))
        else:
            async with pair.hhs.store.transaction() as tx:
                await append(tx, [make_record("report.made", time=datetime.now(UTC))])
        async with pair.running(ice=(), hhs=("sealer",)):
            await until(lambda: is_sealed(pair.hhs), "sealed")
    await relay(pair.hhs, TO_ICE)
    lost, read_ = await on_stream(pair, TO_ICE)
    await take(pair, read_)
    assert await believed(pair) == [1]

    await rotation.revoke_signing_key(pair.hhs, None, since=None, actor="t", reason="stolen")
    size = await value(pair.hhs, "SELECT size FROM log_head")
    rests_on = "SELECT checkpoint_size FROM outbox WHERE kind = 'receipts'"
    assert await rows(pair.hhs, rests_on) == [(size,), (None,)], "the newest did not grow"
    await trust(pair.ice, pair.hhs)
    await relay(pair.hhs, TO_ICE)
    again = [each for each in await on_stream(pair, TO_ICE) if each not in (lost, read_)]
    await take(pair, *again)

    assert await believed(pair) == [0, 1]
    assert await found_out(pair) == ([], [])
    bodies = [parse(read(each.jws).payload)["data"] for each in again]
    versions = [each["schema_version"] for each in bodies if "entries" in each]
    assert versions == ["receipts/1.1", "receipts/1.0"]
