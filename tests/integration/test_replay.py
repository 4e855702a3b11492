"""Replay: looks before it acts, restores what messages decide, and moves nothing else."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from uuid_utils.compat import uuid7

from schemas.errors import ConflictError, NotFoundError, RejectedError
from services import cli, replay
from services.cli.exits import exit_code_of
from services.exchange.agency import Agency
from services.exchange.recorded import Difference, Finding, Readable
from services.hhs import queue
from services.hhs.projection import CaseProjection
from services.ledger.store import Transaction
from services.replay import Counts, Plan, Planned, Ran, Selection, Target
from services.replay.acts import RUN_LOCK
from services.replay.store import plans
from tests.agencies import value
from tests.replays import Way, actions, change, erase, last_record, rows, snapshot

STORE = Target.of("store")


async def test_what_is_right_is_the_same_and_nothing_changes(way: Way) -> None:
    planned = await plan(way.hhs)
    ran = await run(way.hhs, planned, confirm=0)

    assert planned.first == ()
    assert asdict(planned.plan.counts) == {"new": 0, "same": 11, "changed": 0, "blocked": 0}
    assert planned.plan.expires_at - planned.plan.made_at == timedelta(minutes=60)
    assert (ran.counts, ran.applied, ran.written, ran.resumed) == (Counts(same=11), 0, 0, False)
    assert await snapshot(way.hhs) == way.before["hhs"]
    assert await actions(way.hhs) == ["replay.planned", "replay.begun", "replay.run"]


async def test_what_was_lost_or_damaged_is_restored_exactly(way: Way) -> None:
    for notice_id in (way.withdrawn, way.overtaken):
        await change(way.hhs, "DELETE FROM case_file WHERE notice_id = %s", notice_id)
    await change(
        way.hhs,
        "UPDATE case_file SET office = 'XXX', hearing_at = now(), message_id = gen_random_uuid(),"
        " opened_at = now(), due_at = now() + interval '1 year', lane = 'backlog', revision = 9"
        " WHERE notice_id = %s",
        way.corrected,
    )
    await change(way.hhs, "UPDATE case_file SET outcome = 'MISSED_NO_ORDER' WHERE owner = 'clerk'")

    planned = await plan(way.hhs)
    untouched = await rows(way.hhs, "case_file", "notice_id")
    ran = await run(way.hhs, planned, confirm=planned.plan.changes)

    assert asdict(planned.plan.counts) == {"new": 4, "same": 3, "changed": 4, "blocked": 0}
    fields = {
        (event.message.notice_id, event.message.revision): [
            each.field for each in event.finding.differences
        ]
        for event in planned.first
    }
    assert fields[way.corrected, 1] == ["lane", "opened_at", "due_at"]
    assert fields[way.corrected, 2] == ["office", "hearing_at", "revision", "message_id"]
    assert fields[way.taken, 1] == ["outcome"]
    assert fields[way.withdrawn, 2][-1] == "state"
    assert len(untouched) == 3, "a plan changes nothing"
    assert ran.counts == planned.plan.counts
    assert await snapshot(way.hhs) == way.before["hhs"]
    assert (await plan(way.hhs)).plan.counts == Counts(same=11)


async def test_ice_restores_its_replies(way: Way) -> None:
    await change(way.ice, "DELETE FROM reply WHERE kind = 'outcome'")
    await change(
        way.ice,
        "UPDATE reply SET revision = 7, happened_at = now() WHERE notice_id = %s",
        way.taken,
    )

    planned = await plan(way.ice)
    await run(way.ice, planned, confirm=2)

    assert asdict(planned.plan.counts) == {"new": 1, "same": 9, "changed": 1, "blocked": 0}
    changed = next(e.finding for e in planned.first if e.finding.standing == "changed")
    assert changed.differences[0] == Difference("revision", 7, 1)
    assert await snapshot(way.ice) == way.before["ice"]


async def test_a_message_that_was_taken_on_a_later_attempt_counts_from_then(way: Way) -> None:
    # Redriven after a refusal: the inbox row is that of the first arrival, the record is not.
    await change(way.hhs, "UPDATE inbox SET received_at = received_at - interval '1 day'")

    planned = await plan(way.hhs)

    assert planned.plan.counts == Counts(same=11)


async def test_a_stale_plan_is_refused_and_that_is_on_record(way: Way) -> None:
    by_target, by_source = await plan(way.hhs), await plan(way.hhs)
    await change(way.hhs, "UPDATE case_file SET office = 'XXX' WHERE notice_id = %s", way.taken)
    with pytest.raises(ConflictError) as target:
        await run(way.hhs, by_target, confirm=0)
    await change(way.hhs, "UPDATE case_file SET office = 'HOU' WHERE notice_id = %s", way.taken)
    await erase(way.hhs, way.taken)
    with pytest.raises(ConflictError) as source:
        await run(way.hhs, by_source, confirm=0)

    assert [(e.value.code, e.value.where["what"]) for e in (target, source)] == [
        ("NB-6013", "the projection"),
        ("NB-6013", "a message"),
    ]
    assert exit_code_of(target.value) == 9
    said = await last_record(way.hhs)
    assert (said["action"], said["result"], said["reason"]) == ("replay.run", "refused", "NB-6013")
    assert await value(way.hhs, "SELECT count(*) FROM replay_plan WHERE state <> 'planned'") == 0


async def test_work_that_goes_on_makes_no_plan_stale(way: Way) -> None:
    await change(way.hhs, "DELETE FROM case_file WHERE notice_id = %s", way.overtaken)
    planned = await plan(way.hhs)

    await queue.take(way.hhs.store, way.corrected, actor="other")
    ran = await run(way.hhs, planned, confirm=2)

    assert ran.applied == 2
    taken = next(
        row for row in await rows(way.hhs, "case_file", "due_at") if row["owner"] == "other"
    )
    assert taken["notice_id"] == way.corrected


async def test_an_expired_plan_is_refused(way: Way) -> None:
    planned = await plan(way.hhs)
    await change(way.hhs, "UPDATE replay_plan SET expires_at = now() - interval '1 second'")

    with pytest.raises(ConflictError) as caught:
        await run(way.hhs, planned, confirm=0)

    assert caught.value.code == "NB-6012"


async def test_changes_are_confirmed_by_their_number_and_a_plan_runs_once(way: Way) -> None:
    await change(way.hhs, "UPDATE case_file SET office = 'XXX' WHERE notice_id = %s", way.taken)
    planned = await plan(way.hhs)

    refused = []
    for confirm in (None, 0, 2):
        with pytest.raises(RejectedError) as caught:
            await run(way.hhs, planned, confirm=confirm)
        refused.append(caught.value.code)
    await run(way.hhs, planned, confirm=1)
    with pytest.raises(ConflictError) as again:
        await run(way.hhs, planned, confirm=1)

    assert refused == ["NB-6015", "NB-6016", "NB-6016"]
    assert again.value.code == "NB-6019"
    assert await snapshot(way.hhs) == way.before["hhs"]


async def test_one_replay_runs_at_a_time(way: Way) -> None:
    planned = await plan(way.hhs)

    async with way.hhs.store.session() as session:
        assert await session.try_lock(RUN_LOCK)
        with pytest.raises(ConflictError) as caught:
            await run(way.hhs, planned, confirm=0)

    assert caught.value.code == "NB-6014"


async def test_bytes_that_are_gone_or_other_than_recorded_are_blocked(way: Way) -> None:
    await erase(way.hhs, way.taken)
    await change(way.hhs, "DELETE FROM case_file WHERE notice_id = %s", way.withdrawn)
    await erase(way.hhs, way.withdrawn, revision=1)
    for table, damage, notice_id in (
        ("envelope", "envelope = overlay(envelope PLACING '\\x41' FROM 200)", way.closed),
        ("payload", "body = body || '\\x20'", way.corrected),
    ):
        await change(
            way.hhs,
            f"UPDATE {table} SET {damage} WHERE message_id IN"  # noqa: S608 - constants above
            " (SELECT message_id FROM inbox WHERE notice_id = %s AND revision = 1)",
            notice_id,
        )
    await change(
        way.hhs,
        "DELETE FROM payload WHERE message_id IN"
        " (SELECT message_id FROM inbox WHERE notice_id = %s AND revision = 2)",
        way.overtaken,
    )

    planned = await plan(way.hhs)
    ran = await run(way.hhs, planned, confirm=0)

    causes = {
        (event.message.notice_id, event.message.revision): event.finding.cause
        for event in planned.first
        if event.message.direction == "received"
    }
    assert causes == {
        (way.taken, 1): "NB-6020",
        (way.withdrawn, 1): "NB-6020",
        # Order holds in a replay too: without the first revision the second has no place.
        (way.withdrawn, 2): "NB-6023",
        (way.closed, 1): "NB-6022",
        (way.corrected, 1): "NB-6022",
        (way.overtaken, 2): "NB-6021",
    }
    assert (ran.counts.blocked, ran.applied) == (6, 0)


class Halting(CaseProjection):
    """Gives up at its third batch, as a kill would."""

    batches = 0

    async def apply(
        self, tx: Transaction, messages: Sequence[Readable], findings: Sequence[Finding]
    ) -> None:
        await super().apply(tx, messages, findings)
        Halting.batches += 1
        if Halting.batches == 3:
            raise KeyboardInterrupt


async def test_an_interrupted_run_goes_on_where_it_stood(way: Way) -> None:
    await change(way.hhs, "UPDATE case_file SET office = 'XXX'")
    await change(way.hhs, "DELETE FROM case_file WHERE notice_id = %s", way.overtaken)
    planned = await plan(way.hhs)
    changes = planned.plan.changes

    with pytest.raises(KeyboardInterrupt):
        await run(way.hhs, planned, confirm=changes, projection=Halting(), batch_max=2)
    half = await value(way.hhs, "SELECT done FROM replay_plan")
    ran = await run(way.hhs, planned, confirm=changes, batch_max=2)

    assert isinstance(half, dict)
    assert 0 < half["new"] + half["changed"] < changes
    assert ran.resumed
    assert ran.counts == planned.plan.counts
    assert await snapshot(way.hhs) == way.before["hhs"]


async def test_a_range_and_a_notice_select(way: Way) -> None:
    times = [row["received_at"] for row in await rows(way.hhs, "inbox", "received_at")]

    early = await plan(way.hhs, until=times[0])
    one = await plan(way.hhs, notices=(way.closed,))
    with pytest.raises(RejectedError) as reversed_range:
        await plan(way.hhs, since=times[-1] + timedelta(hours=1), until=times[0])
    with pytest.raises(NotFoundError) as stranger:
        await replay.notice_named(way.hhs.store, str(uuid4()))

    assert early.plan.counts == Counts()
    assert (await run(way.hhs, early)).counts == Counts()
    assert one.plan.counts == Counts(same=3)
    assert await replay.notice_named(way.hhs.store, str(way.closed)) == way.closed
    assert (reversed_range.value.code, stranger.value.code) == ("NB-6011", "NB-6024")
    assert exit_code_of(reversed_range.value) == 2


async def test_a_file_gets_stored_envelopes_in_order_and_nothing_else_happens(
    way: Way, tmp_path: Path
) -> None:
    path = tmp_path / "copy.ndjson"
    planned = await plan(way.hhs, target=Target.of(f"file:{path}"))

    with replay.opened(planned.plan.target) as sink:
        ran = await run(way.hhs, planned, sink=sink)
    again = await plan(way.hhs, target=Target.of(f"file:{path}"))
    with replay.opened(again.plan.target) as sink, pytest.raises(ConflictError) as taken:
        await run(way.hhs, again, sink=sink)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    envelopes = {
        str(row["message_id"]): row["envelope"].decode()
        for row in await rows(way.hhs, "envelope", "message_id")
    }
    assert (ran.written, ran.applied) == (len(lines), 0) == (11, 0)
    assert all(line["envelope"] == envelopes[line["message_id"]] for line in lines)
    assert {line["direction"] for line in lines} == {"received", "sent"}
    of_one = [line for line in lines if line["notice_id"] == str(way.overtaken)]
    assert [line["revision"] for line in of_one] == [1, 2]
    assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116
    assert taken.value.code == "NB-7013"
    assert {name for name in os.listdir(tmp_path) if "copy" in name} == {"copy.ndjson"}  # noqa: PTH208
    assert await snapshot(way.hhs) == way.before["hhs"]


async def test_a_file_goes_on_behind_the_last_line_that_was_noted(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = plans.advance
    batches = 0

    async def dies(*given: Any, **named: Any) -> str | None:
        """Die between writing a batch and noting it."""
        nonlocal batches
        batches += 1
        if batches == 3:
            raise InterruptedError
        return await noted(*given, **named)

    async def interrupted(name: str) -> Planned:
        nonlocal batches
        batches = 0
        planned = await plan(way.hhs, target=Target.of(f"file:{tmp_path / name}"))
        with monkeypatch.context() as patch:
            patch.setattr(plans, "advance", dies)
            with pytest.raises(InterruptedError), replay.opened(planned.plan.target) as sink:
                await run(way.hhs, planned, sink=sink, batch_max=2)
        return planned

    async def go_on(planned: Planned) -> Ran:
        with replay.opened(planned.plan.target) as sink:
            return await run(way.hhs, planned, sink=sink)

    await go_on(await plan(way.hhs, target=Target.of(f"file:{tmp_path / 'whole'}")))
    planned = await interrupted("cut")
    path, partial = tmp_path / "cut", tmp_path / f".cut.{planned.plan.plan_id}.partial"
    assert not path.exists()
    written = partial.read_bytes()
    assert len(written.splitlines()) == 6
    partial.write_bytes(written.splitlines(keepends=True)[0])
    with pytest.raises(ConflictError) as short:
        await go_on(planned)
    partial.write_bytes(written + b"half a li")
    ran = await go_on(planned)

    assert short.value.code == "NB-6090"
    assert (ran.resumed, ran.written) == (True, 11)
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert not partial.exists()

    other = await interrupted("other")
    stopped = await replay.find(way.hhs.store, str(other.plan.plan_id))
    await replay.cancel(way.hhs.store, stopped, actor="operator", reason="wrong place")
    assert [name for name in os.listdir(tmp_path) if "other" in name] == []  # noqa: PTH208


async def test_the_ledger_says_who_why_and_how_many_without_names(way: Way) -> None:
    planned = await plan(way.hhs)
    await run(way.hhs, planned, confirm=0)

    said = await last_record(way.hhs)
    assert said["detail"]["plan_id"] == str(planned.plan.plan_id)
    assert {name: said["detail"][name] for name in ("new", "same", "changed", "blocked")} == {
        "new": 0,
        "same": 11,
        "changed": 0,
        "blocked": 0,
    }
    assert "operator" not in json.dumps(said)
    assert "drill" not in json.dumps(said)
    opened = await value(way.hhs, "SELECT opened FROM opening ORDER BY record_id DESC LIMIT 1")
    assert isinstance(opened, dict)
    assert (opened["actor"]["value"], opened["text"]["value"]) == ("operator", "drill")


def test_exit_codes_and_json_of_the_commands(
    database: Callable[[str], str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", database("hhs"))
    monkeypatch.setenv("NOTICEBUS_HOME", str(home))
    line = ["--agency", "hhs", "replay"]

    assert cli.execute([*line, "plan", "--to", "store", "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    run = [*line, "run", plan["plan_id"], "--reason", "x", "--confirm", "0"]

    assert plan["schema"] == "noticebus.v1/replay.plan"
    assert plan["counts"] == {"new": 0, "same": 0, "changed": 0, "blocked": 0}
    assert (plan["changes"], plan["items"]) == (0, [])
    assert cli.execute(run) == 0
    assert cli.execute(run) == 9
    assert cli.execute([*line, "run", str(uuid7()), "--reason", "x"]) == 3
    assert cli.execute([*line, "run", "%", "--reason", "x"]) == 3
    assert cli.execute([*line, "plan", "--since", "2026-01-02", "--until", "2026-01-01"]) == 2
    assert cli.execute([*line, "plan", "--to", "stream:x"]) == 2
    assert cli.execute([*line, "plan", "--to", "nowhere"]) == 2
    assert cli.execute([*line, "plan", "--notice", str(uuid7())]) == 3
    told = capsys.readouterr().err
    for code in ("NB-6019", "NB-6010", "NB-6011", "NB-6017", "NB-6024", "NB-6030"):
        assert code in told


async def plan(agency: Agency, *, target: Target = STORE, **selected: Any) -> Planned:
    return await replay.plan(
        agency.store,
        agency.name,
        selection=Selection(**selected),
        target=target,
        actor="operator",
    )


async def run(agency: Agency, planned: Planned, **given: Any) -> Ran:
    made: Plan = planned.plan
    return await replay.run(
        agency.store, agency.name, made, actor="operator", reason="drill", **given
    )
