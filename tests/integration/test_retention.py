"""What closed notices said is erased when its time is over; what happened stays proven."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas import codes
from schemas.canonical import parse
from schemas.envelope import Kind, envelope_hash, read
from schemas.errors import EvidenceError, NoticeBusError, RejectedError
from schemas.jose import decrypt_jwe
from schemas.reply import Resend
from services.exchange import resending
from services.exchange.agency import Agency
from services.ledger.erasures import gone
from services.ledger.verify import verify as verify_ledger
from services.replay.shadow import shadow
from services.retention import Erased, due, emptied, erase
from tests.agencies import value
from tests.bundles import members_of, ours, run_verify, written
from tests.command_line import CommandLine
from tests.lives import Life
from tests.steps import change, rows

DAYS = codes.policy().retention_days
LATER = datetime.now(UTC) + timedelta(days=max(DAYS.values()) + 10)


async def erased_at(agency: Agency, now: datetime = LATER) -> Erased:
    found = await due(agency.store, agency.name, now=now)
    return await erase(
        agency.store, agency.name, found, actor="keeper", reason="retention", now=datetime.now(UTC)
    )


async def verifies(agency: Agency) -> None:
    report = await verify_ledger(agency.store, log_keys=[agency.ring.log_key.verifier])
    assert report.difference is None


async def contents(agency: Agency) -> set[Any]:
    """Return the notices of which a message's content or bytes are here."""
    found = await rows(
        agency,
        "SELECT DISTINCT m.notice_id FROM (SELECT notice_id, message_id FROM sent"
        " UNION SELECT notice_id, message_id FROM inbox) AS m"
        " LEFT JOIN payload AS p USING (message_id) LEFT JOIN envelope AS e USING (message_id)"
        " WHERE m.notice_id IS NOT NULL AND (p.body IS NOT NULL OR e.envelope IS NOT NULL)",
    )
    return {row[0] for row in found}


async def test_the_policy_says_how_long_and_nothing_is_erased_before(whole_life: Life) -> None:
    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        before = await contents(agency)
        found = await due(agency.store, agency.name)
        nearly = datetime.now(UTC) + timedelta(days=DAYS[agency.name]) - timedelta(hours=1)

        assert found.policy == codes.policy().version
        assert found.notices == 0
        assert (await due(agency.store, agency.name, now=nearly)).notices == 0
        assert (await erased_at(agency, now=nearly)).counts.notices == 0
        assert await contents(agency) == before


async def test_closed_notices_lose_what_they_said_and_open_ones_nothing(whole_life: Life) -> None:
    closed = {
        "hhs": "SELECT notice_id FROM case_file WHERE state IN ('closed', 'withdrawn')",
        "ice": "SELECT notice_id FROM notice WHERE state IN ('closed', 'withdrawn')",
    }
    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        over = {row[0] for row in await rows(agency, closed[agency.name])}
        before = await contents(agency)
        assert over & before
        assert before - over

        run = await erased_at(agency)

        assert run.counts.notices >= len(over)
        assert await contents(agency) == before - over
        assert (await erased_at(agency)).counts.notices == 0
        names = (
            "SELECT count(*) FROM opening JOIN record USING (record_id) WHERE notice_id = ANY(%s)"
        )
        assert await value(agency, names, list(over)) == 0
        unpaid = (
            "SELECT count(*) FROM payload"
            " WHERE body IS NULL AND (salt IS NOT NULL OR erased_at IS NULL)"
        )
        assert await value(agency, unpaid) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE inbox SET state = 'held' WHERE notice_id = %s",
        "UPDATE inbox SET state = 'refused' WHERE notice_id = %s",
        "UPDATE sent SET answer = NULL WHERE notice_id = %s",
        "UPDATE sent SET answer = 'refusal' WHERE notice_id = %s",
        "UPDATE case_file SET state = 'unowned', owner = NULL, lease_until = NULL"
        " WHERE notice_id = %s",
        "INSERT INTO unsealed (record_id) SELECT max(record_id) FROM record WHERE notice_id = %s",
        "INSERT INTO outbox (stream, message_id, kind, notice_id, made_at)"
        " SELECT stream, gen_random_uuid(), kind, notice_id, now() FROM sent"
        " WHERE notice_id = %s LIMIT 1",
        "INSERT INTO dead_letter (dead_id, stream, entry_id, bytes_hash, bytes, cause, authentic,"
        " notice_id, first_at, last_at, state, state_at) VALUES (gen_random_uuid(), 's', '1-1',"
        " '\\x00', '\\x00', 'NB-8003', true, %s, now(), now(), 'open', now())",
    ],
)
async def test_what_is_open_in_any_way_is_never_erased(whole_life: Life, statement: str) -> None:
    hhs = whole_life.pair.hhs
    closed = await value(
        hhs,
        "SELECT notice_id FROM case_file WHERE state = 'closed' AND notice_id IN"
        " (SELECT notice_id FROM sent) ORDER BY notice_id LIMIT 1",
    )
    before = (await due(hhs.store, "hhs", now=LATER)).notices
    await change(hhs, statement, closed)

    found = await due(hhs.store, "hhs", now=LATER)
    await erased_at(hhs)

    assert found.notices == before - 1
    assert closed in await contents(hhs)


async def test_no_key_of_ours_opens_what_was_erased(whole_life: Life) -> None:
    hhs = whole_life.pair.hhs
    sealed = {row[0]: bytes(row[1]) for row in await rows(hhs, "SELECT * FROM envelope")}
    await change(
        hhs,
        "INSERT INTO dead_letter (dead_id, stream, entry_id, bytes_hash, bytes, cause, authentic,"
        " message_id, notice_id, first_at, last_at, state, state_at)"
        " SELECT gen_random_uuid(), inbox.stream, '1-1', sha256(envelope), envelope, 'NB-8003',"
        " true, inbox.message_id, inbox.notice_id, now(), now(), 'redriven', now()"
        " FROM inbox JOIN envelope USING (message_id) JOIN case_file USING (notice_id)"
        " WHERE case_file.state = 'closed' AND inbox.state = 'applied' LIMIT 1",
    )

    run = await erased_at(hhs)

    whole = (
        "SELECT count(*) FROM dead_letter AS d JOIN erased_envelope AS e USING (message_id)"
        " WHERE d.authentic AND d.erasure_id IS NULL"
    )
    assert run.counts.letters == 1
    assert await value(hhs, whole) == 0

    left = await rows(hhs, "SELECT message_id, envelope FROM erased_envelope")
    left += await rows(
        hhs, "SELECT message_id, bytes FROM dead_letter WHERE erasure_id IS NOT NULL"
    )
    assert len(left) > 5
    for message_id, envelope in left:
        said = parse(read(bytes(envelope)).payload)
        assert said["data"] == ""
        assert (
            await value(hhs, "SELECT count(*) FROM envelope WHERE message_id = %s", message_id) == 0
        )
        with pytest.raises(RejectedError):
            decrypt_jwe(said["data"], hhs.ring.decryption, apu=b"x", apv=b"y")
        if message_id in sealed:
            # What can be checked still can: who signed, and what the attributes were.
            before, after = read(sealed[message_id]), read(bytes(envelope))
            assert (before.kid, before.signature) == (after.kid, after.signature)
            assert before.claims == after.claims
            known = (
                "SELECT envelope_hash FROM inbox WHERE message_id = %s"
                " UNION ALL SELECT envelope_hash FROM sent WHERE message_id = %s"
            )
            assert await value(hhs, known, message_id, message_id) == before.hash
            assert envelope_hash(bytes(envelope)) != before.hash


async def test_the_ledger_verifies_and_counts_what_is_gone_by_policy(whole_life: Life) -> None:
    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        assert (await gone(agency.store)).by_policy == {}

        run = await erased_at(agency)

        await verifies(agency)
        version = codes.policy().version
        assert (await gone(agency.store)).by_policy == {version: run.counts.payloads}
        [(record,)] = await rows(
            agency, "SELECT record FROM record WHERE action = 'content.erased'"
        )
        said = parse(bytes(record))
        assert said["policy"] == version
        assert said["detail"]["run"] == str(run.run_id)
        counts = {name: said["detail"][name] for name in run.counts.said()}
        assert counts == run.counts.said()


async def test_contents_that_went_another_way_are_found(whole_life: Life) -> None:
    hhs = whole_life.pair.hhs
    await erased_at(hhs)
    cases = (
        "UPDATE payload SET salt = NULL, body = NULL, erased_at = now() WHERE message_id ="
        " (SELECT message_id FROM payload WHERE body IS NOT NULL LIMIT 1)",
        "UPDATE payload SET salt = NULL, body = NULL, erased_at = now(),"
        " erasure_id = (SELECT erasure_id FROM erasure) WHERE message_id ="
        " (SELECT message_id FROM payload WHERE body IS NOT NULL LIMIT 1)",
        "UPDATE erasure SET policy = 'P-0'",
        "UPDATE payload SET erasure_id = gen_random_uuid() WHERE erasure_id IS NOT NULL",
    )
    for statement in cases:
        await change(hhs, "CREATE TABLE kept AS SELECT * FROM payload")
        await change(hhs, "CREATE TABLE kept_erasure AS SELECT * FROM erasure")
        await change(hhs, statement)

        with pytest.raises(EvidenceError, match="NB-3120"):
            await gone(hhs.store)

        for table, kept in (("payload", "kept"), ("erasure", "kept_erasure")):
            await change(hhs, f"DELETE FROM {table}")  # noqa: S608 - constants
            await change(hhs, f"INSERT INTO {table} SELECT * FROM {kept}")  # noqa: S608 - constants
            await change(hhs, f"DROP TABLE {kept}")
        await gone(hhs.store)


async def test_a_rebuild_shows_tombstones_and_no_difference(whole_life: Life) -> None:
    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        run = await erased_at(agency)

        found = await shadow(agency.store, agency.name)

        assert not found.differing, found.differences
        assert found.tombstones >= run.counts.payloads


async def test_a_bundle_still_proves_what_was_erased(whole_life: Life, tmp_path: Path) -> None:
    for agency in (whole_life.pair.ice, whole_life.pair.hhs):
        await erased_at(agency)

        members = await members_of(agency, tmp_path, whole_life.notices[2], reason="a drill")

        erased = [name for name in members if name.endswith(".erased.jws")]
        assert erased
        assert not [name for name in members if "/revealed/" in name]
        assert ours(members) is None
        verdict = run_verify(written(tmp_path, members))
        assert verdict.code == 0, verdict.out
        assert "signed the bytes with the hash that the records name" in verdict.out


async def test_what_was_erased_is_never_sent_again(whole_life: Life) -> None:
    ice = whole_life.pair.ice
    await erased_at(ice)
    [(stream, generation, sequence), *_] = await rows(
        ice,
        "SELECT stream, generation, sequence FROM sent JOIN erased_envelope USING (message_id)",
    )

    async with ice.store.transaction() as tx:
        provided = await resending.provide(
            tx,
            Resend(stream=stream, generation=generation, first=sequence, last=sequence),
            now=datetime.now(UTC),
        )

    assert (provided.asked, provided.void) == (0, 1)


async def test_bytes_of_a_dead_letter_change_by_erasure_alone(whole_life: Life) -> None:
    hhs = whole_life.pair.hhs
    for statement in (
        "UPDATE dead_letter SET bytes = '\\x00'",
        "UPDATE dead_letter SET bytes = bytes || '\\x00', erasure_id = gen_random_uuid()",
        "UPDATE dead_letter SET bytes_hash = '\\x00', erasure_id = gen_random_uuid()",
    ):
        with pytest.raises(Exception, match="the bytes of a dead letter stay"):
            await change(hhs, statement)


async def test_only_encrypted_content_is_emptied(whole_life: Life) -> None:
    control = await value(
        whole_life.pair.ice,
        "SELECT envelope FROM envelope JOIN inbox USING (message_id) WHERE kind = %s LIMIT 1",
        str(Kind.RECEIPTS),
    )
    assert isinstance(control, bytes)

    with pytest.raises(NoticeBusError, match="NB-2007"):
        emptied(control)


async def test_the_command_counts_asks_and_refuses_what_it_did_not_count(whole_life: Life) -> None:
    settings = whole_life.pair.hhs.settings
    noticebus = CommandLine(
        settings.home, {"NOTICEBUS_DATABASE_URL": settings.database_url_required}
    )

    counted = noticebus.json("--agency hhs db erase --dry-run")

    assert counted["due"] == 0
    assert counted["policy"] == codes.policy().version
    assert counted["retention_days"] == DAYS["hhs"]
    assert noticebus("--agency hhs db erase").code == 2
    assert noticebus("--agency hhs db erase", "--reason", " ").code == 2
    for name in ("record", "log_entry"):
        await change(whole_life.pair.hhs, f"ALTER TABLE {name} DISABLE TRIGGER ALL")
    await change(
        whole_life.pair.hhs, "UPDATE record SET recorded_at = recorded_at - interval '20 years'"
    )

    due_now = noticebus.json("--agency hhs db erase --dry-run")["due"]
    wrong = noticebus("--agency hhs db erase --reason x --confirm 1000")
    unasked = noticebus("--agency hhs db erase --reason x")
    done = noticebus.json(f"--agency hhs db erase --reason over --confirm {due_now}")

    assert due_now > 0
    assert (wrong.code, unasked.code) == (2, 2)
    assert done["notices"] == due_now
    assert done["payloads"] > 0
    await change(
        whole_life.pair.hhs,
        "UPDATE record SET recorded_at = recorded_at + interval '20 years'"
        " WHERE action <> 'content.erased'",
    )
    told = noticebus("--agency hhs ledger verify")
    assert told.code == 0, told.err
    assert f"{done['payloads']} contents were erased by policy {done['policy']}" in told.out
    await change(
        whole_life.pair.hhs, "UPDATE payload SET salt = NULL, body = NULL, erased_at = now()"
    )
    broken = noticebus("--agency hhs ledger verify -o json")
    assert broken.code == 6
    assert broken.data["difference"]["code"] == "NB-3120"
