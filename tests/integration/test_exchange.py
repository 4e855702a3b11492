"""A message's way between two agencies, on real Redis and PostgreSQL: the ten guarantees."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.envelope import Lane
from schemas.errors import RejectedError
from services.bus import Publisher
from services.exchange.effects import Taken
from services.exchange.held import apply_held
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value

LIVE = "{ice.hhs.live.0}:out"
CONTROL = "{hhs.ice.control.0}:out"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def test_a_notice_is_taken_once_and_its_receipt_is_verified(pair: Pair) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)

    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")

    assert [taken.message_id for taken in pair.hhs_noted.taken] == [draft.message_id]
    assert [answer.message_id for answer in pair.ice_noted.answers] == [draft.message_id]
    assert await value(pair.hhs, "SELECT state FROM inbox") == "applied"
    assert await value(pair.ice, "SELECT answer_index IS NOT NULL FROM sent WHERE kind = 'fta'")


async def test_a_backlog_of_both_lanes_is_answered_completely(pair: Pair) -> None:
    drafts = [a_notice(lane=Lane.BACKLOG if n % 2 else Lane.LIVE) for n in range(1_200)]
    await accept(pair.ice, *drafts)

    async with pair.running():
        await until(lambda: answered(pair.ice, drafts), "every receipt")

    assert len(pair.hhs_noted.taken) == len({t.message_id for t in pair.hhs_noted.taken}) == 1_200
    assert await value(pair.hhs, "SELECT count(*) FROM gap") == 0


async def test_a_duplicate_has_one_effect_and_is_answered_with_the_stored_answer(
    pair: Pair,
) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")
        size = await value(pair.hhs, "SELECT count(*) FROM record")
        before = await entries(pair, CONTROL)

        await again(pair, LIVE, draft.message_id)
        await until(lambda: more_entries(pair, CONTROL, before), "the stored answer")

    answers = await stream_bytes(pair, CONTROL)
    assert answers[-1] in answers[:-1]
    assert len(pair.hhs_noted.taken) == 1
    assert await value(pair.hhs, "SELECT count(*) FROM record") == size


async def test_a_revision_that_overtakes_waits_for_the_one_before(pair: Pair) -> None:
    notice_id = uuid7()
    first = a_notice(notice_id, lane=Lane.BACKLOG)
    second = a_notice(notice_id, revision=2, lane=Lane.LIVE)
    third = a_notice(notice_id, revision=3, lane=Lane.LIVE)
    await accept(pair.ice, third, second)
    async with pair.running():
        await until(lambda: answered(pair.ice, [second, third]), "receipts of what is held")
        assert await value(pair.hhs, "SELECT count(*) FROM inbox WHERE state = 'held'") == 2
        assert pair.hhs_noted.taken == []

        await accept(pair.ice, first)
        await until(lambda: answered(pair.ice, [first]), "the first revision's receipt")
        await until(lambda: none_held(pair), "the held revisions")

    assert [taken.revision for taken in pair.hhs_noted.taken] == [1, 2, 3]
    assert await value(pair.hhs, "SELECT revision FROM applied") == 3


async def test_a_gap_is_seen_asked_for_and_filled(pair: Pair) -> None:
    drafts = [a_notice() for _ in range(5)]
    await accept(pair.ice, *drafts)
    async with pair.running(hhs=()):
        await until(lambda: is_(pair, 5, "SELECT published FROM stream_out WHERE lane='live'"), "5")
    await drop(pair, LIVE, positions=(1, 2))

    async with pair.running():
        await until(lambda: answered(pair.ice, drafts), "every receipt")

    assert len(pair.hhs_noted.taken) == 5
    assert await value(pair.hhs, "SELECT count(*) FROM gap") == 0
    assert await value(pair.hhs, "SELECT count(*) FROM record WHERE action = 'gap.found'") == 1


@pytest.mark.parametrize("lost", ["FLUSHALL", "XGROUP"])
async def test_what_the_bus_lost_goes_again_from_the_store(pair: Pair, lost: str) -> None:
    drafts = [a_notice() for _ in range(40)]
    await accept(pair.ice, *drafts[:20])
    async with pair.running():
        await until(lambda: answered(pair.ice, drafts[:20]), "the first receipts")
        await accept(pair.ice, *drafts[20:])
        async with bus(pair) as publisher:
            if lost == "FLUSHALL":
                await publisher.client.flushall()
            else:
                await publisher.client.xgroup_destroy(LIVE, "hhs")
        await until(lambda: answered(pair.ice, drafts), "every receipt")

    assert len({taken.message_id for taken in pair.hhs_noted.taken}) == 40
    assert len(pair.hhs_noted.taken) == 40


async def test_lost_receipts_are_made_good(pair: Pair) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running(ice=("relay", "sealer")):
        await until(lambda: more_entries(pair, CONTROL, 0), "the receipts")
        await drop(pair, CONTROL, positions=(0,))

    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")

    assert len(pair.hhs_noted.taken) == 1
    assert await value(pair.ice, "SELECT count(*) FROM record WHERE action = 'answer.overdue'") == 1


async def test_what_can_never_be_applied_is_refused_and_the_rest_goes_on(pair: Pair) -> None:
    drafts = [a_notice() for _ in range(10)]
    poison = drafts[4]

    def fail(message: Taken) -> Exception | None:
        wrong = message.message_id == poison.message_id
        return RejectedError("NB-2100", kind="fta", field="test", rule="fails") if wrong else None

    pair.hhs_noted.fail = fail
    good = [draft for draft in drafts if draft is not poison]
    await accept(pair.ice, *drafts)
    async with pair.running():
        await until(lambda: answered(pair.ice, good), "the others' receipts")
        await until(lambda: is_(pair, "refusal", ANSWER, poison.message_id, side="ice"), "refusal")

    assert await value(pair.hhs, "SELECT cause FROM dead_letter WHERE state = 'open'") == "NB-2100"
    assert await value(pair.ice, "SELECT answer_code FROM sent WHERE answer = 'refusal'")
    assert await value(pair.hhs, "SELECT count(*) FROM gap") == 0


async def test_what_fails_alone_is_set_aside_after_its_attempts(pair: Pair) -> None:
    drafts = [a_notice() for _ in range(6)]
    poison = drafts[2]
    pair.hhs_noted.fail = lambda message: (
        ValueError("a bug") if message.message_id == poison.message_id else None
    )
    await accept(pair.ice, *drafts)

    async with pair.running():
        await until(lambda: is_(pair, "refusal", ANSWER, poison.message_id, side="ice"), "refusal")
        await until(
            lambda: answered(pair.ice, [d for d in drafts if d is not poison]), "the others"
        )

    assert await value(pair.hhs, "SELECT cause FROM dead_letter") == "NB-2110"
    assert await value(pair.hhs, "SELECT max(number) FROM attempt") == 5
    assert await value(pair.hhs, "SELECT count(*) FROM attempt") == 5


async def test_the_window_bounds_what_is_unanswered(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    relay = {"window_max": 50, "poll_seconds": 0.2, "answer_seconds": 60}
    async with two_agencies(home, database, redis_url, relay=relay) as pair:
        drafts = [a_notice() for _ in range(120)]
        await accept(pair.ice, *drafts)
        async with pair.running(hhs=()):
            await until(
                lambda: is_(pair, 51, "SELECT next_sequence FROM stream_out WHERE lane = 'live'"),
                "a full window",
            )
            assert await entries(pair, LIVE) == 50
            assert await value(pair.ice, "SELECT count(*) FROM outbox") == 70
        async with pair.running():
            await until(lambda: answered(pair.ice, drafts), "every receipt")


async def test_applying_what_is_held_needs_nothing_held(pair: Pair) -> None:
    assert await apply_held(pair.hhs, pair.hhs_noted) == 0


ANSWER = "SELECT answer FROM sent WHERE message_id = %s"


def bus(pair: Pair):  # type: ignore[no-untyped-def]  # an async context manager of Publisher
    return Publisher.open(pair.redis_url, settings=pair.ice.settings.bus)


async def is_(
    pair: Pair, expected: object, query: str, *arguments: object, side: str = "ice"
) -> bool:
    return await value(pair.ice if side == "ice" else pair.hhs, query, *arguments) == expected


async def none_held(pair: Pair) -> bool:
    return await value(pair.hhs, "SELECT count(*) FROM inbox WHERE state = 'held'") == 0


async def entries(pair: Pair, stream: str) -> int:
    async with bus(pair) as publisher:
        return int(await publisher.length(stream))


async def more_entries(pair: Pair, stream: str, before: int) -> bool:
    return await entries(pair, stream) > before


async def stream_bytes(pair: Pair, stream: str) -> list[bytes]:
    async with bus(pair) as publisher:
        return [fields[b"jws"] for _, fields in await publisher.client.xrange(stream)]


async def drop(pair: Pair, stream: str, *, positions: tuple[int, ...]) -> None:
    async with bus(pair) as publisher:
        found = await publisher.client.xrange(stream)
        await publisher.client.xdel(stream, *(found[at][0] for at in positions))


async def again(pair: Pair, stream: str, message_id: UUID) -> None:
    """Put the stored bytes of a message on its stream once more, as a relay would."""
    envelope = await value(
        pair.ice, "SELECT envelope FROM envelope WHERE message_id = %s", message_id
    )
    assert isinstance(envelope, bytes)
    async with bus(pair) as publisher:
        await publisher.publish(stream, [envelope])
