"""The anchor: nothing leaves before it, and a store that went back does not go on by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.canonical import parse
from schemas.checkpoint import Signer, parse_checkpoint, sign_checkpoint, verify_checkpoint
from schemas.errors import ConflictError, EvidenceError, UnavailableError
from services.backup.report import look as report
from services.backup.store.snapshot import FROZEN
from services.exchange import conflicts, gaps, rotation
from services.exchange.agency import Agency, open_agency
from services.exchange.anchors import own_anchor
from services.exchange.outbox import Draft
from services.exchange.store import incoming
from services.ledger.anchor import Anchor, State, adopt, look
from services.ledger.store import Store, log
from services.replay.shadow import shadow
from tests.agencies import (
    Noted,
    Pair,
    a_notice,
    accept,
    answered,
    running,
    two_agencies,
    until,
    value,
)
from tests.ledgers import (
    LOG_KEY,
    ORIGIN,
    a_sealer,
    anchor_of,
    keep,
    opened,
    seal_all,
    some_records,
)
from tests.restores import Drill, a_backup, at_rest, count
from tests.steps import LIVE

ASKED = "SELECT count(*) FROM sent WHERE kind = 'resend'"
REASON = "the disk of the anchor failed"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def answer_of(agency: Agency, draft: Draft) -> object:
    """Return which message carried the receipt of a message of ours."""
    query = "SELECT answer_message FROM sent WHERE message_id = %s AND answer = 'receipt'"
    found = await value(agency, query, draft.message_id)
    assert found is not None
    return found


def blocked(anchor: Path) -> Path:
    """Let the anchor be read and not be written."""
    part = anchor.with_name(f".{anchor.name}.part")
    part.mkdir(parents=True)
    return part


async def test_what_rests_on_a_checkpoint_waits_until_it_is_anchored(pair: Pair) -> None:
    """Also when everything ends in between: the next start anchors what was committed."""
    part = blocked(pair.hhs.settings.anchor_file)
    draft = a_notice()
    await accept(pair.ice, draft)
    waiting = "SELECT count(*) FROM outbox WHERE kind = 'receipts'"
    gone = "SELECT count(*) FROM sent WHERE kind IN ('receipts', 'head')"
    taken = "SELECT count(*) FROM inbox WHERE kind = 'fta'"

    async with pair.running(hhs=("relay", "delivery")):
        await until(lambda: count(pair.hhs, taken), "the notice, and no seal yet")
    async with pair.running():
        await until(lambda: count(pair.hhs, waiting), "a receipt that was committed")
        await until(lambda: sent_by_hhs(pair), "what rests on no checkpoint")
        assert await count(pair.hhs, gone) == 0
        async with pair.hhs.store.transaction() as tx:
            assert await log.newest_checkpoint(tx) is None
    part.rmdir()
    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")

    anchored = pair.hhs.settings.anchor_file.read_text()
    known = await value(pair.ice, "SELECT max(size) FROM peer_checkpoint")
    assert isinstance(known, int)
    assert parse_checkpoint(anchored).checkpoint.size >= known


async def sent_by_hhs(pair: Pair) -> bool:
    """Whether HHS' relays have come round since: what rests on no checkpoint of ours has left."""
    if not await count(pair.hhs, ASKED):
        async with pair.hhs.store.transaction() as tx:
            await incoming.lock_stream(tx, LIVE, 1)
            await gaps.note_written(tx, LIVE, 1, 2, datetime.now(UTC))
    return bool(await count(pair.hhs, ASKED))


async def test_a_store_that_went_back_is_adopted_as_a_new_generation(
    pair: Pair, home: Path
) -> None:
    """A copy of an earlier moment took its place, and no restore of ours told of it."""
    drill = Drill(pair, "hhs", home)
    drafts = [a_notice() for _ in range(3)]
    async with pair.running():
        await accept(pair.ice, drafts[0])
        await until(lambda: at_rest(pair), "the first receipt")
        backup = await a_backup(pair.hhs, home)
        await accept(pair.ice, *drafts[1:])
        await until(lambda: at_rest(pair), "the later receipts")
    await drill.disaster(backup)
    with psycopg.connect(drill.url, connect_timeout=10) as connection:
        for table in FROZEN:
            connection.execute(f"DROP TRIGGER restored ON {table}".encode())
        connection.execute("DELETE FROM restoration")

    with pytest.raises(EvidenceError, match="NB-3150"):
        async with open_agency(pair.hhs.settings):
            pass
    async with await Store.open(drill.url) as store:
        with pytest.raises(ConflictError, match="NB-3156"):
            await adopt(store, pair.hhs.anchor, actor="x", reason=REASON)
    note = pair.hhs.settings.anchor_file.read_text()
    old = [await answer_of(pair.ice, each) for each in drafts]
    adopted = await drill.adopted(await drill.told(None))

    assert adopted.generation == 2
    async with drill.again() as pair:
        [restoration] = (await report(pair.hhs.store)).restorations
        assert restoration.anchor == note
        assert restoration.found is not None
        assert parse_checkpoint(restoration.found).checkpoint.size == adopted.old_size
        async with pair.running():
            await until(lambda: at_rest(pair), "everything again")
        anchored = parse_checkpoint(pair.hhs.settings.anchor_file.read_text()).checkpoint
        assert anchored.origin == adopted.origin
        fta = "SELECT count(*) FROM inbox WHERE kind = 'fta'"
        assert await count(pair.hhs, fta) == 3
        # What HHS lost is void by restore at ICE, and was receipted again by the new log.
        void = "SELECT count(*) FROM voided_receipt WHERE message_id = %s"
        assert [await count(pair.ice, void, each.message_id) for each in drafts] == [0, 1, 1]
        again = [await answer_of(pair.ice, each) for each in drafts]
        assert (again[0] == old[0], again[1] == old[1], again[2] == old[2]) == (True, False, False)
        assert (await shadow(pair.ice.store, "ice")).differing == 0
        records = "SELECT count(*) FROM record WHERE action = 'receipt.voided'"
        assert await count(pair.ice, records) == 2
        [found] = await conflicts.listed(pair.ice.store)
        assert (found.code, found.size) == ("NB-3161", adopted.old_size)
        assert parse_checkpoint(found.known_note).checkpoint.size > adopted.old_size
        assert parse_checkpoint(found.told_note).checkpoint.origin == adopted.origin


async def test_each_way_an_anchor_can_be_wrong_is_told_and_adopted(
    database: Callable[[str], str],
) -> None:
    async with opened(database("ice")) as store:
        anchor = anchor_of(store)
        assert await state(store, anchor) is State.EMPTY
        await keep(store, some_records(3))
        await seal_all(a_sealer(store))
        assert await state(store, anchor) is State.SAME
        first = anchor.read()
        assert first is not None
        await keep(store, some_records(300))
        await seal_all(a_sealer(store))
        anchor.write(first)
        assert await state(store, anchor) is State.AHEAD
        for wrong, code, found in (
            (sign_checkpoint(3, bytes(32), LOG_KEY), "NB-3151", State.FORKED),
            (sign_checkpoint(304, bytes(32), LOG_KEY), "NB-3150", State.BEHIND),
        ):
            anchor.write(wrong)
            assert await state(store, anchor) is found
            with pytest.raises(EvidenceError, match=code):
                await a_sealer(store).seal_once()
            with pytest.raises(ConflictError, match="NB-3156"):
                await adopt(store, anchor, actor="keeper", reason=REASON)

        anchor.write("half a not")
        with pytest.raises(EvidenceError, match="NB-3153"):
            await a_sealer(store).seal_once()
        await adopt(store, anchor, actor="keeper", reason=REASON)
        assert await state(store, anchor) is State.SAME
        anchor.remove()
        with pytest.raises(EvidenceError, match="NB-3152"):
            await a_sealer(store).seal_once()
        await adopt(store, anchor, actor="keeper", reason=REASON)
        with pytest.raises(ConflictError, match="NB-3155"):
            await adopt(store, anchor, actor="keeper", reason=REASON)

        await seal_all(a_sealer(store))
        async with store.transaction() as tx:
            records = await log.records(tx, first=303, end=305)
        said = [parse(record) for _, record in records]
        assert [(each["action"], each["detail"]["state"]) for each in said] == [
            ("anchor.adopted", "damaged"),
            ("anchor.adopted", "missing"),
        ]
        anchor.remove()
        anchor.path.mkdir()
        with pytest.raises(UnavailableError, match="NB-3154"):
            await a_sealer(store).seal_once()
        anchor.path.rmdir()


async def test_a_note_that_no_log_key_of_ours_signed_is_no_anchor(
    database: Callable[[str], str],
) -> None:
    """Whatever it says: anybody who can write the file could accuse a whole store with it."""
    stranger = Signer(ORIGIN, Ed25519PrivateKey.generate())
    async with opened(database("ice")) as store:
        anchor = anchor_of(store)
        await keep(store, some_records(3))
        await seal_all(a_sealer(store))
        ours = anchor.read()
        assert ours is not None
        for wrong in (
            sign_checkpoint(400, bytes(32), stranger),
            sign_checkpoint(3, bytes(32), stranger),
            # The very checkpoint of the store, and then ours with another size.
            sign_checkpoint(3, parse_checkpoint(ours).checkpoint.root, stranger),
            ours.replace("\n3\n", "\n4\n"),
        ):
            anchor.write(wrong)

            assert await state(store, anchor) is State.DAMAGED
            with pytest.raises(EvidenceError, match="NB-3153"):
                await a_sealer(store).seal_once()
        anchor.write(sign_checkpoint(400, bytes(32), LOG_KEY))
        assert await state(store, anchor) is State.BEHIND


async def test_the_anchor_is_believed_before_and_after_the_log_key_is_renewed(pair: Pair) -> None:
    """Also by a process that has not heard of it yet, and under a key that ended meanwhile."""
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: at_rest(pair), "the first receipt")
    before = pair.ice.settings.anchor_file.read_text()

    async with open_agency(pair.ice.settings) as elsewhere:
        for finish in (False, True):
            await rotation.rotate_note_key(elsewhere, "log", finish=finish, actor="keeper")
        assert pair.ice.settings.anchor_file.read_text() == before
        await pair.ice.hold_to_anchor()
        async with running(elsewhere, Noted()):
            await until(lambda: is_renewed(pair, before), "a checkpoint under the new key")
            await pair.ice.hold_to_anchor()
    after = pair.ice.settings.anchor_file.read_text()
    with pytest.raises(EvidenceError, match="NB-3052"):
        verify_checkpoint(after, [pair.ice.ring.log_key.verifier])
    async with open_agency(pair.ice.settings) as again, again.store.transaction() as tx:
        assert (await look(tx, again.anchor)).state is State.SAME
        # Without the ring the party files that we published are enough.
        only = await own_anchor(tx, again.settings.model_copy(update={"keys": Path("/none")}))
        assert (await look(tx, only)).state is State.SAME


async def is_renewed(pair: Pair, before: str) -> bool:
    unsealed = await count(pair.ice, "SELECT count(*) FROM unsealed")
    return not unsealed and pair.ice.settings.anchor_file.read_text() != before


async def state(store: Store, anchor: Anchor) -> State:
    async with store.transaction() as tx:
        return (await look(tx, anchor)).state


async def test_a_sealer_under_which_the_store_goes_back_ends(
    database: Callable[[str], str],
) -> None:
    url, stop = database("ice"), asyncio.Event()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(url))
        await keep(store, some_records(2))
        running = asyncio.create_task(a_sealer(store).run(stop))
        await until(lambda: is_anchored(store, 2), "the first checkpoint")
        with psycopg.connect(url, connect_timeout=10) as connection:
            connection.execute("UPDATE log_head SET size = 0, frontier = '{}', root = sha256('')")
            connection.execute("SELECT pg_notify('unsealed', '')")

        with pytest.raises(EvidenceError, match="NB-3150"):
            await asyncio.wait_for(running, 10)


async def is_anchored(store: Store, size: int) -> bool:
    async with store.transaction() as tx:
        found = await look(tx, anchor_of(store))
    return found.anchor is not None and found.anchor.size == size
