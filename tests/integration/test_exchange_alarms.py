"""What an agency cannot do now, or has to look at: it says so by its code, and goes on after it."""

import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from schemas.errors import UnavailableError, wordings
from services.exchange import rotation
from services.exchange.agency import Agency, open_agency
from services.exchange.process import delivery_of
from services.ice import notices
from services.ledger.store import Store
from tests.agencies import Pair, a_notice, accept, two_agencies, value
from tests.steps import LIVE, attributes_of, forged, relay, sent

OPEN_ALARM = "SELECT subject FROM alarm WHERE code = %s AND cleared_at IS NULL"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


@pytest.mark.parametrize(("minutes", "alarm"), [(6, LIVE), (4, None), (-600, None)])
async def test_a_sender_whose_clock_is_ahead_is_an_alarm_and_its_message_is_taken(
    pair: Pair, minutes: int, alarm: str | None
) -> None:
    (entry,) = await sent(pair, a_notice())
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    ahead = forged(pair, replace(attributes_of(entry), id=uuid7(), time=at))

    await delivery_of(pair.hhs, pair.hhs_noted).take([ahead])

    assert len(pair.hhs_noted.taken) == 1
    assert await value(pair.hhs, OPEN_ALARM, "NB-2121") == alarm
    assert "five minutes ahead of ours" in wordings()["NB-2121"].sentence


async def test_a_notice_is_refused_while_an_agency_has_no_streams(
    database: Callable[[str], str],
) -> None:
    """A store that was migrated, at an agency that has no keys yet and never ran."""
    async with await Store.open(database("ice")) as store:
        written = {
            "a_number": "A200000417",
            "family_name": "Child",
            "birth_date": "2012-05-04",
            "court": "HOU",
            "office": "HOU",
            "hearing": "2026-03-03T09:00",
        }
        with pytest.raises(UnavailableError, match="NB-4010 this agency has no streams") as caught:
            await notices.send(store, written, actor="officer")

        assert "noticebus keys generate" in caught.value.fix
        assert await notices.listed(store) == []


async def test_keys_that_cannot_be_read_again_leave_those_in_use(pair: Pair, home: Path) -> None:
    before, folder = pair.ice.ring, pair.ice.settings.keys_folder
    folder.rename(home / "elsewhere")

    with pytest.raises(UnavailableError, match="NB-4014 our keys cannot be read again") as caught:
        await pair.ice.reload()

    assert "key rotation may be under way" in caught.value.fix
    assert pair.ice.ring is before
    await sent(pair, a_notice())
    (home / "elsewhere").rename(folder)
    await pair.ice.reload()
    assert pair.ice.ring.signing.kid == before.signing.kid


async def test_a_copy_of_the_keys_from_before_a_rotation_is_not_read(
    pair: Pair, home: Path
) -> None:
    folder, copy = pair.ice.settings.keys_folder, home / "copy"
    shutil.copytree(folder, copy)
    await rotation.rotate_signing_key(pair.ice, actor="tester")
    shutil.rmtree(folder)
    copy.rename(folder)

    with pytest.raises(UnavailableError, match=r"NB-4014 .*\(NB-4033\)"):
        await pair.ice.reload()


async def test_messages_wait_while_the_key_that_was_just_read_has_ended_too(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody rotates a second time, in another process, while the relay reads the first."""
    reload, ended = Agency.reload, []
    async with open_agency(pair.ice.settings) as keeper:
        await rotation.rotate_signing_key(keeper, actor="tester")

        async def overtaken(agency: Agency) -> None:
            await reload(agency)
            monkeypatch.undo()
            ended.append(agency.ring.signing.kid)
            await rotation.rotate_signing_key(keeper, actor="tester")

        draft = a_notice()
        await accept(pair.ice, draft)
        monkeypatch.setattr(Agency, "reload", overtaken)

        with pytest.raises(UnavailableError) as caught:
            await relay(pair.ice, LIVE)

        assert str(caught.value).startswith(f"NB-3182 our signing key {ended[0]} has ended")
        assert caught.value.fix.startswith("Messages wait. Put back the newest files")
        assert await value(pair.ice, "SELECT count(*) FROM outbox") == 1
        await relay(pair.ice, LIVE)
        assert await value(pair.ice, "SELECT message_id FROM sent") == draft.message_id
        assert pair.ice.ring.signing.kid == keeper.ring.signing.kid
