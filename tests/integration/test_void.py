"""What a sender cannot provide any more is declared void: signed, on record on both sides, seen."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.envelope import Kind
from schemas.errors import RejectedError
from schemas.reply import Resend, Void
from services.exchange.process import delivery_of
from services.exchange.resending import provide
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.steps import (
    LIVE,
    TO_HHS,
    TO_ICE,
    bus,
    change,
    on_stream,
    relay,
    rows,
    said,
    sent,
    upkeep,
)

GAPS = "SELECT first_sequence, last_sequence FROM gap ORDER BY 1"
ALARM = "SELECT count(*) FROM alarm WHERE code = %s AND cleared_at IS NULL"
FORGET_BYTES = (
    "DELETE FROM envelope WHERE message_id IN"
    " (SELECT message_id FROM sent WHERE stream = %s AND sequence BETWEEN %s AND %s)"
)


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def ask(pair: Pair, first: int, last: int, *, generation: int = 1, sequence: int = 1) -> None:
    """Let HHS ask ICE for a range of the live stream."""
    resend = Resend(stream=LIVE, generation=generation, first=first, last=last)
    entry = said(pair.hhs, Kind.RESEND, resend, sequence=sequence)
    await delivery_of(pair.ice, pair.ice_noted).take([entry])


async def voids(pair: Pair) -> list[tuple[int, int]]:
    """Return what ICE declared void, as it stands in its store."""
    found = await rows(pair.ice, "SELECT first_sequence, last_sequence FROM voided ORDER BY 1")
    return [(first, last) for first, last in found]


async def test_a_gap_whose_bytes_the_sender_lost_is_closed_by_its_void(pair: Pair) -> None:
    """The whole way, with both sides' processes: the recipient asks, the sender says void."""
    drafts = [a_notice() for _ in range(6)]
    await sent(pair, *drafts)
    async with bus(pair.ice) as publisher:
        found: Any = await publisher.client.xrange(LIVE)
        await publisher.client.xdel(LIVE, *(found[at][0] for at in (1, 2, 3)))
    await change(pair.ice, FORGET_BYTES, LIVE, 2, 3)
    there = [drafts[at] for at in (0, 3, 4, 5)]

    async with pair.running():
        await until(lambda: answered(pair.ice, there), "the receipts of what is there")
        await until(lambda: no_gap(pair), "the end of the gap")

    assert await voids(pair) == [(2, 3)]
    assert await rows(pair.hhs, "SELECT first_sequence, last_sequence, code FROM voided") == [
        (2, 3, "NB-5020")
    ]
    answers = "SELECT sequence, answer, answer_code FROM sent WHERE answer = 'void' ORDER BY 1"
    assert await rows(pair.ice, answers) == [(2, "void", "NB-5020"), (3, "void", "NB-5020")]
    for agency, code, action in (
        (pair.ice, "NB-5020", "void.declared"),
        (pair.hhs, "NB-5021", "gap.voided"),
    ):
        assert await value(agency, ALARM, code) == 1
        records = "SELECT count(*) FROM record WHERE action = %s"
        assert await value(agency, records, action) == 1


async def test_what_the_bus_lost_too_is_void_without_being_asked_for(pair: Pair) -> None:
    """Above the highest that arrived no gap would ever be seen."""
    await sent(pair, *(a_notice() for _ in range(4)))
    await change(pair.ice, FORGET_BYTES, LIVE, 3, 4)
    async with bus(pair.ice) as publisher:
        await publisher.client.flushall()

    await upkeep(pair.ice)
    await relay(pair.ice, LIVE)

    assert len(await on_stream(pair, LIVE)) == 2
    assert await voids(pair) == [(3, 4)]
    assert await value(pair.ice, "SELECT count(*) FROM sent WHERE answer IS NULL") == 2
    await upkeep(pair.ice)
    assert await voids(pair) == [(3, 4)]


async def test_asked_again_the_same_void_is_told_in_the_same_bytes(pair: Pair) -> None:
    await sent(pair, *(a_notice() for _ in range(5)))
    await change(pair.ice, FORGET_BYTES, LIVE, 2, 3)
    await ask(pair, 2, 3)
    await relay(pair.ice, TO_HHS)

    await ask(pair, 1, 4, sequence=2)
    await relay(pair.ice, TO_HHS)

    first, again = await on_stream(pair, TO_HHS)
    assert again.jws == first.jws
    assert await voids(pair) == [(2, 3)]
    assert await rows(pair.ice, "SELECT sequence FROM republish ORDER BY 1") == [(1,), (4,)]


async def test_only_what_was_not_declared_before_is_declared(pair: Pair) -> None:
    await sent(pair, *(a_notice() for _ in range(6)))
    await change(pair.ice, FORGET_BYTES, LIVE, 3, 3)
    await ask(pair, 3, 3)
    await change(pair.ice, FORGET_BYTES, LIVE, 2, 5)

    await ask(pair, 2, 5, sequence=2)

    assert await voids(pair) == [(2, 2), (3, 3), (4, 5)]


async def test_what_was_never_numbered_is_not_void_and_alarms(pair: Pair) -> None:
    await sent(pair, a_notice(), a_notice())

    await ask(pair, 2, 9)
    await ask(pair, 4, 9, sequence=2)
    await ask(pair, 1, 1, generation=2, sequence=3)

    assert await voids(pair) == []
    assert await value(pair.ice, ALARM, "NB-5022") == 1
    assert await rows(pair.ice, "SELECT sequence FROM republish") == [(2,)]
    await accept(pair.ice, a_notice())
    await relay(pair.ice, LIVE)
    assert await value(pair.ice, "SELECT max(sequence) FROM sent WHERE stream = %s", LIVE) == 3


async def test_of_an_earlier_generation_all_that_is_not_here_is_void(pair: Pair) -> None:
    """A restored ledger begins a new generation: what the lost one sent can never be sent again."""
    await sent(pair, a_notice(), a_notice())
    await change(pair.ice, "UPDATE stream_out SET generation = 2, next_sequence = 1, published = 0")

    await ask(pair, 2, 40)

    assert await voids(pair) == [(3, 40)]
    assert await value(pair.ice, "SELECT generation FROM voided") == 1


async def test_a_request_for_a_stream_that_is_not_ours_does_nothing(pair: Pair) -> None:
    resend = Resend(stream=TO_ICE, generation=1, first=1, last=5)

    await delivery_of(pair.ice, pair.ice_noted).take([said(pair.hhs, Kind.RESEND, resend)])

    assert await voids(pair) == []
    assert await value(pair.ice, "SELECT count(*) FROM record WHERE action = 'resend.asked'") == 1


async def test_a_void_for_a_stream_that_its_sender_does_not_write_is_set_aside(pair: Pair) -> None:
    void = Void(stream=TO_ICE, generation=1, first=1, last=5, code="NB-5020", at=datetime.now(UTC))

    await delivery_of(pair.hhs, pair.hhs_noted).take([said(pair.ice, Kind.VOID, void)])

    assert await value(pair.hhs, "SELECT cause FROM dead_letter") == "NB-5023"
    assert await value(pair.hhs, "SELECT count(*) FROM voided") == 0
    assert RejectedError("NB-5023", stream=TO_ICE).sentence


async def test_a_receipt_that_still_comes_counts_for_more_than_the_void(pair: Pair) -> None:
    draft = a_notice()
    await sent(pair, draft)
    await change(pair.ice, FORGET_BYTES, LIVE, 1, 1)
    async with pair.ice.store.transaction() as tx:
        resend = Resend(stream=LIVE, generation=1, first=1, last=1)
        await provide(tx, resend, now=datetime.now(UTC))
    assert await value(pair.ice, "SELECT answer FROM sent WHERE stream = %s", LIVE) == "void"

    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt of what did arrive")


@pytest.mark.parametrize("last", [2, 2**52])
async def test_a_gap_that_the_sender_declares_void_is_waited_for_no_longer(
    pair: Pair, last: int
) -> None:
    entries = await sent(pair, *(a_notice() for _ in range(4)))
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    await delivery.take([entries[0], entries[3]])
    assert await rows(pair.hhs, "SELECT first_sequence, last_sequence FROM gap") == [(2, 3)]
    now = datetime.now(UTC)
    void = Void(stream=LIVE, generation=1, first=2, last=last, code="NB-6001", at=now)

    await delivery.take([said(pair.ice, Kind.VOID, void)])

    left = [] if last > 3 else [(3, 3)]
    assert await rows(pair.hhs, "SELECT first_sequence, last_sequence FROM gap") == left
    assert await value(pair.hhs, "SELECT count(*) FROM record WHERE action = 'gap.voided'") == 1


async def no_gap(pair: Pair) -> bool:
    taken = await value(pair.hhs, "SELECT max(highest) FROM stream_in WHERE stream = %s", LIVE)
    return taken == 6 and await rows(pair.hhs, GAPS) == []
