"""A message's way between two agencies, on real Redis and PostgreSQL: the ten guarantees."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.envelope import Kind, Lane
from schemas.errors import RejectedError
from services.bus import Publisher
from services.embedded import RedisServer
from services.exchange.effects import Taken
from services.exchange.held import apply_held
from services.exchange.process import Process
from services.exchange.relay import Relay
from tests.agencies import Pair, a_notice, accept, answered, running, two_agencies, until, value
from tests.steps import attributes_of, change, on_stream, relay, tell_no_heads

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
    assert await value(pair.hhs, "SELECT state FROM inbox WHERE kind = 'fta'") == "applied"
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

        await again(pair, LIVE, draft.message_id)
        await until(lambda: said_twice(pair), "the stored answer")

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


@pytest.mark.parametrize("noted", [True, False], ids=["by who wrote them", "by who waits"])
async def test_lost_receipts_are_made_good(pair: Pair, noted: bool) -> None:  # noqa: FBT001
    """What the peer has not acknowledged goes again; else its answer is overdue one day."""
    # A later head would show the gap first, and would stand where the receipts are looked for.
    await tell_no_heads(pair)
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running(ice=("relay", "sealer")):
        await until(lambda: more_entries(pair, CONTROL, 0), "the receipts")
        await until(lambda: is_(pair, 1, NOTED, side="hhs"), "a note of where they are")
    await drop(pair, CONTROL, positions=(0,))
    if not noted:
        await change(pair.hhs, "DELETE FROM publication")

    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")

    assert len(pair.hhs_noted.taken) == 1
    overdue = "SELECT count(*) FROM record WHERE action = 'answer.overdue'"
    assert await value(pair.ice, overdue) == (0 if noted else 1)


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
                lambda: is_(pair, 50, "SELECT published FROM stream_out WHERE lane = 'live'"),
                "a full window",
            )
            assert await entries(pair, LIVE) == 50
            assert await value(pair.ice, "SELECT count(*) FROM outbox WHERE kind = 'fta'") == 70
        async with pair.running():
            await until(lambda: answered(pair.ice, drafts), "every receipt")


async def test_applying_what_is_held_needs_nothing_held(pair: Pair) -> None:
    assert await apply_held(pair.hhs, pair.hhs_noted) == 0


NOTED = "SELECT count(*) FROM publication"
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


async def said_twice(pair: Pair) -> bool:
    """Return whether an answer stands on the stream in the same bytes again."""
    answers = [
        entry.jws
        for entry in await on_stream(pair, CONTROL)
        if attributes_of(entry).kind is Kind.RECEIPTS
    ]
    return len(answers) > len(set(answers))


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


async def test_a_relay_numbers_no_more_at_once_than_is_set(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    relay = {"batch_max": 3, "poll_seconds": 0.5}
    async with two_agencies(home, database, redis_url, relay=relay) as pair:
        await accept(pair.ice, *[a_notice() for _ in range(7)])
        async with bus(pair) as publisher:
            one = Relay(pair.ice, LIVE, Lane.LIVE, publisher)
            lengths = []
            while await one.step():
                lengths.append(await value(pair.ice, "SELECT count(*) FROM sent"))

    assert lengths[:3] == [3, 6, 7]


async def test_what_goes_again_is_settled_before_anything_new_is_numbered(pair: Pair) -> None:
    """`bus rebuild` steps a relay while something goes again, and means to number nothing."""
    await accept(pair.ice, a_notice())
    await relay(pair.ice, LIVE)
    asked = "INSERT INTO republish VALUES (%s, 1, 1, 'asked', now())"
    await change(pair.ice, asked, LIVE)
    await accept(pair.ice, a_notice())
    async with bus(pair) as publisher:
        one = Relay(pair.ice, LIVE, Lane.LIVE, publisher)
        assert await one.step()
        await until(lambda: is_some(pair, "SELECT count(*) = 0 FROM republish"), "gone again")
        assert len(await on_stream(pair, LIVE)) == 2

        assert await one.step()

        assert await value(pair.ice, "SELECT count(*) FROM sent") == 1
        while await one.step():
            pass
    assert await value(pair.ice, "SELECT count(*) FROM sent") == 2


async def test_a_batch_that_did_not_reach_the_bus_goes_as_soon_as_that_is_back(
    home: Path, database: Callable[[str], str], own_redis: RedisServer
) -> None:
    """Though nobody rings, and the next look is a minute away."""
    relay = {"poll_seconds": 60}
    async with (
        two_agencies(home, database, own_redis.url, relay=relay) as pair,
        running(pair.ice, pair.ice_noted, ("relay",)) as process,
    ):
        await until(lambda: at_work(process), "the relays at work")
        own_redis.kill()
        await accept(pair.ice, a_notice())
        await until(lambda: is_some(pair, "SELECT count(*) > 0 FROM sent"), "numbered")
        own_redis.start()
        published = "SELECT count(*) = 1 FROM stream_out WHERE lane = 'live' AND published = 1"
        await until(lambda: is_some(pair, published), "on the bus")


async def at_work(process: Process) -> bool:
    return len(process.relays) > 0 and all(each.healthy for each in process.relays)


async def is_some(pair: Pair, query: str) -> bool:
    return await value(pair.ice, query) is True
