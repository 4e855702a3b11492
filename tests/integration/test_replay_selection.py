"""What a replay selects: parts of what was recorded, kept under a name, and nothing by mistake."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from schemas.envelope import Kind, Lane
from schemas.errors import NotFoundError, RejectedError
from services import cli, replay
from services.cli.exits import exit_code_of
from services.replay import Counts, DeadGroup, Selection, SequenceRange
from services.replay.selection import kind_of, lane_of
from tests.agencies import value
from tests.replays import Way, change, erase, last_record, plan
from tests.steps import LIVE


async def set_aside(way: Way, notices: str, *, cause: str, version: str) -> None:
    """Let messages look as if they had been set aside when they first came."""
    await change(
        way.hhs,
        "INSERT INTO dead_letter (dead_id, stream, entry_id, bytes_hash, bytes, cause,"
        " schema_version, authentic, message_id, first_at, last_at, state, state_at)"
        " SELECT gen_random_uuid(), stream, '1-1', sha256(message_id::text::bytea), '', %s, %s,"
        " true, message_id, now(), now(), 'redriven', now()"
        " FROM inbox WHERE notice_id = %s AND kind = 'fta'",
        cause,
        version,
        notices,
    )


async def test_each_part_selects_and_together_they_narrow(way: Way) -> None:
    everything = Selection()
    replies = (Kind.ACKNOWLEDGEMENT, Kind.OUTCOME)

    counted = {
        "two notices": await plan(way.hhs, notices=(way.closed, way.corrected)),
        "office of a correction": await plan(way.hhs, offices=("MIA",)),
        "two offices": await plan(way.hhs, offices=("MIA", "DAL")),
        "replies": await plan(way.hhs, kinds=replies),
        "lane": await plan(way.hhs, lanes=(Lane.BACKLOG,)),
        "sequences": await plan(way.hhs, sequences=(SequenceRange(LIVE, 2, 4),)),
        "open range": await plan(way.hhs, sequences=(SequenceRange(LIVE, 7),)),
        "notice and kind": await plan(way.hhs, notices=(way.closed,), kinds=(Kind.OUTCOME,)),
    }

    assert everything.everything
    assert {name: each.plan.counts.events for name, each in counted.items()} == {
        "two notices": 5,
        "office of a correction": 2,
        "two offices": 4,
        "replies": 3,
        "lane": 0,
        "sequences": 3,
        "open range": 2,
        "notice and kind": 1,
    }
    assert all(each.plan.counts.same == each.plan.counts.events for each in counted.values())


async def test_totals_by_office_add_up_to_the_plan(way: Way) -> None:
    await change(way.hhs, "UPDATE case_file SET outcome = 'MISSED_NO_ORDER' WHERE owner = 'clerk'")

    made = (await plan(way.hhs)).plan

    assert made.offices == {
        "DAL": Counts(same=1),
        "HOU": Counts(same=7, changed=2),
        "MIA": Counts(same=1),
    }
    assert (await replay.find(way.hhs.store, str(made.plan_id))) == made


async def test_a_group_of_dead_letters_selects_also_what_never_took_effect(way: Way) -> None:
    await set_aside(way, str(way.corrected), cause="NB-2025", version="fta/1.0")
    await set_aside(way, str(way.taken), cause="NB-2025", version="fta/0.9")
    await change(
        way.hhs,
        "UPDATE inbox SET state = 'refused' WHERE notice_id = %s AND revision = 2",
        way.corrected,
    )

    one = await plan(way.hhs, dead=(DeadGroup("NB-2025.fta-1.0"),))
    both = await plan(way.hhs, dead=(DeadGroup("NB-2025"),))
    with pytest.raises(NotFoundError) as never:
        await plan(way.hhs, dead=(DeadGroup("NB-2025.fta-7.0"),))

    assert one.plan.counts == Counts(same=1, blocked=1)
    assert [event.finding.cause for event in one.first] == ["NB-6034"]
    assert both.plan.counts == Counts(same=2, blocked=1)
    assert (never.value.code, exit_code_of(never.value)) == ("NB-6033", 3)


async def test_events_come_one_by_one_with_what_they_change_and_no_child(way: Way) -> None:
    await change(way.hhs, "DELETE FROM case_file WHERE notice_id = %s", way.corrected)
    await erase(way.hhs, way.taken)
    made = await plan(way.hhs)

    found = [
        event async for event in replay.events(way.hhs.store, "hhs", selection=made.plan.selection)
    ]

    assert [event for event in found if event.finding.standing != "same"] == list(made.first)
    changed = {each.field: each.after for each in made.first[0].finding.differences}
    assert changed["office"] == "HOU"
    numbers = await value(way.ice, "SELECT string_agg(a_number, ' ') FROM obligation")
    assert isinstance(numbers, str)
    assert not [number for number in numbers.split() if number in repr(found)]


async def test_a_selection_is_kept_under_a_name_and_on_record(way: Way) -> None:
    chosen = Selection(offices=("HOU",), kinds=(Kind.FTA,), sequences=(SequenceRange(LIVE, 1, 9),))
    for selection in (Selection(), chosen):
        await replay.save(way.hhs.store, "houston", selection, source="store", actor="operator")

    kept = await replay.saved(way.hhs.store, "houston")
    said = await last_record(way.hhs)
    with pytest.raises(NotFoundError) as unknown:
        await replay.saved(way.hhs.store, "dallas")
    with pytest.raises(RejectedError) as unfit:
        await replay.save(way.hhs.store, "Not A Name", chosen, source="store", actor="operator")

    assert (kept.selection, kept.source, kept.saved_by) == (chosen, "store", "operator")
    assert await replay.all_saved(way.hhs.store) == [kept]
    assert (said["action"], said["detail"]["name"]) == ("replay.saved", "houston")
    assert "HOU" not in json.dumps(said)
    assert (unknown.value.code, unfit.value.code) == ("NB-6043", "NB-7005")


def test_a_selection_reads_what_it_wrote() -> None:
    chosen = Selection(
        notices=(uuid4(),),
        sequences=(SequenceRange.of("{ice.hhs.live.0}:out:7"), SequenceRange(LIVE, 9)),
        lanes=(Lane.LIVE,),
        dead=(DeadGroup("NB-2025"), DeadGroup("NB-2027.fta-1.0")),
    )

    assert Selection.read(chosen.written()) == chosen
    assert not chosen.everything


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{ice.hhs.live.0}:out:9-3", "NB-6011"),
        ("{ice.hhs.live.0}:out", "NB-7005"),
        ("{ice.hhs.live.0}:out:a-b", "NB-7005"),
        ("ice.hhs.live.0:1-2", "NB-7005"),
        ("", "NB-7005"),
    ],
)
def test_a_range_that_is_none_is_refused(text: str, code: str) -> None:
    with pytest.raises(RejectedError) as caught:
        SequenceRange.of(text)

    assert caught.value.code == code


def test_words_of_no_kind_lane_or_group_are_refused() -> None:
    for read, text in ((kind_of, "receipts"), (lane_of, "control"), (DeadGroup.of, "signature")):
        with pytest.raises(RejectedError) as caught:
            read(text)
        assert caught.value.code == "NB-7005"


def test_bad_input_of_the_commands_says_code_and_fix(
    database: Callable[[str], str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", database("hhs"))
    monkeypatch.setenv("NOTICEBUS_HOME", str(home))
    line = ["--agency", "hhs", "replay"]
    for words, exit_code, code in (
        (["plan", "--office", "ZZZ"], 2, "NB-1003"),
        (["plan", "--kind", "head"], 2, "NB-7005"),
        (["plan", "--lane", "control"], 2, "NB-7005"),
        (["plan", "--dead", "x"], 2, "NB-7005"),
        (["plan", "--dead", "NB-2025"], 3, "NB-6033"),
        (["plan", "--sequence", "{ice.hhs.live.0}:out:9-1"], 2, "NB-6011"),
        (["plan", "--since", "2999-01-01"], 2, "NB-6121"),
        (["plan", "--since", "2999-01-01", "--until", "2999-01-02"], 2, "NB-6121"),
        (["plan", "--since", "2999-01-01", "--until", "2026-01-02"], 2, "NB-6011"),
        (["plan", "--sequence", "{ice.hhs.live.7}:out:1-9"], 3, "NB-6032"),
        (["plan", "--saved", "nothing"], 3, "NB-6043"),
        (["plan", "--saved", "nothing", "--office", "HOU"], 2, "NB-7011"),
        (["plan", "--save", "Not A Name"], 2, "NB-7005"),
        (["plan", "--from", "somewhere"], 2, "NB-6031"),
        (["plan", "--to", "shadow", "--office", "HOU"], 2, "NB-6040"),
        (["plan", "--to", "stream:{ice.hhs.live.0}:out"], 2, "NB-6030"),
        (["show", "0123"], 3, "NB-6010"),
        (["approve", "0123", "--reason", "x"], 3, "NB-6010"),
        (["pause", "0123", "--reason", " "], 2, "NB-7011"),
        (["cancel", "0123", "--reason", "x"], 3, "NB-6010"),
        (["list", "--state", "lost"], 2, "NB-7011"),
        (["run", "--to", "stream:{replay.x}", "--reason", "x"], 2, "NB-7011"),
        (["run", "0123", "--reason", " "], 2, "NB-7011"),
    ):
        assert cli.execute([*line, *words]) == exit_code, words
        told = capsys.readouterr()
        assert code in told.err, words
        assert "fix: " in told.err
        assert told.out == ""


def test_an_empty_selection_is_said_and_is_no_error(
    database: Callable[[str], str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", database("hhs"))
    monkeypatch.setenv("NOTICEBUS_HOME", str(home))
    line = ["--agency", "hhs", "replay"]

    assert cli.execute([*line, "list"]) == cli.execute([*line, "list", "--saved"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "No replay was planned here." in told.err
    assert cli.execute([*line, "plan", "--office", "HOU", "--save", "houston"]) == 0
    assert "Nothing is selected: no message from store fits" in capsys.readouterr().out
    assert cli.execute([*line, "plan", "--since", "7d", "--save", "week"]) == 0
    capsys.readouterr()
    then = datetime.now(UTC)
    assert cli.execute([*line, "plan", "--saved", "week", "--save", "again", "-o", "json"]) == 0
    since = datetime.fromisoformat(json.loads(capsys.readouterr().out)["since"])
    # Counted from when it was planned, not from when it was saved.
    assert then - timedelta(seconds=1) <= since + timedelta(days=7) <= datetime.now(UTC)
    assert cli.execute([*line, "list", "--saved", "-o", "json"]) == 0
    kept = {each["name"]: each for each in json.loads(capsys.readouterr().out)["items"]}
    for name in ("week", "again"):
        assert kept[name]["selects"]["since"] == "7d ago, when it is planned"
    assert cli.execute([*line, "plan", "--saved", "houston", "-o", "ndjson"]) == 0
    [said] = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert (said["what"], said["events"], said["selects"]["offices"]) == ("plan", 0, ["HOU"])
    assert cli.execute([*line, "list", "--saved", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"][1]["name"] == "houston"
    assert cli.execute([*line, "list", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 4
    assert cli.execute([*line, "show", said["plan_id"][:30], "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "planned"
    assert cli.execute([*line, "cancel", said["plan_id"], "--reason", "x", "-o", "csv"]) == 0
    assert "cancelled" in capsys.readouterr().out


def test_what_cannot_be_planned_is_not_saved(
    database: Callable[[str], str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", database("hhs"))
    monkeypatch.setenv("NOTICEBUS_HOME", str(home))
    line = ["--agency", "hhs", "replay"]

    ends = ["--since", "2026-01-02", "--until", "2026-01-01"]
    assert cli.execute([*line, "plan", *ends, "--save", "reversed"]) == 2
    assert "NB-6011" in capsys.readouterr().err
    assert cli.execute([*line, "plan", "--saved", "reversed"]) == 3


def test_every_run_has_a_reason_also_one_that_only_copies(
    database: Callable[[str], str],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", database("hhs"))
    monkeypatch.setenv("NOTICEBUS_HOME", str(home))
    line = ["--agency", "hhs", "replay"]
    copy = tmp_path / "copy.ndjson"

    assert cli.execute([*line, "plan", "--to", f"file:{copy}", "-o", "json"]) == 0
    plan_id = json.loads(capsys.readouterr().out)["plan_id"]
    for words in (["run", plan_id], ["run", "--to", "stdout"], ["run", "--to", f"file:{copy}"]):
        assert cli.execute([*line, *words]) == 2, words
        assert "--reason" in capsys.readouterr().err
        assert cli.execute([*line, *words, "--reason", " "]) == 2, words
        assert "NB-7011" in capsys.readouterr().err
    assert not copy.exists()
    assert cli.execute([*line, "run", plan_id, "--reason", "x", "--archive", str(copy)]) == 2
    assert cli.execute([*line, "run", plan_id, "--reason", "x"]) == 0
    assert copy.exists()
    capsys.readouterr()
    assert cli.execute([*line, "run", plan_id, "--reason", "x"]) == 9
    assert "NB-6019" in capsys.readouterr().err


def test_a_list_of_plans_says_how_long_each_holds(
    database: Callable[[str], str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = database("hhs")
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", url)
    monkeypatch.setenv("NOTICEBUS_HOME", str(home))
    line = ["--agency", "hhs", "replay"]
    assert cli.execute([*line, "plan"]) == 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE replay_plan SET expires_at = now() - interval '1 minute'")
    capsys.readouterr()

    assert cli.execute([*line, "list", "-o", "json"]) == 0
    [item] = json.loads(capsys.readouterr().out)["items"]
    assert cli.execute([*line, "list", "-o", "plain"]) == 0
    shown = capsys.readouterr().out
    assert cli.execute([*line, "list", "--state", "planned"]) == 0
    nothing = capsys.readouterr()

    assert item["state"] == "expired"
    assert "expired" in shown
    assert "No plan is planned." in nothing.err
