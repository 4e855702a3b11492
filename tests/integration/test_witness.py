"""A third witness: it cosigns what grew, delays nothing, and speaks up against a rollback."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.checkpoint import Checkpoint, Verifier
from schemas.cosignature import cosignatures
from services.exchange import heads
from services.exchange.agency import Agency
from services.exchange.witness import Witness
from services.exchange.witnessed import standing
from services.ledger.records import make_record
from services.ledger.store import append, log
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.bundles import members_of, ours, run_verify, signed_again, written
from tests.command_line import CommandLine
from tests.steps import change, rows, settled
from tests.witnesses import WitnessServer, a_witness

ALARM = "SELECT code FROM alarm WHERE cleared_at IS NULL"
SIZE = "SELECT size FROM log_head"
# Long for what has to be answered, and short for what must not hold us up.
ANSWER_SECONDS, SOON_SECONDS = 20.0, 0.3


@pytest.fixture
def witness() -> Iterator[WitnessServer]:
    with a_witness() as server:
        yield server


@pytest.fixture
async def pair(
    home: Path, database: Callable[[str], str], redis_url: str, witness: WitnessServer
) -> AsyncIterator[Pair]:
    third = {
        "vkey": witness.vkey,
        "url": witness.url,
        "every_seconds": 0.001,
        "answer_seconds": ANSWER_SECONDS,
    }
    async with two_agencies(home, database, redis_url, witness=third) as pair:
        yield pair


async def cosigned(agency: Agency, witness: WitnessServer) -> bool:
    """Say whether the witness cosigned all that there is."""
    async with agency.store.transaction() as tx:
        found = await standing(tx, witness.signer.name)
    return found.size > 0 and found.behind_since is None


async def grow(agency: Agency) -> None:
    """Put something on record, sealed and anchored, so that others may be told of it."""
    async with agency.store.transaction() as tx:
        await append(tx, [make_record("keys.rotated", time=datetime.now(UTC))])
    query = (
        "SELECT (SELECT count(*) FROM unsealed) + h.size - coalesce(a.size, 0)"
        " FROM log_head AS h LEFT JOIN anchored AS a USING (origin)"
    )
    await until(lambda: is_zero(agency, query), "it is sealed and anchored")


async def is_zero(agency: Agency, query: str) -> bool:
    return await value(agency, query) == 0


async def test_a_third_witness_cosigns_both_logs_beside_the_other_agency(
    pair: Pair, witness: WitnessServer, tmp_path: Path
) -> None:
    for agency in (pair.ice, pair.hhs):
        witness.knows(agency.ring.log_key)
    first, second = a_notice(), a_notice()
    async with pair.running():
        for draft in (first, second):
            await accept(pair.ice, draft)
            await until(lambda d=draft: answered(pair.ice, [d]), "the receipt")  # type: ignore[misc]  # a default binds it
            for agency in (pair.ice, pair.hhs):
                await until(lambda a=agency: cosigned(a, witness), "the witness")  # type: ignore[misc]  # a default binds it
        await until(lambda: both_saw(pair), "the other agency's cosignatures")
        sizes = [await value(agency, SIZE) for agency in (pair.ice, pair.hhs)]
        asked = len(witness.asked)
        await asyncio.gather(*(Witness(agency).step() for agency in (pair.ice, pair.hhs)))

    # Nothing is on record of it, and what did not grow is not shown again.
    assert [await value(agency, SIZE) for agency in (pair.ice, pair.hhs)] == sizes
    assert len(witness.asked) == asked
    # Growth is proven: somebody who only looked at the newest would have begun at 0 each time.
    assert any(old > 0 for old, _ in witness.asked)
    async with pair.ice.store.transaction() as tx:
        seen = await heads.seen(tx)
    assert seen is not None
    names = {each.name for each in seen.newest.cosignatures}
    assert names == {witness.signer.name, pair.hhs.ring.cosigner.name}
    known = [Verifier.parse(witness.vkey), *pair.ice.directory.cosigners]
    assert len(cosignatures(seen.newest.note, known)) == 2
    assert {each.name for each, _ in seen.witnesses} == names

    command = CommandLine(pair.ice.settings.home, environment_of(pair.ice))
    shown = command.json("--agency ice ledger checkpoint")
    assert {each["name"]: each["size"] for each in shown["witnesses"]} == dict.fromkeys(
        names, sizes[0]
    )
    handed = command("--agency ice ledger checkpoint --inspector").out
    assert f"third witness {witness.vkey}" in handed
    checks = {each["check"]: each for each in command("--agency ice doctor -o json").data["items"]}
    assert checks["witness"]["state"] == "ok"
    assert f"{witness.signer.name} cosigned {sizes[0]} records" in checks["witness"]["detail"]

    # In a bundle, checked by both programs; and a line that the witness did not make is named.
    assert first.notice_id is not None
    members = await members_of(pair.ice, tmp_path, first.notice_id)
    assert ours(members) is None
    said = run_verify(written(tmp_path, members))
    assert said.code == 0, said.last
    assert f"third witness {witness.vkey}" in said.out
    assert f"{witness.signer.name} saw it at" in said.out
    mark = witness.signer.name.encode()
    name = min(
        each for each in members if each.startswith("checkpoints/") and mark in members[each]
    )
    cheated = signed_again(pair.ice, {**members, name: with_another_letter(members[name], mark)})
    assert str(ours(cheated)).startswith(f"{name}: ")
    assert name in run_verify(written(tmp_path, cheated, "cheated.zip")).last


async def both_saw(pair: Pair) -> bool:
    return await settled(pair, cosignatures=2)


def with_another_letter(note: bytes, mark: bytes) -> bytes:
    """Return a note in which the signature of the line with `mark` differs in one letter."""
    line = next(each for each in note.split(b"\n") if mark in each)
    at = len(line) - 12
    other = b"A" if line[at : at + 1] != b"A" else b"B"
    return note.replace(line, line[:at] + other + line[at + 1 :])


def environment_of(agency: Agency) -> dict[str, str]:
    settings = agency.settings
    return {
        "NOTICEBUS_HOME": str(settings.home),
        "NOTICEBUS_DATABASE_URL": settings.database_url_required,
        "NOTICEBUS_REDIS_URL": settings.redis_url_required,
        "NOTICEBUS_WITNESS_VKEY": settings.witness.vkey or "",
        "NOTICEBUS_WITNESS_URL": settings.witness.url or "",
    }


async def test_what_a_witness_answers_is_believed_only_under_its_key(
    pair: Pair, witness: WitnessServer
) -> None:
    ice, name = pair.ice, witness.signer.name
    third = Witness(ice)
    with a_witness(name) as other:
        other.knows(ice.ring.log_key)
        async with pair.running(ice=("sealer",), hhs=()):
            await grow(ice)
            await third.step()
            # Its keeper does not know our log yet.
            assert await alarms(ice) == ["NB-3211"]
            assert not await cosigned(ice, witness)
            witness.knows(ice.ring.log_key)
            await third.step()
            assert await cosigned(ice, witness)
            assert await alarms(ice) == []

            await grow(ice)
            async with ice.store.transaction() as tx:
                newest = await log.newest_checkpoint(tx)
            assert newest is not None
            _, _, forged = other.add_checkpoint(f"old 0\n\n{newest[1]}")
            for status, content in (
                (200, forged),
                (200, b"all is well\n"),
                (409, b"many\n"),
                (400, b""),
            ):
                witness.instead = (status, content)
                await third.step()
                assert await alarms(ice) == ["NB-3211"], content
            assert not await cosigned(ice, witness)
            witness.instead = None
            await third.step()
            assert await alarms(ice) == []

            # What it cosigned and we no longer know is taken up from where it stands.
            await change(ice, "DELETE FROM cosignature")
            await grow(ice)
            stands = witness.seen[ice.ring.log_key.name].size
            witness.asked.clear()
            await third.step()
            size = await value(ice, SIZE)
            assert witness.asked == [(0, size), (stands, size)]
            assert await cosigned(ice, witness)


async def test_a_witness_that_saw_more_or_another_log_speaks_against_us(
    pair: Pair, witness: WitnessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ice, third = pair.ice, Witness(pair.ice)
    witness.knows(ice.ring.log_key)
    origin = ice.ring.log_key.name
    async with pair.running(ice=("sealer",), hhs=()):
        await grow(ice)
        await third.step()
        true = witness.seen[origin]
        await grow(ice)
        size = await value(ice, SIZE)
        assert isinstance(size, int)
        for claimed in (
            Checkpoint(origin, true.size + 1_000, bytes(32)),
            Checkpoint(origin, true.size, bytes(32)),
            # Another root for the very size that it is shown.
            Checkpoint(origin, size, bytes(32)),
        ):
            await change(ice, "UPDATE alarm SET cleared_at = now()")
            witness.seen[origin] = claimed
            await third.step()
            assert await alarms(ice) == ["NB-3212"], claimed
            assert not await cosigned(ice, witness)
        # One that cosigned more while it was asked is asked again later, and accused of nothing.
        await change(ice, "UPDATE alarm SET cleared_at = now()")
        told = iter([size, size + 1])
        monkeypatch.setattr(
            witness, "add_checkpoint", lambda _: (409, "text/x.tlog.size", b"%d\n" % next(told))
        )
        await third.step()
        assert await alarms(ice) == []
        monkeypatch.undo()
        witness.seen[origin] = true
        await third.step()
        assert await alarms(ice) == []
        assert await cosigned(ice, witness)


async def test_a_witness_that_is_silent_delays_no_receipt(
    pair: Pair, witness: WitnessServer
) -> None:
    for agency in (pair.ice, pair.hhs):
        witness.knows(agency.ring.log_key)
    witness.speaks.clear()
    third = Witness(pair.ice)
    soon = pair.ice.settings.witness.model_copy(update={"answer_seconds": SOON_SECONDS})
    settings = pair.ice.settings
    pair.ice.settings = settings.model_copy(update={"witness": soon})
    async with pair.running():
        for _ in range(3):
            draft = a_notice()
            await accept(pair.ice, draft)
            await until(lambda d=draft: answered(pair.ice, [d]), "the receipt", seconds=15)  # type: ignore[misc]  # a default binds it
        # Nor does one that answers, a byte at a time: the whole of an answer has to come in time.
        for pause_seconds in (0.0, 0.1):
            witness.pause_seconds = pause_seconds
            (witness.speaks.set if pause_seconds else witness.speaks.clear)()
            began = time.monotonic()
            await third.step()
            assert time.monotonic() - began < SOON_SECONDS + 5
            assert not await cosigned(pair.ice, witness)
        # An outage becomes an alarm when it lasts.
        assert await alarms(pair.ice) == []
        await third.step(now=datetime.now(UTC) + timedelta(hours=2))
        assert await alarms(pair.ice) == ["NB-3210"]
        witness.pause_seconds = 0.0
        pair.ice.settings = settings
        await until(lambda: cosigned(pair.ice, witness), "the witness, back again")
        assert await alarms(pair.ice) == []
        # And whoever stops an agency does not wait for a witness either.
        witness.speaks.clear()
        asked = witness.requests
        await accept(pair.ice, a_notice())
        await until(lambda: is_above(witness, asked), "the next request")
        began = time.monotonic()
    assert time.monotonic() - began < ANSWER_SECONDS / 2


async def is_above(witness: WitnessServer, asked: int) -> bool:
    return witness.requests > asked


async def test_one_of_the_two_agencies_is_no_third_witness(
    pair: Pair, witness: WitnessServer
) -> None:
    with a_witness(pair.hhs.ring.cosigner.name) as same:
        same.knows(pair.ice.ring.log_key)
        third = {"vkey": same.vkey, "url": same.url}
        changed = pair.ice.settings.witness.model_copy(update=third)
        pair.ice.settings = pair.ice.settings.model_copy(update={"witness": changed})
        async with pair.running(ice=("sealer",), hhs=()):
            await grow(pair.ice)
            await Witness(pair.ice).step()

        assert await alarms(pair.ice) == ["NB-3211"]
        assert same.asked == []


async def alarms(agency: Agency) -> list[str]:
    return [row[0] for row in await rows(agency, ALARM)]
