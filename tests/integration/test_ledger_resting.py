"""What rests on a checkpoint tells of it: a log that lost its end, or a checkpoint, is found."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest

from schemas.canonical import parse
from schemas.checkpoint import parse_checkpoint
from schemas.envelope import read
from schemas.errors import EvidenceError
from schemas.proof import append as grow
from schemas.proof import leaf_hash, root_of
from services.exchange import heads
from services.exchange.agency import Agency
from services.exchange.contents import verify_contents
from services.exchange.verifying import verify_log
from services.ledger.records import make_record
from services.ledger.store import Store, append
from services.proof.building import Selection, build
from tests.agencies import Pair, a_notice, accept, two_agencies, until, value
from tests.restores import Database, Drill, a_backup, archived, at_rest, closed_and_open
from tests.steps import rows, settled


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


def as_owner(agency: Agency, statement: str, *arguments: object) -> None:
    """Change what no trigger lets anybody change; something has to be changed by it."""
    with psycopg.connect(url_of(agency), autocommit=True, connect_timeout=10) as connection:
        connection.execute("SET session_replication_role = replica")
        assert connection.execute(statement.encode(), arguments).rowcount > 0, statement


def url_of(agency: Agency) -> str:
    return agency.settings.database_url_required


async def difference(agency: Agency, *, origin: str | None = None) -> EvidenceError | None:
    """Return the first difference, as `ledger verify` looks for it."""
    settings = agency.settings
    async with await Store.open(url_of(agency)) as store:
        verified = await verify_log(store, settings, origin=origin)
        if verified.difference is not None or origin is not None:
            return verified.difference
        return (await verify_contents(store)).difference


async def found(agency: Agency, *names: str, origin: str | None = None) -> tuple[object, ...]:
    """Return the code of the first difference, and what it names."""
    error = await difference(agency, origin=origin)
    return () if error is None else (error.code, *(error.where[name] for name in names))


async def cosigned(pair: Pair, least: int) -> bool:
    query = "SELECT coalesce(max(size), 0) FROM cosignature"
    known = await value(pair.ice, query)
    assert isinstance(known, int)
    return known > least and await settled(pair)


COSIGNED_ANSWERS = (
    "SELECT b.size, b.first_index FROM answer_batch AS b JOIN cosignature AS s USING (size)"
)


async def cosigned_beyond_answers(pair: Pair) -> bool:
    """Tell whether ICE cosigned the growth of HHS' log after that of its first answers, too."""
    query = f"SELECT max(size) > (SELECT min(size) FROM ({COSIGNED_ANSWERS})) FROM cosignature"  # noqa: S608 - constants
    return await value(pair.hhs, query) is True and await settled(pair)


async def cut_off(agency: Agency, size: int) -> None:
    """Take the end of a log away so that what is left is whole, and says nothing of it."""
    query = (
        "SELECT record FROM record JOIN log_entry USING (record_id)"
        " WHERE record_index < %s ORDER BY record_index"
    )
    leaves = [leaf_hash(bytes(row[0])) for row in await rows(agency, query, size)]
    frontier = grow([], 0, leaves)
    as_owner(
        agency,
        "DELETE FROM record WHERE record_id IN"
        " (SELECT record_id FROM log_entry WHERE record_index >= %s)",
        size,
    )
    as_owner(agency, "DELETE FROM log_entry WHERE record_index >= %s", size)
    as_owner(agency, "DELETE FROM checkpoint WHERE size > %s", size)
    head = "UPDATE log_head SET size = %s, frontier = %s, root = %s"
    as_owner(agency, head, size, frontier, root_of(frontier, size))


async def test_a_log_that_was_cut_off_is_told_by_each_thing_that_saw_its_end(pair: Pair) -> None:
    """Whoever cuts it off takes one witness away after the other, and the next one speaks."""
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(partial(cosigned, pair, 0), "the first cosignatures")
        size = await value(pair.ice, "SELECT size FROM log_head")
        note = await value(pair.ice, "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1")
        assert isinstance(size, int)
        assert isinstance(note, str)
        async with pair.ice.store.transaction() as tx:
            record = make_record("report.made", time=datetime.now(UTC), actor="who was here")
            await append(tx, [record])
        await until(partial(cosigned, pair, size), "a cosignature of the end")
    end = await value(pair.ice, "SELECT size FROM log_head")
    for agency in (pair.ice, pair.hhs):
        assert await found(agency) == ()

    await cut_off(pair.ice, size)

    told = await difference(pair.ice)
    assert told is not None
    assert (told.code, told.where["size"], told.where["end"]) == ("NB-3242", end, size)
    assert pair.hhs.ring.cosigner.name in told.sentence
    as_owner(pair.ice, "DELETE FROM cosignature WHERE size > %s", size)
    assert await found(pair.ice, "size", "end") == ("NB-3242", end, size)
    as_owner(pair.ice, "UPDATE anchored SET size = %s", size)
    assert await found(pair.ice, "anchor", "size") == ("NB-3150", end, size)
    pair.ice.anchor.write(note)
    origin = pair.ice.ring.log_key.name
    assert await found(pair.ice, "size", "origin") == ("NB-3244", end, origin)
    await forget_heads_beyond(pair.ice, size)
    [(stream, last)] = await rows(
        pair.ice, "SELECT stream, max(sequence) FROM sent WHERE kind = 'head' GROUP BY stream"
    )
    assert await found(pair.ice, "stream", "sequence") == ("NB-3245", stream, last + 1)


async def forget_heads_beyond(agency: Agency, size: int) -> None:
    """Delete the heads that showed more than `size` records, with their bytes."""
    query = (
        "SELECT s.message_id, e.envelope FROM sent AS s JOIN envelope AS e USING (message_id)"
        " WHERE s.kind = 'head'"
    )
    for message_id, envelope in await rows(agency, query):
        if shown(bytes(envelope)) > size:
            as_owner(agency, "DELETE FROM envelope WHERE message_id = %s", message_id)
            as_owner(agency, "DELETE FROM sent WHERE message_id = %s", message_id)


def shown(envelope: bytes) -> int:
    """Return how many records a head or receipts show."""
    note = parse(read(envelope).payload)["data"]["checkpoint"]
    return parse_checkpoint(note).checkpoint.size


async def test_a_checkpoint_between_others_is_missed_by_what_rests_on_it(
    pair: Pair, tmp_path: Path
) -> None:
    """No bundle is built without it either."""
    drafts = [a_notice(), a_notice()]
    for draft, least in zip(drafts, (0, 3), strict=True):
        async with pair.running():
            await accept(pair.ice, draft)
            await until(partial(cosigned, pair, least), "cosignatures of the growth")
            if least:
                await until(partial(cosigned_beyond_answers, pair), "a cosignature after it")
    [(size, first)] = await rows(pair.hhs, f"{COSIGNED_ANSWERS} ORDER BY b.size LIMIT 1")
    assert await found(pair.hhs) == ()

    as_owner(pair.hhs, "DELETE FROM checkpoint WHERE size = %s", size)

    name = pair.ice.ring.cosigner.name
    assert await found(pair.hhs, "size", "name") == ("NB-3240", size, name)
    as_owner(pair.hhs, "DELETE FROM cosignature WHERE size = %s", size)
    assert await found(pair.hhs, "size", "index") == ("NB-3241", size, first)
    of = Selection(notice_id=drafts[0].notice_id)
    with pytest.raises(EvidenceError, match="NB-3241") as refused:
        await build(pair.hhs, of, tmp_path / "proof.zip", actor="auditor")
    assert refused.value.where["size"] == size
    as_owner(pair.hhs, "DELETE FROM answer_batch WHERE size = %s", size)
    assert await found(pair.hhs, "size") == ("NB-3244", size)

    # Nor is another one shown as the newest that somebody cosigned.
    newest = "(SELECT max(size) FROM cosignature)"
    as_owner(pair.hhs, f"DELETE FROM checkpoint WHERE size = {newest}")  # noqa: S608 - constants
    async with pair.hhs.store.transaction() as tx:
        with pytest.raises(EvidenceError, match="NB-3240"):
            await heads.seen(tx)


async def test_logs_that_a_restore_ended_are_missed_like_the_one_that_grows(
    pair: Pair, home: Path
) -> None:
    """What the restore lost of them is missed by nobody: the other agency gave it back."""
    drill = Drill(pair, "hhs", home)
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(partial(cosigned, pair, 0), "the first cosignatures")
        await until(lambda: at_rest(pair), "rest")
        backup = await a_backup(pair.hhs, home)
        await accept(pair.ice, *(a_notice() for _ in range(3)))
        await until(partial(cosigned, pair, 6), "what is lost")
        await until(lambda: at_rest(pair), "rest again")
    await drill.disaster(backup)
    adopted = await drill.adopted(await drill.told(None))
    async with drill.again() as pair:
        async with pair.running():
            await until(lambda: at_rest(pair), "everything again")
            await until(lambda: settled(pair), "the new log cosigned")
        receipts = await rows(
            pair.hhs,
            "SELECT e.envelope FROM sent AS s JOIN envelope AS e USING (message_id)"
            " WHERE s.kind = 'receipts' AND s.generation = 1",
        )
        assert max(shown(bytes(row[0])) for row in receipts) > adopted.old_size
        for origin in (None, adopted.old_origin):
            assert await found(pair.hhs, origin=origin) == ()
        root = await value(pair.hhs, "SELECT root FROM former_log")
        as_owner(pair.hhs, "UPDATE former_log SET root = sha256('')")
        assert await found(pair.hhs, "origin", "said") == (
            "NB-3246",
            adopted.old_origin,
            adopted.old_size,
        )
        as_owner(pair.hhs, "UPDATE former_log SET root = %s", root)
        sizes = await rows(
            pair.hhs,
            "SELECT size FROM cosignature WHERE origin = %s"
            " UNION SELECT size FROM former_answer_batch WHERE origin = %s ORDER BY 1",
            *(adopted.old_origin, adopted.old_origin),
        )
        least = sizes[0][0]

        as_owner(
            pair.hhs,
            "DELETE FROM former_checkpoint WHERE origin = %s AND size = ANY(%s)",
            *(adopted.old_origin, [row[0] for row in sizes]),
        )

        code, size, name = await found(pair.hhs, "size", "origin")
        assert code in ("NB-3240", "NB-3241")
        assert (size, name) == (least, adopted.old_origin)


async def test_an_archive_rests_on_the_checkpoint_that_it_was_made_under(
    home: Path, database: Database, redis_url: str
) -> None:
    async with closed_and_open(home, database, redis_url) as pair:
        made = await archived(pair.hhs, home)
        assert made is not None
        async with pair.running():
            await until(lambda: at_rest(pair), "the record of it sealed")
        assert await found(pair.hhs) == ()
        between = (
            "SELECT min(size) FROM generate_series(1, (SELECT size FROM log_head)) AS t (size)"
            " WHERE size NOT IN (SELECT size FROM checkpoint)"
        )
        size = await value(pair.hhs, between)
        change = "UPDATE archive SET size = %s"

        as_owner(pair.hhs, change, 10**6)
        assert await found(pair.hhs, "size") == ("NB-3242", 10**6)
        as_owner(pair.hhs, change, size)
        assert await found(pair.hhs, "size") == ("NB-3243", size)
