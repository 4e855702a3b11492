"""A cosignature that was lost is owed again, and whatever is lost, two idle sides stay silent."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.checkpoint import verify_checkpoint
from schemas.cosignature import cosignatures, cosigner
from services.exchange import rotation
from services.exchange.agency import Agency
from services.exchange.gauges import Gauges
from services.exchange.heads import Heads
from services.exchange.process import delivery_of
from services.ledger.records import make_record
from services.ledger.store import append
from services.telemetry import metrics
from tests.agencies import Pair, a_notice, accept, running, trust, two_agencies, until, value
from tests.command_line import CommandLine
from tests.steps import (
    OWED,
    TO_HHS,
    TO_ICE,
    change,
    is_sealed,
    on_stream,
    relay,
    rows,
    settled,
)

HEADS = "SELECT count(*) FROM sent WHERE kind = 'head'"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def grow(pair: Pair) -> None:
    """Put something on both sides' record, sealed and anchored, so that heads may tell of it."""
    for agency in (pair.ice, pair.hhs):
        async with agency.store.transaction() as tx:
            await append(tx, [make_record("keys.rotated", time=datetime.now(UTC))])
    async with pair.running(ice=("sealer",), hhs=("sealer",)):
        for agency in (pair.ice, pair.hhs):
            await until(lambda a=agency: is_sealed(a), "sealed")  # type: ignore[misc]  # a default binds it


async def tell(pair: Pair, *, rounds: int = 4) -> list[int]:
    """Let both sides look for something to tell, and read it, again and again; count the heads."""
    for _ in range(rounds):
        for agency, stream in ((pair.ice, TO_HHS), (pair.hhs, TO_ICE)):
            await Heads(agency).step()
            await relay(agency, stream)
        await delivery_of(pair.hhs, pair.hhs_noted).take(await on_stream(pair, TO_HHS))
        await delivery_of(pair.ice, pair.ice_noted).take(await on_stream(pair, TO_ICE))
    counts = [await value(agency, HEADS) for agency in (pair.ice, pair.hhs)]
    return [each for each in counts if isinstance(each, int)]


async def an_hour_passes(pair: Pair) -> None:
    for agency in (pair.ice, pair.hhs):
        await change(agency, "UPDATE head_told SET told_at = told_at - interval '1 hour'")
        await change(agency, "UPDATE peer_head SET cosigned_at = cosigned_at - interval '1 hour'")


async def rotate_too_early(agency: Agency) -> None:
    """Renew a cosigner key, and end the one before it while nobody trusts the new one."""
    for finish in (False, True):
        await rotation.rotate_note_key(agency, "cosigner", finish=finish, actor="tester")


async def test_a_cosignature_under_way_when_a_key_is_revoked_comes_under_the_next_one(
    pair: Pair,
) -> None:
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "cosigned")
    # HHS cosigns what grew at ICE, and ICE does not read the head that says so.
    only = ["relay", "sealer"]
    async with running(pair.ice, pair.ice_noted, only), running(pair.hhs, pair.hhs_noted):
        await accept(pair.ice, a_notice())
        await until(lambda: told_what_it_cosigned(pair), "HHS's head is on its way")

    await rotation.revoke_signing_key(pair.hhs, None, since=None, actor="t", reason="stolen")
    await trust(pair.ice, pair.hhs)

    async with pair.running():
        await until(lambda: settled(pair), "cosigned again")


async def told_what_it_cosigned(pair: Pair) -> bool:
    grown = await value(pair.ice, "SELECT max(size) FROM checkpoint")
    return (
        await is_sealed(pair.ice)
        and await value(pair.hhs, "SELECT size FROM peer_head") == grown
        and await value(pair.hhs, OWED) == 0
        and await value(pair.hhs, "SELECT count(*) FROM outbox") == 0
    )


async def test_what_a_key_cosigned_that_was_trusted_too_late_is_cosigned_again(pair: Pair) -> None:
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "cosigned")
        await rotate_too_early(pair.ice)
        before = await value(pair.hhs, "SELECT max(size) FROM cosignature")
        await accept(pair.ice, a_notice())
        await until(lambda: cosigned_in_vain(pair), "a cosignature that HHS cannot verify")
        assert await value(pair.hhs, "SELECT max(size) FROM cosignature") == before

        await trust(pair.hhs, pair.ice)

        await until(lambda: settled(pair), "cosigned again")
    size = await value(pair.hhs, "SELECT max(size) FROM cosignature")
    [(note, line)] = await rows(
        pair.hhs,
        "SELECT c.note, s.line FROM checkpoint AS c JOIN cosignature AS s USING (size)"
        " WHERE size = %s",
        size,
    )
    assert cosignatures(note + line, [cosigner(pair.ice.ring.cosigner)])


async def cosigned_in_vain(pair: Pair) -> bool:
    told = await value(pair.hhs, "SELECT size FROM head_told")
    return (
        told == await value(pair.ice, "SELECT size FROM peer_head")
        and told != await value(pair.hhs, "SELECT max(size) FROM cosignature")
        and await value(pair.ice, OWED) == 0
        and await value(pair.ice, "SELECT count(*) FROM outbox") == 0
    )


async def test_growth_that_the_other_agency_does_not_cosign_becomes_an_alarm_and_shows(
    pair: Pair,
) -> None:
    await grow(pair)
    await change(pair.ice, "ALTER TABLE checkpoint DISABLE TRIGGER ALL")
    await change(pair.ice, "UPDATE checkpoint SET sealed_at = sealed_at - interval '50 minutes'")
    started = datetime.now(UTC)
    ours = Heads(pair.ice)

    assert await shown(pair) == ("ok", False)
    await ours.step(started)
    assert await alarms(pair.ice) == []
    await change(pair.ice, "UPDATE checkpoint SET sealed_at = sealed_at - interval '10 minutes'")
    for seconds in (90, 91):
        await ours.step(started + timedelta(seconds=seconds))
    # Who was away until now reads first what was said meanwhile.
    await Heads(pair.hhs).step(started + timedelta(hours=12))

    assert await alarms(pair.ice) == [("NB-3230", "hhs", 1)]
    assert await alarms(pair.hhs) == []
    assert await shown(pair) == ("warning", True)
    await tell(pair)
    await ours.step()
    assert await alarms(pair.ice) == []
    assert await shown(pair) == ("ok", False)


async def alarms(agency: Agency) -> list[tuple[str, str, int]]:
    return await rows(agency, "SELECT code, subject, times FROM alarm WHERE cleared_at IS NULL")


def command_line(agency: Agency) -> CommandLine:
    environment = {
        "NOTICEBUS_AGENCY": agency.name,
        "NOTICEBUS_DATABASE_URL": agency.settings.database_url_required,
        "NOTICEBUS_REDIS_URL": agency.settings.redis_url_required,
    }
    return CommandLine(agency.settings.home, environment)


async def shown(pair: Pair) -> tuple[str, bool]:
    """Return what `doctor` says at ICE, and whether the gauge stands above an hour."""
    found = command_line(pair.ice)("doctor -o json").data["items"]
    checks = {each["check"]: each for each in found}
    assert checks["cosigner"]["detail"].startswith(f"{pair.hhs.ring.cosigner.name} cosigned ")
    await Gauges(pair.ice, ()).of_store()
    return checks["cosigner"]["state"], metrics.NOT_COSIGNED_SECONDS._value.get() >= 3600


async def test_what_others_cosigned_and_the_other_log_stand_beside_our_newest_checkpoint(
    pair: Pair,
) -> None:
    await grow(pair)
    await tell(pair)
    [(size, former)] = await rows(pair.ice, "SELECT size, note FROM checkpoint ORDER BY size")
    await grow(pair)
    newest = await value(pair.ice, "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1")
    [(line,)] = await rows(pair.ice, "SELECT line FROM cosignature WHERE size = %s", size)
    [(theirs,)] = await rows(pair.ice, "SELECT note || line FROM peer_head")
    command, there = command_line(pair.ice), command_line(pair.hhs)

    assert command("ledger checkpoint").out == (
        f"{newest}\n"
        f"The same log as {pair.hhs.ring.cosigner.name} cosigned it last, {size} records.\n\n"
        f"{former}{line}\n"
        f"The other agency's log as this agency cosigned it, {size} records.\n\n"
        f"{theirs}"
    )
    assert command("ledger checkpoint -o plain").out == newest
    # What is handed over has the keys to verify all that, and says where they can be compared.
    handed, own = (each("ledger checkpoint --inspector").out for each in (command, there))
    for note in (f"{former}{line}", theirs):
        assert note in handed
    log_key, cosigns = pair.hhs.ring.log_key.verifier, cosigner(pair.hhs.ring.cosigner)
    for prefix, named, vkey in (
        ("log key of hhs", "log key     ", log_key.vkey()),
        ("cosigner of hhs", "our cosigner", cosigns.vkey()),
    ):
        assert f"{prefix} {vkey}\n" in handed
        assert f"{named} {vkey}\n" in own
    assert verify_checkpoint(theirs, [log_key]).size == size
    party = await value(pair.ice, "SELECT fingerprint FROM party WHERE agency = 'hhs'")
    assert f"with this fingerprint:\n{party}\n" in handed


async def test_whoever_lost_our_cosignature_gets_it_with_the_next_head_by_our_key_of_today(
    pair: Pair,
) -> None:
    await grow(pair)
    await tell(pair)
    assert await settled(pair)
    size = await value(pair.hhs, "SELECT size FROM peer_head")
    kept = await rows(pair.hhs, "SELECT line, cosigned_at FROM peer_head")
    await change(pair.ice, "DELETE FROM cosignature")
    await an_hour_passes(pair)

    await tell(pair)

    assert await settled(pair)
    # The same key has the same to say, from when it said so first.
    assert await rows(pair.hhs, "SELECT line FROM peer_head") == [(kept[0][0],)]
    former = pair.hhs.ring.cosigner
    await rotate_too_early(pair.hhs)
    await trust(pair.ice, pair.hhs)
    await change(pair.ice, "DELETE FROM cosignature")
    await an_hour_passes(pair)
    await tell(pair)
    [(line,)] = await rows(pair.ice, "SELECT line FROM cosignature WHERE size = %s", size)
    note = await value(pair.ice, "SELECT note FROM checkpoint WHERE size = %s", size)
    assert cosignatures(f"{note}{line}", [cosigner(pair.hhs.ring.cosigner)])
    assert not cosignatures(f"{note}{line}", [cosigner(former)])


async def test_heads_that_crossed_owe_nothing_again(pair: Pair) -> None:
    """Both tell before they read: each says that it has nothing, while it is under way."""
    await grow(pair)

    counts = await tell(pair)

    # One that told of growth, one that brought the cosignature.
    assert await settled(pair)
    assert max(counts) <= 2
    assert await tell(pair) == counts


async def test_two_sides_that_do_not_know_each_others_keys_are_silent_for_an_hour_at_a_time(
    pair: Pair,
) -> None:
    await grow(pair)
    await tell(pair)
    for agency in (pair.ice, pair.hhs):
        await rotate_too_early(agency)
    await grow(pair)
    before = await tell(pair)
    assert await tell(pair) == before
    assert not await settled(pair)

    for _ in range(2):
        await an_hour_passes(pair)
        after = await tell(pair)

        # One that shows that it lives, and one that brings the cosignature once more.
        assert all(1 <= new - old <= 2 for old, new in zip(before, after, strict=True))
        assert await tell(pair) == after
        before = after
    await trust(pair.ice, pair.hhs)
    await trust(pair.hhs, pair.ice)
    async with pair.running():
        await until(lambda: settled(pair), "cosigned again")
