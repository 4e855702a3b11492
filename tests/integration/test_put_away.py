"""A former encryption key goes once nothing that was encrypted to it is unanswered."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from schemas.canonical import parse
from schemas.envelope import encrypted_to
from schemas.errors import ConflictError, RejectedError
from services.backup.snapshot import verify_backup
from services.embedded import attach
from services.exchange import retiring, rotation
from services.exchange.process import delivery_of
from services.exchange.retiring import Former
from services.hhs.casework import CaseWork
from services.ice.effects import IceEffects
from services.keys import PUT_AWAY
from tests.agencies import (
    Pair,
    a_notice,
    accept,
    answered,
    running,
    trust,
    two_agencies,
    until,
    value,
)
from tests.command_line import CommandLine, introduce
from tests.command_line import until as waited
from tests.integration.test_cli_whole_way import SEND, state
from tests.restores import Drill, a_backup, at_rest, send
from tests.steps import LIVE, change, relay, rows, sent

BACKLOG = "{ice.hhs.backlog.0}:out"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def renewed(pair: Pair) -> str:
    """Let HHS have messages encrypted to a new key, which ICE trusts; returns the former one."""
    former = pair.hhs.ring.encryption_keys[0].kid
    await rotation.rotate_encryption_key(pair.hhs, actor="tester")
    await trust(pair.ice, pair.hhs)
    return former


async def only(pair: Pair) -> Former:
    [former] = await retiring.former_keys(pair.hhs)
    return former


async def test_a_former_key_is_put_away_once_what_was_encrypted_to_it_is_answered(
    pair: Pair,
) -> None:
    first, second, third = a_notice(), a_notice(), a_notice()
    [under_way] = await sent(pair, first)
    kid = await renewed(pair)
    newest = pair.hhs.ring.encryption_keys[0].kid
    assert encrypted_to(under_way.jws) == kid

    found = await only(pair)
    assert (found.kid, found.unheard) == (kid, (LIVE, BACKLOG))
    assert found.needed == ("1 entries on the bus are not taken yet",)
    with pytest.raises(ConflictError, match="NB-3252"):
        await retiring.put_away(pair.hhs, [kid], actor="tester")
    sealing = await retiring.sealing(pair.ice)
    assert (sealing.kid, sealing.unanswered, sealing.under_former) == (newest, 1, 1)
    async with pair.running():
        await accept(pair.ice, second)
        await until(lambda: answered(pair.ice, [first, second]), "both receipts")

    found = await only(pair)
    assert (found.needed, found.unheard) == ((), (BACKLOG,))
    sealing = await retiring.sealing(pair.ice)
    assert (sealing.kid, sealing.under_former) == (newest, 0)
    party = pair.hhs.ring.party()
    await retiring.put_away(pair.hhs, [kid], actor="tester")

    assert pair.hhs.ring.decryption.keys() == {newest}
    assert pair.hhs.ring.party() == party
    assert await retiring.former_keys(pair.hhs) == []
    [(record,)] = await rows(
        pair.hhs,
        "SELECT record FROM record WHERE action = 'keys.rotated' ORDER BY record_id DESC LIMIT 1",
    )
    assert parse(bytes(record))["detail"] == {
        "use": "encryption",
        "kid": kid,
        "step": "finished",
    }
    async with pair.running():
        # What comes once more was taken, and is answered again without being opened.
        await change(
            pair.ice, "UPDATE sent SET answer = NULL WHERE message_id = %s", first.message_id
        )
        await delivery_of(pair.hhs, pair.hhs_noted).take([under_way])
        await accept(pair.ice, third)
        await until(lambda: answered(pair.ice, [third]), "the receipt")
    assert await value(pair.hhs, "SELECT count(*) FROM dead_letter") == 0
    assert [taken.message_id for taken in pair.hhs_noted.taken] == [
        each.message_id for each in (first, second, third)
    ]


async def test_it_stays_while_something_held_dead_or_missing_is_encrypted_to_it(
    pair: Pair,
) -> None:
    held, poison, lost = a_notice(), a_notice(), a_notice()
    later = a_notice(held.notice_id, revision=2)
    entries = await sent(pair, later, poison, lost, a_notice())
    kid = await renewed(pair)
    pair.hhs_noted.fail = lambda taken: (
        RejectedError("NB-8002", kind="fta") if taken.message_id == poison.message_id else None
    )
    delivery = delivery_of(pair.hhs, pair.hhs_noted)

    await delivery.take([entries[0], entries[1], entries[3]])

    needed = (await only(pair)).needed
    assert needed[:3] == (
        "1 held messages are encrypted to it",
        "1 open dead letters are encrypted to it",
        "1 messages are missing on the way here",
    )
    with pytest.raises(ConflictError, match="1 open dead letters") as refused:
        await retiring.put_away(pair.hhs, [kid], actor="tester")
    assert refused.value.code == "NB-3252"
    assert kid in pair.hhs.ring.decryption


async def test_a_relay_that_knows_the_former_file_encrypts_nothing_more_to_its_key(
    pair: Pair,
) -> None:
    """A process that did not hear yet that somebody trusted a newer file."""
    stale = pair.ice.directory
    await renewed(pair)
    newest = pair.hhs.ring.encryption_keys[0].kid
    pair.ice.directory = stale

    await accept(pair.ice, a_notice())
    await relay(pair.ice, LIVE)

    [(envelope,)] = await rows(
        pair.ice, "SELECT envelope FROM envelope JOIN sent USING (message_id) WHERE kind = 'fta'"
    )
    assert encrypted_to(bytes(envelope)) == newest
    assert pair.ice.directory.encrypt_to.kid == newest


async def test_a_restore_reads_an_older_backup_and_opens_what_is_asked_for_again(
    pair: Pair, home: Path
) -> None:
    drill = Drill(pair, "hhs", home)
    async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
        await send(pair, 1, "before")
        await until(lambda: at_rest(pair), "the first notice")
        backup = await a_backup(pair.hhs, home)
        await send(pair, 2, "under the former key")
        await until(lambda: at_rest(pair), "the second notice")
        kid = await renewed(pair)
        await send(pair, 3, "under the newest key")
        await until(lambda: at_rest(pair), "the third notice")
        await retiring.put_away(pair.hhs, [kid], actor="tester")
    assert kid not in pair.hhs.ring.decryption
    assert verify_backup(backup.path, pair.hhs.ring).digest == backup.digest

    await drill.disaster(backup)
    await drill.adopted(await drill.told(None))

    async with drill.again() as again:
        assert kid in again.hhs.ring.decryption
        async with running(again.ice, IceEffects()), running(again.hhs, CaseWork()):
            await until(lambda: at_rest(again), "what HHS lost")
        assert await value(again.hhs, "SELECT count(*) FROM case_file") == 3
        assert await value(again.hhs, "SELECT count(*) FROM dead_letter") == 0


@pytest.fixture
def noticebus(tmp_path: Path) -> Iterator[CommandLine]:
    """Both agencies, with keys, trusting each other; servers run, their processes do not."""
    noticebus = CommandLine(tmp_path / "home")
    with attach(noticebus.home):
        for agency in ("ice", "hhs"):
            assert noticebus(f"--agency {agency} keys generate").code == 0
        introduce(noticebus, "ice")
        introduce(noticebus, "hhs")
        yield noticebus


FINISH = "--agency hhs keys rotate encryption --finish"


def checks(noticebus: CommandLine, agency: str) -> dict[str, str]:
    done = noticebus(f"--agency {agency} doctor -o json")
    return {each["check"]: f"{each['detail']} → {each['fix']}" for each in done.data["items"]}


@pytest.mark.timeout(300)
def test_the_renewal_is_finished_by_the_command_line(noticebus: CommandLine) -> None:
    nothing = noticebus(FINISH)
    assert (nothing.code, "NB-3253" in nothing.err) == (9, True)
    assert noticebus("--agency hhs keys rotate signing --finish").code == 2
    with noticebus.running("ice"), noticebus.running("hhs"):
        before = noticebus.json(SEND, "A200000701")["notice_id"]
        waited("the receipt", lambda: state(noticebus, before) == "receipted")
        rotated = noticebus.json("--agency hhs keys rotate encryption")["items"]
        former = next(each["key_id"] for each in rotated if each["state"] == "decrypt only")
        introduce(noticebus, "hhs")
        after = noticebus.json(SEND, "A200000702")["notice_id"]
        waited("the receipt", lambda: state(noticebus, after) == "receipted")

        told = checks(noticebus, "hhs")["opens"]
        assert f"the former encryption key {former[:12]} can be put away" in told
        assert "once `noticebus doctor` at ice says that nothing waits" in told
        assert "nothing waits under a former one" in checks(noticebus, "ice")["encrypts"]
        # Nothing came on one of the streams, so somebody has to say what no message told.
        unasked = noticebus(FINISH)
        assert (unasked.code, "NB-7008" in unasked.err) == (2, True)
        done = noticebus(f"--yes {FINISH}")
        assert done.code == 0, done.err
        assert f"{former[:12]} is in" in done.err
        assert "it opens backups and archives from before" in done.err

        shown = noticebus.json("--agency hhs keys show")["items"]
        [away] = [each for each in shown if each["state"] == "put away, for files"]
        assert away["key_id"] == former
        assert "opens" not in checks(noticebus, "hhs")
        assert list((noticebus.home / "hhs" / "keys" / PUT_AWAY).iterdir())
        last = noticebus.json(SEND, "A200000703")["notice_id"]
        waited("the receipt", lambda: state(noticebus, last) == "receipted")
