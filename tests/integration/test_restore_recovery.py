"""What comes back after a restore, what is named as lost, and what is never believed."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from schemas.canonical import b64, canonical
from schemas.envelope import source_of
from schemas.errors import ConflictError, EvidenceError, NotFoundError, RejectedError
from schemas.jose import PublicEncryptionKey
from services.backup import container, seen
from services.backup.adopting import recover, resolve
from services.backup.container import Content, Header
from services.backup.report import Report, look
from services.exchange.outbox import Draft
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice.effects import IceEffects
from services.keys import KeyRing
from services.ledger.store import Store
from services.ledger.verify import verify
from tests.agencies import Pair, a_notice, accept, running, two_agencies, until, value
from tests.restores import Database, Drill, a_backup, at_rest, count, send
from tests.steps import change, upkeep

REASON = "told by telephone"


@pytest.fixture
async def pair(home: Path, database: Database, redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def report_of(drill: Drill) -> Report:
    async with await Store.open(drill.url) as store:
        return await look(store)


async def test_hhs_takes_the_notices_again_and_names_the_work_that_is_gone(
    pair: Pair, home: Path
) -> None:
    """A case that was taken after the backup is taken again, under the next revision."""
    drill = Drill(pair, "hhs", home)
    async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
        await send(pair, 3, "before")
        await until(lambda: at_rest(pair), "the first notices")
        backup = await a_backup(pair.hhs, home)
        await send(pair, 5, "after")
        await until(lambda: at_rest(pair), "the later notices")
        [*_, taken] = await queue.listed(pair.hhs.store)
        await queue.take(pair.hhs.store, taken.notice_id, actor="clerk")
        await queue.outcome(pair.hhs.store, taken.notice_id, code="SAFE_MOVED", actor="clerk")
        await until(lambda: at_rest(pair), "acknowledgement and outcome")

    await drill.disaster(backup)
    adopted = await drill.adopted(await drill.told(backup.header.made_at))

    assert adopted.recovered is not None
    async with drill.again() as pair:
        async with running(pair.ice, IceEffects()), running(pair.hhs, CaseWork()):
            await until(lambda: at_rest(pair), "the notices again")
            assert await count(pair.hhs, "SELECT count(*) FROM case_file") == 5
            found = await look(pair.hhs.store)
            assert [(each.cause, each.kind, each.notice_id) for each in found.lost] == [
                ("work", "acknowledgement", taken.notice_id),
                ("work", "outcome", taken.notice_id),
            ]
            await queue.take(pair.hhs.store, taken.notice_id, actor="clerk")
            await queue.outcome(pair.hhs.store, taken.notice_id, code="SAFE_MOVED", actor="clerk")
            await until(lambda: at_rest(pair), "the work told again")
        revisions = await value(
            pair.ice,
            "SELECT array_agg(revision ORDER BY revision) FROM reply WHERE notice_id = %s",
            taken.notice_id,
        )
        assert revisions == [1, 2, 3, 4]
        alarms = "SELECT count(*) FROM alarm WHERE code = 'NB-3064' AND cleared_at IS NULL"
        assert await count(pair.hhs, alarms) == 1
        await resolve(pair.hhs.store, str(found.lost[0].lost_id), actor="x", reason=REASON)
        assert await count(pair.hhs, alarms) == 1
        await resolve(pair.hhs.store, "all", actor="x", reason=REASON)
        assert await count(pair.hhs, alarms) == 0
        with pytest.raises(NotFoundError, match="NB-5050"):
            await resolve(pair.hhs.store, "all", actor="x", reason=REASON)
        assert await count(pair.ice, "SELECT count(*) FROM dead_letter") == 0
        for agency in (pair.ice, pair.hhs):
            report = await verify(agency.store, log_keys=[agency.ring.log_key.verifier])
            assert report.difference is None


async def with_lost_messages(pair: Pair, drill: Drill) -> tuple[Path, list[Draft]]:
    """Send two notices before the backup and two after it, and lose the latter."""
    before, after = [a_notice() for _ in range(2)], [a_notice() for _ in range(2)]
    async with pair.running():
        await accept(pair.ice, *before)
        await until(lambda: at_rest(pair), "the first receipts")
        backup = await a_backup(pair.ice, drill.folder)
        await accept(pair.ice, *after)
        await until(lambda: at_rest(pair), "the later receipts")
    await drill.disaster(backup)
    return await drill.told(backup.header.made_at), after


async def test_an_answer_that_a_restore_lost_is_late_only_when_it_does_not_come_again(
    pair: Pair, home: Path
) -> None:
    """They were answered long ago; whether the other side answers again is another question."""
    drill = Drill(pair, "ice", home)
    file, after = await with_lost_messages(pair, drill)
    await drill.adopted(file)
    overdue = "SELECT count(*) FROM record WHERE action = 'answer.overdue'"

    async with drill.again() as pair:
        long_ago = "UPDATE sent SET sequenced_at = sequenced_at - interval '1 day'"
        await change(pair.ice, f"{long_ago} WHERE answer IS NULL")
        settings = pair.ice.settings
        for seconds, late in ((60.0, 0), (0.001, len(after))):
            relay = settings.relay.model_copy(update={"answer_seconds": seconds})
            pair.ice.settings = settings.model_copy(update={"relay": relay})
            await upkeep(pair.ice)
            marked = "SELECT count(*) FROM sent WHERE overdue_at IS NOT NULL"
            assert await count(pair.ice, marked) == late
            assert await count(pair.ice, overdue) == (1 if late else 0)


async def test_content_that_the_other_side_erased_is_named(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    file, after = await with_lost_messages(pair, drill)
    await change(
        pair.hhs,
        "UPDATE payload SET body = NULL, salt = NULL, erased_at = now() WHERE message_id = %s",
        after[0].message_id,
    )
    file.unlink()

    adopted = await drill.adopted(await drill.told(None))

    assert adopted.recovered is not None
    found = await report_of(drill)
    assert [(each.cause, each.message_id) for each in found.lost] == [
        ("content", after[0].message_id)
    ]


async def test_what_nobody_has_is_declared_void(pair: Pair, home: Path) -> None:
    """The other side waits for a message that was lost on the way, and that we lost too."""
    drill = Drill(pair, "ice", home)
    file, after = await with_lost_messages(pair, drill)
    await change(pair.hhs, "DELETE FROM inbox WHERE message_id = %s", after[0].message_id)
    await change(
        pair.hhs,
        "INSERT INTO gap (stream, generation, first_sequence, last_sequence, detected_at)"
        " VALUES ('{ice.hhs.live.0}:out', 1, 3, 3, now())",
    )
    file.unlink()

    await drill.adopted(await drill.told(None))

    found = await report_of(drill)
    assert [(each.cause, each.first_sequence, each.last_sequence) for each in found.lost] == [
        ("nowhere", 3, 3)
    ]
    async with drill.again() as pair, pair.running():
        await until(lambda: at_rest(pair), "the void")
    assert await count(pair.hhs, "SELECT count(*) FROM voided") == 1


async def test_what_stood_in_the_outbox_and_was_sent_since_keeps_its_id(
    pair: Pair, home: Path
) -> None:
    """Accepted before the backup, numbered after it: the same message, not a twin."""
    drill = Drill(pair, "ice", home)
    draft = a_notice()
    await accept(pair.ice, draft)
    backup = await a_backup(pair.ice, home)
    async with pair.running():
        await until(lambda: at_rest(pair), "the receipt")
    await drill.disaster(backup)

    await drill.adopted(await drill.told(backup.header.made_at))

    async with drill.again() as pair:
        assert await count(pair.ice, "SELECT count(*) FROM outbox WHERE kind = 'fta'") == 0
        async with pair.running():
            await until(lambda: at_rest(pair), "the receipt again")
        assert (
            await value(pair.ice, "SELECT answer FROM sent WHERE message_id = %s", draft.message_id)
            == "receipt"
        )
        assert await count(pair.hhs, "SELECT count(*) FROM dead_letter") == 0
        assert (await look(pair.ice.store)).lost == []


async def test_without_the_other_side_every_stream_is_named_and_the_file_still_fills_it(
    pair: Pair, home: Path
) -> None:
    drill = Drill(pair, "ice", home)
    file, after = await with_lost_messages(pair, drill)

    adopted = await drill.adopted(None)

    assert adopted.recovered is None
    found = await report_of(drill)
    assert {(each.cause, each.stream, each.first_sequence) for each in found.lost} == {
        ("unknown", "{ice.hhs.live.0}:out", 3),
        ("unknown", "{ice.hhs.backlog.0}:out", 1),
    }
    async with await Store.open(drill.url) as store:
        done = await recover(store, pair.ice.settings, file=file, actor="x", reason=REASON)
        assert done.recovered >= len(after)
        again = await recover(store, pair.ice.settings, file=file, actor="x", reason=REASON)
        assert (again.recovered, again.asked) == (0, 0)


async def test_a_store_that_waits_refuses_every_change(pair: Pair, home: Path) -> None:
    """Also one that a process, or a person, has opened before."""
    drill = Drill(pair, "ice", home)
    await with_lost_messages(pair, drill)

    async with await Store.open(drill.url) as store:
        for statement in (
            "INSERT INTO record (action, recorded_at, record) VALUES ('x', now(), '')",
            "INSERT INTO log_entry VALUES (1000, 1000)",
            "UPDATE log_head SET size = size",
            "DELETE FROM outbox",
            "UPDATE sent SET overdue_at = now()",
            "UPDATE inbox SET state = 'held'",
        ):
            with pytest.raises(EvidenceError, match="NB-3060"):
                await write(store, statement)


async def write(store: Store, statement: str) -> None:
    async with store.transaction() as tx:
        await tx.execute(statement)


async def test_a_process_that_ran_on_ends_instead_of_going_on(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    await with_lost_messages(pair, drill)
    async with await Store.open(drill.url) as store:
        pair.ice.store = store

        with pytest.raises(BaseExceptionGroup) as ended:
            async with pair.running(hhs=()):
                await until(lambda: value_of_nothing(), "the end", seconds=1)

    assert ended.value.subgroup(
        lambda error: isinstance(error, EvidenceError) and error.code in ("NB-3060", "NB-3150")
    )


async def value_of_nothing() -> bool:
    return False


async def test_adopting_again_is_refused(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    file, _ = await with_lost_messages(pair, drill)
    await drill.adopted(file)

    with pytest.raises(ConflictError, match="NB-5045"):
        await drill.adopted(file)


async def test_an_adoption_that_was_cut_off_goes_on_with_its_generation(
    pair: Pair, home: Path
) -> None:
    """The ring has the new generation already, the store not yet."""
    drill = Drill(pair, "ice", home)
    file, _ = await with_lost_messages(pair, drill)
    async with await Store.open(drill.url) as store, store.transaction() as tx:
        await tx.execute("UPDATE restoration SET generation = 2")
    KeyRing.begin_generation(pair.ice.settings.keys_folder, 2)

    adopted = await drill.adopted(file)

    assert (adopted.generation, adopted.origin[-2:]) == (2, "/2")
    assert adopted.old_origin.endswith("/1")


async def test_a_second_disaster_begins_a_third_generation(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    file, _ = await with_lost_messages(pair, drill)
    await drill.adopted(file)
    async with drill.again() as pair:
        drill.pair = pair
        file.unlink()
        second, _ = await with_lost_messages(pair, drill)
        adopted = await drill.adopted(second)
    assert adopted.generation == 3
    async with drill.again() as pair:
        async with pair.running():
            await until(lambda: at_rest(pair), "both recoveries")
            late = a_notice()
            await accept(pair.ice, late)
            await until(lambda: at_rest(pair), "the third generation")
        assert {each.origin[-2:] for each in (await look(pair.ice.store)).former} == {"/1", "/2"}
        assert await count(pair.hhs, "SELECT count(*) FROM inbox WHERE kind = 'fta'") == 9


def forged(pair: Pair, path: Path, lines: list[dict[str, str | None]]) -> Path:
    """Write a file of what HHS has seen, signed by HHS, with these messages in it."""
    hhs, ice = pair.hhs, pair.ice
    file = io.BytesIO()
    header = Header(
        content=Content.SEEN,
        sender=hhs.source,
        recipient=source_of(ice.ring.domain, "ice"),
        made_at=datetime.now(UTC),
        about={"agency": "hhs"},
    )
    to = PublicEncryptionKey.of(ice.ring.encryption_keys[0].private.public_key())
    writer = container.write_header(file, header, to=to, signing=hhs.ring.signing)
    writer.begin("streams", read=[], wrote=[], generation=1, since=None)
    writer.end(rows=0)
    writer.begin("messages")
    for line in lines:
        writer.write(canonical(line) + b"\n")
    writer.end(rows=len(lines))
    writer.finish()
    path.write_bytes(file.getvalue())
    return path


async def envelope_of(pair: Pair, message_id: UUID) -> bytes:
    found = await value(pair.hhs, "SELECT envelope FROM envelope WHERE message_id = %s", message_id)
    assert isinstance(found, bytes)
    return found


async def test_content_that_we_did_not_commit_to_is_not_believed(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    _, after = await with_lost_messages(pair, drill)
    other = a_notice(after[0].notice_id)
    line: dict[str, str | None] = {
        "envelope": (await envelope_of(pair, after[0].message_id)).decode(),
        "salt": b64(other.salt),
        "body": b64(other.body),
    }

    with pytest.raises(EvidenceError, match="NB-3063"):
        await drill.adopted(forged(pair, home / "forged", [line]))

    found = await report_of(drill)
    assert found.restorations[0].adopted_at is None


async def test_messages_of_somebody_else_are_not_believed(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    await with_lost_messages(pair, drill)
    theirs = await value(
        pair.hhs, "SELECT envelope FROM sent JOIN envelope USING (message_id) LIMIT 1"
    )
    assert isinstance(theirs, bytes)
    line: dict[str, str | None] = {"envelope": theirs.decode(), "salt": None, "body": None}

    with pytest.raises(EvidenceError, match="NB-3063"):
        await drill.adopted(forged(pair, home / "forged", [line]))


async def test_a_file_for_the_other_agency_is_refused(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    await with_lost_messages(pair, drill)

    with pytest.raises(RejectedError, match="NB-5042"):
        seen.check(home / "seen", pair.hhs.ring, pair.hhs.directory, peer="ice")


async def test_only_what_is_younger_than_a_time_is_told(pair: Pair, home: Path) -> None:
    drill = Drill(pair, "ice", home)
    await with_lost_messages(pair, drill)
    (home / "seen").unlink()

    file = await drill.told(datetime.now(UTC) + timedelta(days=1))

    adopted = await drill.adopted(file)
    assert adopted.recovered is not None
    assert adopted.recovered.recovered == 0
    # The streams say how far they went all the same, so what is missing is known.
    assert {each.cause for each in (await report_of(drill)).lost} == {"nowhere"}
