"""Ids by their beginning on the command line: a variable that is not set names nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from services import cli, replay
from services.exchange import dead, redrive
from services.exchange.dead import Chosen
from services.exchange.process import delivery_of
from services.hhs.process import effects_of
from services.replay import Selection, Target
from tests.agencies import Pair, accept, trust, two_agencies
from tests.agencies import a_notice as drafted
from tests.steps import LIVE, change, on_stream, relay, rotate, rows

Run = Callable[..., Awaitable[tuple[int, str, str]]]

# What an act leaves behind, whichever it is: a record.
ACTS = "SELECT action FROM record ORDER BY record_id"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


@pytest.fixture
def run(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("NOTICEBUS_REDIS_URL", pair.redis_url)
    monkeypatch.setenv("NOTICEBUS_HOME", str(pair.ice.settings.home))

    async def run(agency: str, *words: str) -> tuple[int, str, str]:
        url = getattr(pair, agency).settings.database_url_required
        monkeypatch.setenv("NOTICEBUS_DATABASE_URL", url)
        code = await asyncio.to_thread(cli.execute, ["--agency", agency, *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


async def one_of_each(pair: Pair) -> UUID:
    """Leave one case, one dead letter, one redrive, one plan, one loss and one conflict at HHS."""
    taken, refused = drafted(), drafted()
    delivery = delivery_of(pair.hhs, effects_of(pair.hhs))
    await accept(pair.ice, taken)
    await relay(pair.ice, LIVE)
    await delivery.take(await on_stream(pair, LIVE))
    await rotate(pair)
    await accept(pair.ice, refused)
    await relay(pair.ice, LIVE)
    await delivery.take((await on_stream(pair, LIVE))[1:])
    [letter] = await redrive.chosen(pair.hhs, Chosen())
    await redrive.begin(pair.hhs, [letter], actor="clerk", reason="x")
    await trust(pair.hhs, pair.ice)
    await replay.plan(
        pair.hhs.store, "hhs", selection=Selection(), target=Target.of("store"), actor="x"
    )
    await change(
        pair.hhs,
        "INSERT INTO lost (lost_id, cause, found_at) VALUES (%s, 'nowhere', now())",
        uuid7(),
    )
    await change(
        pair.hhs,
        "INSERT INTO conflict (conflict_id, code, origin, size, known_note, told_note, found_at,"
        " last_at) VALUES (%s, 'NB-3021', 'x', 1, 'a', 'b', now(), now())",
        uuid7(),
    )
    return letter


async def test_no_command_takes_an_empty_id_or_a_pattern_for_the_only_one(
    pair: Pair, run: Run
) -> None:
    letter = await one_of_each(pair)
    before = await rows(pair.hhs, ACTS)

    for text in ("", "%", "____", "zz", str(letter)[:3]):
        for words in (
            ["dead", "show", text],
            ["dead", "redrive", text, "--reason", "x"],
            ["dead", "redrive", "--resume", text],
            ["dead", "discard", text, "--reason", "TEST", "--text", "x"],
            ["replay", "show", text],
            ["replay", "run", text, "--confirm", "0", "--reason", "x"],
            ["replay", "cancel", text, "--reason", "x"],
            ["replay", "plan", "--notice", text],
            ["queue", "take", text],
            ["queue", "release", text],
            ["queue", "outcome", text, "SAFE_MOVED"],
            ["notice", "trace", text],
            ["watch", "--no-follow", "--notice", text],
            ["proof", "build", "--notice", text, "--out", "proof.zip"],
            ["db", "restore", "--resolve", text, "--reason", "x"],
            ["ledger", "conflicts", "--resolve", text, "--reason", "x"],
        ):
            code, out, err = await run("hhs", *words)
            assert (code, out, "NB-6120" in err) == (3, "", True), (words, err)
    for words in (
        ["dead", "show", ""],
        ["notice", "show", ""],
        ["notice", "withdraw", "", "--reason", "DUPLICATE", "--yes"],
    ):
        code, out, err = await run("ice", *words)
        assert (code, out, "NB-6120" in err) == (3, "", True), (words, err)

    assert await rows(pair.hhs, ACTS) == before
    assert (await dead.show(pair.hhs, str(letter)[:13])).letter.dead_id == letter


async def test_an_id_that_is_not_here_is_not_found(pair: Pair, run: Run) -> None:
    for words, code in (
        (["db", "restore", "--resolve", "ffffffff", "--reason", "x"], "NB-5050"),
        (["db", "restore", "--resolve", "all", "--reason", "x"], "NB-5050"),
        (["ledger", "conflicts", "--resolve", "ffffffff", "--reason", "x"], "NB-3159"),
        (["dead", "redrive", "--resume", "ffffffff"], "NB-6072"),
        (["replay", "show", "ffffffff"], "NB-6010"),
    ):
        exit_code, out, err = await run("hhs", *words)
        assert (exit_code, out, code in err) == (3, "", True), (words, err)
