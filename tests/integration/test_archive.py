"""Archives: what is closed moves to a file that proves itself, and can be replayed from there."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.canonical import b64, canonical
from schemas.checkpoint import Signer, sign_checkpoint
from schemas.envelope import source_of
from schemas.errors import EvidenceError, NotAllowedError, NoticeBusError, RejectedError, wordings
from schemas.jose import PublicEncryptionKey
from schemas.reply import Resend
from services.backup import archive as archives
from services.backup import container
from services.backup.archive import Back, bring_back
from services.backup.archive_file import messages, verify_archive
from services.backup.container import Content, Header
from services.backup.store import archive as statements
from services.exchange.resending import provide
from services.keys import KeyRing
from services.ledger.verify import verify
from services.replay import (
    STORE,
    ArchiveSource,
    Counts,
    Planned,
    Selection,
    Source,
    Target,
    plan,
    run,
)
from tests.agencies import Pair, value
from tests.restores import Database, a_backup, archived, closed, closed_and_open, count
from tests.steps import change

REASON = "a year has passed"


@pytest.fixture
async def pair(home: Path, database: Database, redis_url: str) -> AsyncIterator[Pair]:
    async with closed_and_open(home, database, redis_url) as pair:
        yield pair


@pytest.mark.parametrize("name", ["ice", "hhs"])
async def test_closed_notices_alone_move_and_nothing_is_lost(
    pair: Pair, home: Path, name: str
) -> None:
    agency = pair.ice if name == "ice" else pair.hhs
    notice_id = await closed(pair)
    theirs = (
        "SELECT count(*) FROM payload JOIN (SELECT message_id, notice_id FROM sent UNION ALL"
        " SELECT message_id, notice_id FROM inbox) AS m USING (message_id)"
        " WHERE body IS NOT NULL AND notice_id IS NOT NULL AND (notice_id = %s) = %s"
    )
    others = await count(agency, theirs, notice_id, False)
    records = await count(agency, "SELECT count(*) FROM record")

    made = await archived(agency, home)

    assert made is not None
    assert made.messages == 3
    assert await count(agency, theirs, notice_id, True) == 0
    assert await count(agency, theirs, notice_id, False) == others
    assert await count(agency, "SELECT count(*) FROM record") == records + 1
    report = await verify(agency.store, log_keys=[agency.ring.log_key.verifier])
    assert report.difference is None
    again = verify_archive(made.path, agency.ring, log_keys=[agency.ring.log_key.verifier])
    assert again == made
    assert b"a_number" not in made.path.read_bytes()
    subjects = {
        each.attributes.subject
        for each in messages(made.path, agency.ring, log_keys=[agency.ring.log_key.verifier])
    }
    assert subjects == {notice_id}
    assert await archived(agency, home) is None


async def test_what_is_too_young_stays(pair: Pair, home: Path) -> None:
    before = datetime.now(UTC) - timedelta(days=1)

    assert await archived(pair.hhs, home, before=before) is None

    assert await count(pair.hhs, "SELECT count(*) FROM archive") == 0


async def test_what_comes_back_is_as_it_was(pair: Pair, home: Path) -> None:
    rows = "SELECT jsonb_agg(to_jsonb(p) ORDER BY p.message_id) FROM {} AS p"
    before = [await value(pair.ice, rows.format(name)) for name in ("payload", "envelope")]
    made = await archived(pair.ice, home)
    assert made is not None

    back = await bring_back(
        pair.ice.store,
        pair.ice.ring,
        made.path,
        log_keys=[pair.ice.ring.log_key.verifier],
        actor="tester",
        reason=REASON,
    )

    assert back == Back(messages=made.messages, records=made.records)
    after = [await value(pair.ice, rows.format(name)) for name in ("payload", "envelope")]
    assert after == before
    assert await count(pair.ice, "SELECT count(*) FROM archived") == 0


async def test_an_archive_is_replayed_into_the_projection(pair: Pair, home: Path) -> None:
    """The case is gone too: only the archive can make its facts again."""
    made = await archived(pair.hhs, home)
    assert made is not None
    notice_id = await closed(pair)
    async with pair.hhs.store.transaction() as tx:
        await tx.execute("UPDATE case_file SET base_city = 'XXX' WHERE notice_id = %s", [notice_id])
    source = await ArchiveSource.open(pair.hhs.store, pair.hhs.ring, made.path)

    planned = await plan(
        pair.hhs.store,
        "hhs",
        selection=Selection(),
        target=Target.of("store"),
        source=source,
        actor="tester",
    )
    assert (planned.plan.counts.changed, planned.plan.counts.blocked) == (1, 0)
    await run(
        pair.hhs.store,
        "hhs",
        planned.plan,
        source=source,
        actor="tester",
        reason=REASON,
        confirm=1,
    )

    found = await value(pair.hhs, "SELECT base_city FROM case_file WHERE notice_id = %s", notice_id)
    assert found == "HOU"


async def test_a_case_that_is_gone_comes_back_from_an_archive_as_it_was_closed(
    pair: Pair, home: Path
) -> None:
    notice_id = await closed(pair)
    case = "SELECT to_jsonb(c) FROM case_file AS c WHERE notice_id = %s"
    before = await value(pair.hhs, case, notice_id)
    made = await archived(pair.hhs, home)
    assert made is not None
    source = await ArchiveSource.open(pair.hhs.store, pair.hhs.ring, made.path)

    async def planned() -> Planned:
        await change(pair.hhs, "DELETE FROM case_file WHERE notice_id = %s", notice_id)
        return await plan(
            pair.hhs.store,
            "hhs",
            selection=Selection(),
            target=Target.of("store"),
            source=source,
            actor="tester",
        )

    first = await planned()
    await run(
        pair.hhs.store,
        "hhs",
        first.plan,
        source=source,
        actor="tester",
        reason=REASON,
        confirm=1,
    )
    after = await value(pair.hhs, case, notice_id)
    # Without them nobody here can tell whether the case was closed: it opens to no second person.
    await change(pair.hhs, "DELETE FROM case_event")
    second = await planned()

    assert first.plan.counts == Counts(same=2, new=1)
    assert after == before
    assert second.plan.counts == Counts(same=2, blocked=1)
    assert [each.finding.cause for each in second.first] == ["NB-6123"]


@pytest.mark.parametrize("name", ["ice", "hhs"])
async def test_an_archive_is_selected_by_office_and_counted_by_office(
    pair: Pair, home: Path, name: str
) -> None:
    agency = pair.ice if name == "ice" else pair.hhs

    async def planned(source: Source, *offices: str) -> Planned:
        return await plan(
            agency.store,
            name,
            selection=Selection(offices=offices),
            target=Target.of("store"),
            source=source,
            actor="tester",
        )

    before = await planned(STORE, "HOU")
    made = await archived(agency, home)
    assert made is not None
    source = await ArchiveSource.open(agency.store, agency.ring, made.path)

    chosen, everything = await planned(source, "HOU"), await planned(source)
    other = await planned(source, "DEN")
    in_store = await planned(STORE, "HOU")

    assert chosen.plan.counts == everything.plan.counts == Counts(same=3)
    assert chosen.plan.offices == everything.plan.offices == {"HOU": Counts(same=3)}
    assert other.plan.counts == Counts()
    # In the store they are named as what they are, and under the office that they had.
    events = before.plan.counts.events
    assert in_store.plan.offices == {"HOU": Counts(same=events - 3, blocked=3)}
    assert {each.finding.cause for each in in_store.first} == {"NB-6122"}
    assert "--from archive:FILE" in wordings()["NB-6122"].fix


async def test_asked_for_what_is_archived_nothing_is_declared_void(pair: Pair, home: Path) -> None:
    made = await archived(pair.ice, home)
    assert made is not None
    sequence = await count(
        pair.ice, "SELECT sequence FROM sent JOIN archived USING (message_id) LIMIT 1"
    )
    resend = Resend(stream="{ice.hhs.live.0}:out", generation=1, first=sequence, last=sequence)

    async with pair.ice.store.transaction() as tx:
        provided = await provide(tx, resend, now=datetime.now(UTC))

    assert (provided.asked, provided.void) == (0, 0)
    assert await value(pair.ice, "SELECT code FROM alarm WHERE cleared_at IS NULL") == "NB-5054"


async def refused(path: Path, ring: KeyRing, *, signer: Signer | None = None) -> NoticeBusError:
    with pytest.raises(NoticeBusError) as error:
        verify_archive(path, ring, log_keys=[(signer or ring.log_key).verifier])
    return error.value


async def test_archives_that_cannot_be_believed_are_told_apart(pair: Pair, home: Path) -> None:
    made = await archived(pair.ice, home)
    assert made is not None
    whole = made.path.read_bytes()
    spoilt, later = home / "spoilt", home / "later"
    spoilt.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    later.write_bytes(whole.replace(b"container/1\n", b"container/7\n", 1))
    other = KeyRing.generate(home / "other", pair.ice.settings.domain, "ice")
    backup = await a_backup(pair.ice, home)

    found = [
        await refused(spoilt, pair.ice.ring),
        await refused(later, pair.ice.ring),
        await refused(made.path, pair.hhs.ring),
        await refused(made.path, other),
        await refused(backup.path, pair.ice.ring),
        await refused(made.path, pair.ice.ring, signer=other.log_key),
    ]

    assert [(type(error), error.code) for error in found] == [
        (EvidenceError, "NB-3061"),
        (RejectedError, "NB-5040"),
        (RejectedError, "NB-5042"),
        (NotAllowedError, "NB-5043"),
        (RejectedError, "NB-5041"),
        (EvidenceError, "NB-3052"),
    ]


def written(pair: Pair, path: Path, lines: list[dict[str, object]]) -> Path:
    """Write an archive of ICE with these lines, signed as ICE signs."""
    ring = pair.ice.ring
    own = source_of(ring.domain, "ice")
    file = io.BytesIO()
    header = Header(
        content=Content.ARCHIVE,
        sender=own,
        recipient=own,
        made_at=datetime.now(UTC),
        about={"agency": "ice"},
    )
    to = PublicEncryptionKey.of(ring.encryption_keys[0].private.public_key())
    writer = container.write_header(file, header, to=to, signing=ring.signing)
    writer.begin("log")
    for line in lines:
        writer.write(canonical(line) + b"\n")
    writer.end(rows=len(lines))
    writer.finish()
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize("change", ["record", "content", "envelope", "cut", "root"])
async def test_what_an_archive_holds_is_held_to_the_log(
    pair: Pair, home: Path, change: str
) -> None:
    """Also where the file itself was made with all keys of the agency but the log's."""
    size = await count(pair.ice, "SELECT max(size) FROM checkpoint")
    async with pair.ice.store.transaction() as tx:
        before = datetime.now(UTC) + timedelta(minutes=1)
        await statements.choose(tx, "ice", before=before, size=size)
        lines = [archives._line(row) async for row in statements.lines(tx, size)]
    beside = next(line for line in lines if "message" in line)
    last = lines[-1]
    match change:
        case "record":
            lines[0]["record"] = lines[1]["record"]
        case "content":
            beside["message"]["body"] = b64(canonical({"other": 1}))
        case "envelope":
            others = [line["message"] for line in lines if "message" in line]
            beside["message"]["envelope"] = others[-1]["envelope"]
        case "cut":
            del last["checkpoint"]
        case _:
            last["checkpoint"] = sign_checkpoint(size, bytes(32), pair.ice.ring.log_key)

    error = await refused(written(pair, home / "forged", lines), pair.ice.ring)

    assert type(error) is EvidenceError
    assert error.code in {"NB-3061", "NB-3066"}
