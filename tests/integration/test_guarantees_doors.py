"""Guarantees 7 and 9: what cannot be taken is set aside at once, whoever signed it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from schemas.envelope import Kind, Lane
from schemas.errors import ConflictError
from schemas.reply import Resend
from services.exchange import dead
from services.exchange.process import delivery_of
from services.exchange.unauthenticated import record_ended_minutes
from tests.agencies import Pair, a_notice, trust, two_agencies, value
from tests.steps import (
    LIVE,
    TO_HHS,
    TO_ICE,
    attributes_of,
    change,
    forged,
    on_stream,
    relay,
    rotate,
    rows,
    said,
    sent,
)

ASK = Resend(stream=TO_ICE, generation=1, first=1, last=1)


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


def unsigned(jws: bytes, _: bytes) -> bytes:
    return jws.rpartition(b".")[0] + b"."


def signed_for_another(jws: bytes, other: bytes) -> bytes:
    return jws.rpartition(b".")[0] + b"." + other.rpartition(b".")[2]


@pytest.mark.parametrize("damage", [unsigned, signed_for_another])
async def test_what_its_sender_did_not_sign_is_refused_recorded_and_never_redriven(
    pair: Pair, damage: Callable[[bytes, bytes], bytes]
) -> None:
    entry, other = await sent(pair, a_notice(), a_notice())
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    await delivery.take([replace(entry, jws=damage(entry.jws, other.jws))])

    (letter,) = await dead.listed(pair.hhs, state="refused")
    with pytest.raises(ConflictError, match="refused"):
        await dead.redrive(delivery, letter, actor="clerk", reason="try")
    await nothing_taken(pair)
    await change(pair.hhs, "UPDATE unauthenticated SET minute = minute - interval '1 minute'")
    await record_ended_minutes(pair.hhs)
    assert await value(pair.hhs, "SELECT count(*) FROM record WHERE action = 'entries.refused'")


@pytest.mark.parametrize(
    "elsewhere", [{"lane": Lane.BACKLOG}, {"partition": 1}, {"recipient": "ice"}]
)
async def test_what_was_signed_for_elsewhere_is_refused_on_the_stream_where_it_lies(
    pair: Pair, elsewhere: dict[str, object]
) -> None:
    (entry,) = await sent(pair, a_notice())
    attributes = replace(attributes_of(entry), **elsewhere)  # type: ignore[arg-type]  # any of them
    moved = replace(forged(pair, attributes), stream=LIVE)

    await delivery_of(pair.hhs, pair.hhs_noted).take([moved])

    assert await value(pair.hhs, "SELECT state FROM dead_letter") == "refused"
    await nothing_taken(pair)


async def nothing_taken(pair: Pair) -> None:
    assert pair.hhs_noted.taken == []
    assert await value(pair.hhs, "SELECT count(*) FROM inbox") == 0
    assert await value(pair.hhs, "SELECT count(*) FROM gap") == 0


async def test_a_broken_message_in_the_place_of_another_is_set_aside_at_once(pair: Pair) -> None:
    (entry,) = await sent(pair, a_notice())
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    await delivery.take([entry])
    attributes = attributes_of(entry)

    await delivery.take([forged(pair, replace(attributes, id=uuid7()), b"{}")])
    await delivery.take([forged(pair, attributes, b"{}")])

    causes = await rows(pair.hhs, "SELECT cause, state FROM dead_letter ORDER BY cause")
    assert causes == [("NB-2151", "refused"), ("NB-2152", "refused")]
    assert len(pair.hhs_noted.taken) == 1


async def test_a_control_message_in_the_place_of_another_is_set_aside_at_once(pair: Pair) -> None:
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    first = said(pair.ice, Kind.RESEND, ASK)
    other = ASK.model_copy(update={"last": 2})

    await delivery.take([first, said(pair.ice, Kind.RESEND, other)])

    assert await value(pair.hhs, "SELECT cause FROM dead_letter") == "NB-2152"
    assert await value(pair.hhs, "SELECT count(*) FROM alarm WHERE code = 'NB-2152'") == 1
    assert await value(pair.hhs, "SELECT count(*) FROM inbox") == 1


async def test_a_dead_control_message_that_is_taken_after_all_is_dead_no_more(pair: Pair) -> None:
    await rotate(pair)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    await delivery.take([said(pair.ice, Kind.RESEND, ASK)])
    (letter,) = await dead.listed(pair.hhs)
    assert letter.stream == TO_HHS

    await trust(pair.hhs, pair.ice)
    redriven = await dead.redrive(delivery, letter, actor="clerk", reason="trusted now")

    assert redriven.state == "redriven"
    assert await dead.listed(pair.hhs) == []


async def test_a_refusal_for_an_unknown_key_is_said_again_when_the_message_comes_again(
    pair: Pair,
) -> None:
    await rotate(pair)
    entries = await sent(pair, a_notice())
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    await delivery.take(entries)
    await relay(pair.hhs, TO_ICE)
    await delivery.take(entries)
    await relay(pair.hhs, TO_ICE)

    first, again = await on_stream(pair, TO_ICE)
    assert again.jws == first.jws
    await delivery_of(pair.ice, pair.ice_noted).take([again])
    assert await value(pair.ice, "SELECT answer_code FROM sent WHERE kind = 'fta'") == "NB-2010"


async def test_a_dead_letter_that_is_still_wrong_says_what_is_wrong_now(pair: Pair) -> None:
    (good,) = await sent(pair, a_notice())
    await rotate(pair)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    await delivery.take([forged(pair, attributes_of(good), b"{}")])
    (letter,) = await dead.listed(pair.hhs)

    await trust(pair.hhs, pair.ice)
    redriven = await dead.redrive(delivery, letter, actor="clerk", reason="trusted now")

    assert (redriven.state, redriven.cause) == ("open", "NB-2100")
    (after,) = await dead.listed(pair.hhs)
    assert (after.cause, after.authentic) == ("NB-2100", True)
    assert await value(pair.hhs, "SELECT state FROM inbox") == "refused"
    assert await value(pair.hhs, "SELECT count(*) FROM outbox WHERE kind = 'refusal'") == 2
    # The same again is nothing new to its sender, and no arrival.
    await dead.redrive(delivery, letter, actor="clerk", reason="once more")
    assert await value(pair.hhs, "SELECT count(*) FROM outbox WHERE kind = 'refusal'") == 2
    assert await value(pair.hhs, "SELECT arrivals FROM dead_letter") == 1
