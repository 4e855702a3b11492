"""What a recipient asks for: what did not arrive, and nothing that lies here set aside."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from schemas.canonical import parse
from schemas.errors import RejectedError
from services.bus import Entry
from services.exchange import dead, gaps
from services.exchange.aside import set_aside_unauthenticated
from services.exchange.process import delivery_of
from tests.agencies import Pair, a_notice, two_agencies
from tests.steps import change, rows, sent


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def arrived(pair: Pair, messages: int, *, unknown: set[int]) -> list[Entry]:
    """Let the first and last of a stream's messages be taken, some lie under an unknown key."""
    entries = await sent(pair, *(a_notice() for _ in range(messages)))
    await delivery_of(pair.hhs, pair.hhs_noted).take([entries[0], entries[-1]])
    error = RejectedError("NB-2010", kid="another")
    await set_aside_unauthenticated(pair.hhs, [(entries[n - 1], error) for n in sorted(unknown)])
    await change(pair.hhs, "UPDATE gap SET detected_at = detected_at - interval '1 hour'")
    return entries


async def asked(pair: Pair) -> list[tuple[int, int]]:
    """Let HHS ask for what it misses; returns the ranges of its requests."""
    await change(pair.hhs, "DELETE FROM outbox")
    await gaps.ask(pair.hhs)
    bodies = [
        parse(body)
        for (body,) in await rows(
            pair.hhs, "SELECT body FROM outbox WHERE kind = 'resend' ORDER BY position"
        )
    ]
    return [(body["first"], body["last"]) for body in bodies]


async def test_a_gap_that_lies_here_as_dead_letters_is_not_asked_for(pair: Pair) -> None:
    await arrived(pair, 6, unknown={2, 3, 4, 5})

    assert await asked(pair) == []
    await change(pair.hhs, "UPDATE gap SET asked = 3, asked_at = detected_at")
    assert await asked(pair) == []


async def test_of_a_gap_only_what_is_not_here_is_asked_for(pair: Pair) -> None:
    await arrived(pair, 9, unknown={3, 4, 7})

    assert await asked(pair) == [(2, 2), (5, 6), (8, 8)]
    assert await asked(pair) == []


async def test_what_a_person_gave_up_is_not_asked_for_except_as_forged(pair: Pair) -> None:
    await arrived(pair, 5, unknown={2, 3, 4})
    letters = dict(await rows(pair.hhs, "SELECT sequence, dead_id FROM dead_letter"))
    for sequence, code in ((2, "TEST"), (3, "FORGED")):
        await dead.discard(
            pair.hhs, [letters[sequence]], code=code, reason="said so", actor="clerk"
        )

    assert await asked(pair) == [(3, 3)]


async def test_what_is_being_tried_is_not_asked_for(pair: Pair) -> None:
    entries = await arrived(pair, 5, unknown=set())
    for entry in entries[1:4]:
        await delivery_of(pair.hhs, pair.hhs_noted).failed(entry, ValueError("a bug"))

    assert await asked(pair) == []
    await change(pair.hhs, "UPDATE attempt SET failed_at = failed_at - interval '1 hour'")
    assert await asked(pair) == [(2, 4)]


async def test_requests_made_in_one_go_are_bounded(pair: Pair) -> None:
    await arrived(pair, 251, unknown=set(range(3, 250, 2)))

    assert len(await asked(pair)) == 100
