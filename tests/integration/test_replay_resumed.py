"""A run that was killed ends what it began, whatever live traffic and upkeep did meanwhile."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from schemas.canonical import canonical
from schemas.errors import ConflictError, EvidenceError, NotFoundError, RejectedError
from services import replay
from services.backup import archive_file
from services.bus import History
from services.exchange import redrive
from services.exchange.agency import Agency
from services.exchange.dead import Chosen
from services.exchange.process import delivery_of
from services.hhs.casework import CaseWork
from services.ice.effects import IceEffects
from services.replay import (
    ArchiveSource,
    Counts,
    DeadGroup,
    Planned,
    Selection,
    State,
    StreamSink,
    StreamSource,
    Target,
)
from services.replay import running as engine
from tests.agencies import Pair, a_notice, accept, running, trust, two_agencies, until, value
from tests.replays import (
    HELD,
    Way,
    change,
    erase,
    is_,
    last_record,
    later,
    plan,
    rows,
    run,
)
from tests.restores import archived, at_rest
from tests.steps import LIVE, on_stream, relay, rotate

COPY = "{replay.drill}"
SPOIL = "UPDATE case_file SET outcome = 'MISSED_NO_ORDER'"
SPOILT = "SELECT count(*) FROM case_file WHERE outcome = 'MISSED_NO_ORDER'"


async def begun(agency: Agency) -> bool:
    return await value(agency, "SELECT count(*) FROM replay_plan WHERE cursor IS NOT NULL") == 1


async def killed(way: Way, planned: Planned, **given: Any) -> None:
    """Let a run come to its first batch, and end it there as a kill would."""
    going = asyncio.create_task(run(way.hhs, planned, rate=2, **given))
    await until(partial(begun, way.hhs), "the first batch")
    going.cancel()
    with suppress(asyncio.CancelledError):
        await going


async def revision_of(way: Way, notice_id: UUID, revision: int) -> Any:
    """Return revisions 2 and, if asked for, 3 of a notice, as ICE would send them."""
    two = await later(way.ice, notice_id, "CORRECTION", office="DAL")
    body = json.loads(two.body) | {"revision": revision, "supersedes": str(two.message_id)}
    return two, replace(two, message_id=uuid7(), revision=revision, body=canonical(body))


async def test_what_waited_when_it_was_planned_and_took_effect_since_is_not_its(way: Way) -> None:
    two, three = await revision_of(way, way.closed, 3)
    async with running(way.ice, IceEffects()), running(way.hhs, CaseWork()):
        await accept(way.ice, three)
        await until(lambda: is_(way.hhs, 1, HELD), "what waits for revision 2")
        await until(lambda: at_rest(way.pair), "both at rest")
    await change(way.hhs, SPOIL)
    planned = await until_it_selects(way, 11)

    await killed(way, planned)
    async with running(way.ice, IceEffects()), running(way.hhs, CaseWork()):
        await accept(way.ice, two)
        await until(lambda: is_(way.hhs, 0, HELD), "both revisions")
    ran = await run(way.hhs, planned)

    assert (ran.plan.state, ran.resumed, ran.missing) == (State.DONE, True, 0)
    assert ran.counts.events == planned.plan.counts.events == 11
    case = next(
        row for row in await rows(way.hhs, "case_file", "1") if row["notice_id"] == way.closed
    )
    assert (case["revision"], case["office"]) == (3, "DAL")


async def until_it_selects(way: Way, events: int) -> Planned:
    """Plan until what was taken a moment ago is settled enough to be selected or left out."""
    planned = await plan(way.hhs)
    while planned.plan.counts.events < events:
        planned = await plan(way.hhs)
    return planned


async def test_what_was_erased_since_is_blocked_and_counted(way: Way) -> None:
    await change(way.hhs, SPOIL)
    planned = await plan(way.hhs)

    await killed(way, planned)
    half = (await replay.find(way.hhs.store, str(planned.plan.plan_id))).done.events
    await erase(way.hhs, way.corrected, revision=2)
    ran = await run(way.hhs, planned)
    said = await last_record(way.hhs)

    assert half < 11
    assert (ran.plan.state, ran.counts.events, ran.counts.blocked) == (State.DONE, 11, 1)
    assert (said["detail"]["blocked"], planned.plan.counts.blocked) == (1, 0)


async def test_what_moved_to_an_archive_since_is_blocked_and_counted(
    way: Way, tmp_path: Path
) -> None:
    await change(
        way.hhs, "UPDATE case_file SET outcome = 'MISSED_NO_ORDER' WHERE closed_at IS NULL"
    )
    planned = await plan(way.hhs)

    await killed(way, planned)
    assert await archived(way.hhs, tmp_path / "archives")
    ran = await run(way.hhs, planned)

    assert (ran.plan.state, ran.counts.events) == (State.DONE, 11)
    assert ran.counts.blocked > 0
    assert await value(way.hhs, SPOILT) == 0


async def test_older_messages_of_a_notice_that_comes_to_an_office_since_are_not_its(
    way: Way,
) -> None:
    await change(way.hhs, "UPDATE case_file SET office = 'XXX'")
    planned = await plan(way.hhs, offices=("DAL",))
    assert {event.message.notice_id for event in planned.first} == {way.overtaken}

    await killed(way, planned)
    async with running(way.ice, IceEffects()), running(way.hhs, CaseWork()):
        await accept(way.ice, await later(way.ice, way.taken, "CORRECTION", office="DAL"))
        await until(
            lambda: is_(way.hhs, 9, "SELECT count(*) FROM inbox WHERE state = 'applied'"), "it"
        )
    await change(way.hhs, "UPDATE case_file SET office = 'XXX' WHERE notice_id = %s", way.taken)
    ran = await run(way.hhs, planned)

    assert ran.counts == planned.plan.counts
    cases = {row["notice_id"]: row["office"] for row in await rows(way.hhs, "case_file", "1")}
    assert (cases[way.overtaken], cases[way.taken]) == ("DAL", "XXX")


async def test_a_run_that_an_earlier_build_began_goes_on(way: Way) -> None:
    await change(way.hhs, SPOIL)
    planned = await plan(way.hhs)
    await killed(way, planned)
    await change(way.hhs, "DELETE FROM replay_planned")

    ran = await run(way.hhs, planned)

    assert (ran.plan.state, ran.counts) == (State.DONE, planned.plan.counts)
    assert await value(way.hhs, SPOILT) == 0


async def test_an_ended_run_keeps_no_list_of_its_messages(way: Way) -> None:
    planned = await plan(way.hhs)
    await killed(way, planned)
    kept = await value(way.hhs, "SELECT cardinality(message_ids) FROM replay_planned")
    await run(way.hhs, planned)

    assert kept == 11
    assert await value(way.hhs, "SELECT count(*) FROM replay_planned") == 0


async def test_an_empty_plan_stays_empty(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = await plan(way.hhs, offices=("LOS",))
    work = engine.Run.work

    async def first_somebody_moves(self: engine.Run) -> State:
        await change(
            way.hhs,
            "UPDATE payload SET body = convert_to(jsonb_set(convert_from(body, 'UTF8')::jsonb,"
            " '{aor_code}', '\"LOS\"')::text, 'UTF8') WHERE message_id IN"
            " (SELECT message_id FROM inbox WHERE kind = 'fta')",
        )
        return await work(self)

    monkeypatch.setattr(engine.Run, "work", first_somebody_moves)
    ran = await run(way.hhs, planned)

    assert planned.plan.counts == ran.counts == Counts()


async def to_copy(way: Way, planned: Planned, **given: Any) -> Any:
    """Run a plan that writes to the stream of copies."""
    async with history_of(way.hhs) as history:
        return await run(way.hhs, planned, sink=StreamSink(history, COPY), **given)


def history_of(agency: Agency) -> Any:
    return History.open(agency.settings.redis_url_required, settings=agency.settings.bus)


async def test_who_writes_beside_a_run_stops_it_and_it_says_what_is_there(
    way: Way, redis: Redis
) -> None:
    """As another agency's replay would, after the run had looked at the end of the stream."""
    planned = await plan(way.hhs, to=f"stream:{COPY}")

    class Beside(StreamSink):
        async def write(self, events: Any, *, before: int) -> int:
            if before == 4:
                await redis.xadd(COPY, {"jws": b"of somebody else"})
            return await super().write(events, before=before)

    async with history_of(way.hhs) as history:
        with pytest.raises(ConflictError) as during:
            await run(way.hhs, planned, sink=Beside(history, COPY), batch_max=4)
    failed = await last_record(way.hhs)
    with pytest.raises(ConflictError) as later_on:
        await to_copy(way, planned)
    stands = await replay.find(way.hhs.store, str(planned.plan.plan_id))

    for caught in (during, later_on):
        assert (caught.value.code, caught.value.where["written"]) == ("NB-6103", 4)
        assert "Nothing was" not in caught.value.fix
    assert await redis.xlen(COPY) == 4 + 1
    assert (stands.written, stands.state) == (4, State.RUNNING)
    assert (failed["action"], failed["result"], failed["reason"]) == (
        "replay.run",
        "failed",
        "NB-6103",
    )


async def test_a_source_that_loses_entries_on_the_way_is_told_from_a_whole_one(
    way: Way, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long run takes a new look at its stream now and then."""
    await to_copy(way, await plan(way.hhs, to=f"stream:{COPY}"))
    stranger = a_notice()
    await accept(way.ice, stranger)
    await relay(way.ice, LIVE)
    new = (await on_stream(way.pair, LIVE))[-1]
    await redis.xadd(COPY, {"jws": new.jws})
    monkeypatch.setattr(engine, "SNAPSHOT_SECONDS", 0.0)

    async with history_of(way.hhs) as history:
        source = await StreamSource.open(way.hhs, history, COPY)
        planned = await replay.plan(
            way.hhs.store,
            "hhs",
            selection=Selection(),
            target=Target.of("store"),
            actor="operator",
            source=source,
        )

        async def trimmed(self: engine.Run, began: float, events: int) -> None:
            await redis.xtrim(COPY, maxlen=0, approximate=False)

        monkeypatch.setattr(engine.Run, "_pace", trimmed)
        ran = await run(way.hhs, planned, source=source, batch_max=4)
    said = await last_record(way.hhs)

    assert planned.plan.counts == Counts(same=11, blocked=1)
    # What is on record here is blocked without its bytes; what never was, nobody knows any more.
    assert (ran.counts.same, ran.counts.blocked, ran.missing) == (4, 7, 1)
    assert said["detail"]["missing"] == 1


@pytest.mark.parametrize("what", ["damaged", "vanished"])
async def test_a_source_that_is_no_source_any_more_is_on_record(
    way: Way, redis: Redis, what: str
) -> None:
    await to_copy(way, await plan(way.hhs, to=f"stream:{COPY}"))
    async with history_of(way.hhs) as history:
        source = await StreamSource.open(way.hhs, history, COPY)
        planned = await replay.plan(
            way.hhs.store,
            "hhs",
            selection=Selection(),
            target=Target.of("store"),
            actor="operator",
            source=source,
        )
        if what == "damaged":
            await redis.xadd(COPY, {"jws": b"not an envelope"})
        else:
            await redis.delete(COPY)
        with pytest.raises((EvidenceError, NotFoundError)) as caught:
            await run(way.hhs, planned, source=source)

    said = await last_record(way.hhs)
    code = "NB-6041" if what == "damaged" else "NB-6032"
    assert caught.value.code == code
    assert (said["action"], said["result"], said["reason"]) == ("replay.run", "refused", code)


async def test_an_archive_is_read_once_off_the_loop_and_a_damaged_one_is_on_record(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await archived(way.hhs, tmp_path / "archives")
    assert made is not None
    read: list[int] = []
    readers: list[set[int]] = []

    def noted(*given: Any, **named: Any) -> Iterator[Any]:
        readers.append(set())
        for each in archive_file.messages(*given, **named):
            readers[-1].add(threading.get_ident())
            yield each

    monkeypatch.setattr("services.replay.archived.messages", noted)
    source = await ArchiveSource.open(way.hhs.store, way.hhs.ring, made.path, reading=read.append)
    planned = await replay.plan(
        way.hhs.store,
        "hhs",
        selection=Selection(),
        target=Target.of("store"),
        actor="operator",
        source=source,
    )
    told, once = list(read), list(readers)
    whole = made.path.read_bytes()
    made.path.chmod(0o600)
    made.path.write_bytes(whole[:-40])
    with pytest.raises(EvidenceError) as caught:
        await run(way.hhs, planned, source=source)

    said = await last_record(way.hhs)
    assert told == [made.messages]
    assert len(once) == 1
    assert threading.get_ident() not in once[0]
    assert (said["result"], said["reason"]) == ("refused", caught.value.code)


async def test_a_run_needs_a_reason(way: Way) -> None:
    planned = await plan(way.hhs)

    with pytest.raises(RejectedError) as caught:
        await run(way.hhs, planned, reason="  ")

    assert caught.value.code == "NB-6101"


async def test_letters_of_an_unknown_key_are_selected_once_they_were_redriven(
    home: Path, database: Callable[[str], str], redis_url: str
) -> None:
    async with two_agencies(home, database, redis_url) as pair:
        drafts = [a_notice(), a_notice()]
        await rotate(pair)
        await accept(pair.ice, *drafts)
        await relay(pair.ice, LIVE)
        delivery = delivery_of(pair.hhs, CaseWork())
        await delivery.take(await on_stream(pair, LIVE))
        with pytest.raises(NotFoundError) as early:
            await plan(pair.hhs, dead=(DeadGroup("NB-2010"),))
        await trust(pair.hhs, pair.ice)
        letters = await redrive.chosen(pair.hhs, Chosen())
        await redrive.run(
            delivery, await redrive.begin(pair.hhs, letters, actor="clerk", reason="trusted")
        )
        await change(pair.hhs, "UPDATE case_file SET office = 'XXX'")
        said = await redriven(pair)
        planned = await plan(pair.hhs, dead=(DeadGroup("NB-2010.unread"),))

    assert early.value.code == "NB-6102"
    assert planned.plan.counts == Counts(changed=2)
    assert said == {(str(draft.notice_id), str(draft.message_id)) for draft in drafts}


async def redriven(pair: Pair) -> set[tuple[str, str]]:
    """Return which notice and message each redriven letter is on record with."""
    records = [
        json.loads(row["record"])
        for row in await rows(pair.hhs, "record", "record_id")
        if row["action"] == "dead.redriven"
    ]
    return {(each["notice_id"], each["message_id"]) for each in records}
