"""A bus that lost what was on it: put back by itself, or by `bus rebuild` for who will not wait."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.envelope import Lane
from schemas.errors import ConflictError, NotFoundError, UnavailableError
from services.bus import Publisher
from services.embedded import RedisServer
from services.exchange import refill as module
from services.exchange.alone import RELAY, free
from services.exchange.refill import Refilled, Survey, refill, survey
from services.exchange.upkeep import Upkeep
from tests.agencies import Pair, Worked, a_notice, accept, answered, two_agencies, until, value
from tests.replays import follows_from_records
from tests.steps import (
    LIVE,
    TO_ICE,
    bus,
    change,
    on_stream,
    relay,
    rows,
    sent,
    tell_no_heads,
    upkeep,
)

BACKLOG = "{ice.hhs.backlog.0}:out"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        pair.hhs_noted = Worked()
        yield pair


async def wipe(pair: Pair) -> None:
    async with bus(pair.ice) as publisher:
        await publisher.client.flushall()


async def drop(pair: Pair, stream: str, positions: Sequence[int]) -> None:
    async with bus(pair.ice) as publisher:
        found: Any = await publisher.client.xrange(stream)
        await publisher.client.xdel(stream, *(found[at][0] for at in positions))


async def surveyed(pair: Pair, stream: str = LIVE) -> Survey:
    async with bus(pair.ice) as publisher:
        (found,) = await survey(pair.ice, publisher, only=[stream])
    return found


async def rebuilt(pair: Pair, *, confirm: int, only: Sequence[str] = ()) -> Refilled:
    async with bus(pair.ice) as publisher:
        return await refill(
            pair.ice, publisher, only=only, confirm=confirm, actor="operator", reason="a test"
        )


async def test_a_survey_compares_the_entries_themselves_with_the_store(pair: Pair) -> None:
    entries = await sent(pair, *(a_notice() for _ in range(6)))
    await change(pair.ice, "UPDATE sent SET answer = 'receipt' WHERE sequence = 6")
    await drop(pair, LIVE, [1, 3])
    async with bus(pair.ice) as publisher:
        # A copy, and bytes that are nobody's.
        await publisher.publish(LIVE, [entries[0].jws, b"forged"])
    await accept(pair.ice, a_notice())

    found = await surveyed(pair)

    assert (found.entries, found.belong, found.missing, found.other) == (6, 5, 2, 3)
    assert (found.unsent, found.without_bytes, found.exists, found.read) == (1, 0, True, False)
    assert [message.sequence for message in found.lacking] == [2, 4]
    assert await value(pair.ice, "SELECT count(*) FROM republish") == 0


async def test_what_is_missing_comes_back_byte_for_byte_where_no_process_runs(pair: Pair) -> None:
    entries = await sent(pair, *(a_notice() for _ in range(5)))
    await wipe(pair)

    done = await rebuilt(pair, confirm=5)

    assert (done.asked, done.void, done.by_us) == (5, 0, True)
    again = await on_stream(pair, LIVE)
    assert [entry.jws for entry in again] == [entry.jws for entry in entries]
    assert [each.missing for each in done.after] == [0, 0, 0]
    # Upkeep knows where they are now, and sends nothing a third time.
    await upkeep(pair.ice)
    assert await value(pair.ice, "SELECT count(*) FROM republish") == 0


async def test_it_is_on_record_with_who_and_why(pair: Pair) -> None:
    await sent(pair, a_notice())
    await wipe(pair)

    await rebuilt(pair, confirm=1)

    opened = await value(
        pair.ice,
        "SELECT o.opened FROM record AS r JOIN opening AS o USING (record_id)"
        " WHERE r.action = 'bus.rebuilt'",
    )
    assert isinstance(opened, dict)
    assert opened["actor"]["value"] == "operator"
    assert opened["text"]["value"] == "a test"


async def test_a_second_rebuild_finds_nothing_to_do(pair: Pair) -> None:
    await sent(pair, *(a_notice() for _ in range(3)))
    await wipe(pair)
    await rebuilt(pair, confirm=3)
    entries = await on_stream(pair, LIVE)

    done = await rebuilt(pair, confirm=0)

    assert done.asked == 0
    assert await on_stream(pair, LIVE) == entries
    assert await value(pair.ice, "SELECT count(*) FROM record WHERE action = 'bus.rebuilt'") == 1


async def test_only_what_lacks_inside_a_run_is_published_again(pair: Pair) -> None:
    entries = await sent(pair, *(a_notice() for _ in range(6)))
    await drop(pair, LIVE, [2, 3])

    await rebuilt(pair, confirm=2)

    again = await on_stream(pair, LIVE)
    assert [e.jws for e in again[4:]] == [entries[2].jws, entries[3].jws]
    await upkeep(pair.ice)
    assert await value(pair.ice, "SELECT count(*) FROM republish") == 0


async def test_one_stream_alone_is_rebuilt_when_asked(pair: Pair) -> None:
    await sent(pair, a_notice())
    await accept(pair.ice, a_notice(lane=Lane.BACKLOG))
    await relay(pair.ice, BACKLOG)
    await wipe(pair)

    done = await rebuilt(pair, confirm=1, only=[BACKLOG])

    assert done.asked == 1
    assert len(await on_stream(pair, BACKLOG)) == 1
    assert await on_stream(pair, LIVE) == []


async def test_what_was_numbered_and_never_published_is_published_and_nothing_is_numbered(
    pair: Pair,
) -> None:
    await sent(pair, a_notice(), a_notice(), a_notice())
    await change(pair.ice, "UPDATE stream_out SET published = 1 WHERE stream = %s", LIVE)
    await wipe(pair)
    await accept(pair.ice, a_notice())

    await rebuilt(pair, confirm=3)

    assert len(await on_stream(pair, LIVE)) == 3
    assert await value(pair.ice, "SELECT count(*) FROM outbox WHERE kind = 'fta'") == 1


async def test_what_has_no_bytes_is_declared_void(pair: Pair) -> None:
    await sent(pair, *(a_notice() for _ in range(4)))
    await change(
        pair.ice,
        "DELETE FROM envelope WHERE message_id IN (SELECT message_id FROM sent WHERE sequence = 2)",
    )
    await wipe(pair)
    assert (await surveyed(pair)).without_bytes == 1

    done = await rebuilt(pair, confirm=4)

    assert (done.asked, done.void) == (3, 1)
    assert await rows(pair.ice, "SELECT first_sequence, last_sequence FROM voided") == [(2, 2)]
    assert [each.missing for each in done.after] == [0, 0, 0]


async def test_more_than_was_confirmed_is_refused_and_nothing_is_done(pair: Pair) -> None:
    await sent(pair, *(a_notice() for _ in range(3)))
    await wipe(pair)

    with pytest.raises(ConflictError) as caught:
        await rebuilt(pair, confirm=2)

    assert caught.value.code == "NB-5024"
    assert await on_stream(pair, LIVE) == []
    assert await value(pair.ice, "SELECT count(*) FROM record WHERE action = 'bus.rebuilt'") == 0


async def test_a_stream_of_the_other_agency_is_not_found(pair: Pair) -> None:
    with pytest.raises(NotFoundError) as caught:
        await surveyed(pair, TO_ICE)

    assert caught.value.code == "NB-5026"


async def test_control_messages_that_nobody_acknowledged_come_back_too(pair: Pair) -> None:
    await tell_no_heads(pair)
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running(ice=("relay", "sealer")):
        await until(lambda: some_entries(pair, TO_ICE), "the receipts")
        await until(lambda: noted(pair), "a note of where they are")
    await wipe(pair)

    async with bus(pair.hhs) as publisher:
        found = await survey(pair.hhs, publisher, only=[TO_ICE])
        assert found[0].missing == 1
        await refill(pair.hhs, publisher, confirm=1, actor="operator", reason="a test")

    assert len(await on_stream(pair, TO_ICE)) == 1


async def test_a_running_process_is_asked_and_publishes(pair: Pair) -> None:
    drafts = [a_notice() for _ in range(40)]
    await accept(pair.ice, *drafts)
    async with pair.running(hhs=()):
        await until(lambda: is_out(pair, 40), "all published")
        told: list[int] = []
        await wipe(pair)
        async with bus(pair.ice) as publisher:
            done = await refill(
                pair.ice,
                publisher,
                only=[LIVE],
                confirm=40,
                actor="operator",
                reason="x",
                progress=told.append,
            )
        assert not done.by_us
        assert sum(each.missing for each in done.after) == 0
        assert told == sorted(told)

    async with pair.running():
        await until(lambda: answered(pair.ice, drafts), "every receipt")
    assert len(pair.hhs_noted.taken) == 40


async def test_rebuilding_again_and_again_under_live_traffic_has_no_second_effect(
    pair: Pair,
) -> None:
    drafts = [a_notice() for _ in range(300)]
    async with pair.running():
        accepting = asyncio.create_task(accept_slowly(pair, drafts))
        while not accepting.done():
            await wipe(pair)
            await rebuilt(pair, confirm=10_000)
        await accepting
        await until(lambda: answered(pair.ice, drafts), "every receipt")

    assert len(pair.hhs_noted.taken) == len({t.message_id for t in pair.hhs_noted.taken}) == 300
    assert (await follows_from_records(pair.hhs))["case_file"] == 300
    assert (await follows_from_records(pair.ice))["sent"] == 300


async def test_a_process_that_publishes_nothing_is_not_waited_for_without_end(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALLED_SECONDS", 0.3)
    await sent(pair, a_notice())
    await wipe(pair)

    async with free(pair.ice, RELAY) as ours:
        assert ours
        with pytest.raises(UnavailableError) as caught:
            await rebuilt(pair, confirm=1)

    assert caught.value.code == "NB-5025"
    # What was asked for stays asked for.
    await relay(pair.ice, LIVE)
    assert len(await on_stream(pair, LIVE)) == 1


async def test_redis_replaced_by_an_empty_one_in_the_middle_is_recovered_unattended(
    home: Path, database: Callable[[str], str], own_redis: RedisServer
) -> None:
    """No person, no restart of a process: only Redis goes, and comes back without its data."""
    async with two_agencies(home, database, own_redis.url) as pair:
        pair.hhs_noted = Worked()
        drafts = [a_notice() for _ in range(600)]
        async with pair.running():
            accepting = asyncio.create_task(accept_slowly(pair, drafts))
            await until(lambda: some_answered(pair, 50), "a first part of the receipts")
            own_redis.kill()
            own_redis.wipe()
            own_redis.start()
            await accepting
            await until(lambda: answered(pair.ice, drafts), "every receipt")

        assert (await follows_from_records(pair.hhs))["case_file"] == 600
        assert (await follows_from_records(pair.ice))["sent"] == 600
    assert len(pair.hhs_noted.taken) == len({t.message_id for t in pair.hhs_noted.taken}) == 600


async def test_a_quiet_stream_costs_the_same_few_commands_however_much_is_out(pair: Pair) -> None:
    """One message a publication, nobody reading: upkeep asked for every one of them each second."""
    for _ in range(60):
        await accept(pair.ice, a_notice())
        await relay(pair.ice, LIVE)
    assert await value(pair.ice, "SELECT count(*) FROM publication") == 60
    async with bus(pair.ice) as publisher:
        one = Upkeep(pair.ice, publisher)
        await one.step()
        await one.step()
        before = await calls(publisher)

        for _ in range(5):
            await one.step()

        assert await calls(publisher) - before <= 5 * 6


@pytest.mark.parametrize("lost", [[0], [59], [30], [10, 11, 12]])
async def test_an_entry_that_vanishes_anywhere_is_noticed_by_the_next_look(
    pair: Pair, lost: list[int]
) -> None:
    for _ in range(60):
        await accept(pair.ice, a_notice())
        await relay(pair.ice, LIVE)
    async with bus(pair.ice) as publisher:
        one = Upkeep(pair.ice, publisher)
        await one.step()
        await drop(pair, LIVE, lost)

        await one.step()

    asked = await rows(pair.ice, "SELECT sequence FROM republish ORDER BY 1")
    assert asked == [(at + 1,) for at in lost]


async def test_a_stream_made_anew_is_noticed_though_it_is_as_long_as_before(pair: Pair) -> None:
    """Wiped between two looks, and filled by others: only its identity tells."""
    await sent(pair, *(a_notice() for _ in range(3)))
    async with bus(pair.ice) as publisher:
        one = Upkeep(pair.ice, publisher)
        await one.step()
        await publisher.client.flushall()
        await publisher.publish(LIVE, [b"another"] * 9)

        await one.step()

    assert await value(pair.ice, "SELECT count(*) FROM republish") == 3


async def accept_slowly(pair: Pair, drafts: Sequence[Any]) -> None:
    for at in range(0, len(drafts), 20):
        await accept(pair.ice, *drafts[at : at + 20])
        await asyncio.sleep(0.05)


async def calls(publisher: Publisher) -> int:
    """Return how many stream commands Redis has answered."""
    stats: Any = await publisher.client.info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name.startswith("cmdstat_x"))


async def some_entries(pair: Pair, stream: str) -> bool:
    return bool(await on_stream(pair, stream))


async def noted(pair: Pair) -> bool:
    return await value(pair.hhs, "SELECT count(*) FROM publication") == 1


async def is_out(pair: Pair, messages: int) -> bool:
    published = "SELECT published FROM stream_out WHERE stream = %s"
    return await value(pair.ice, published, LIVE) == messages


async def some_answered(pair: Pair, least: int) -> bool:
    found = await value(pair.ice, "SELECT count(*) FROM sent WHERE answer = 'receipt'")
    return isinstance(found, int) and found >= least
