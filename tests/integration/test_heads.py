"""Heads: each side witnesses the other's log, falls silent then, and finds a fork out."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.canonical import b64
from schemas.checkpoint import parse_checkpoint, sign_checkpoint
from schemas.cosignature import cosignatures
from schemas.envelope import Kind
from schemas.errors import EvidenceError
from schemas.reply import Head, StreamHead
from services.exchange import conflicts, heads
from services.exchange.agency import Agency
from services.exchange.heads import Heads
from services.exchange.store import heads as store
from services.exchange.witnessed import times_of
from services.ledger import tree
from services.ledger.store import log
from services.ledger.verify import verify
from tests.agencies import Pair, a_notice, accept, answered, trust, two_agencies, until, value
from tests.steps import LIVE, OWED, attributes_of, grow, is_sealed, rotate, rows, said, settled

HEADS = "SELECT count(*) FROM sent WHERE kind = 'head'"
READ = "SELECT highest FROM peer_read WHERE stream = %s"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def a_head(
    agency: Agency, *, since: int = 0, cosigned: str | None = None, read: int | None = None
) -> Head:
    """Return a head of the newest checkpoint; `read` is how far the peer's live stream was read."""
    async with agency.store.transaction() as tx:
        newest = await log.newest_checkpoint(tx)
        assert newest is not None
        proof = await tree.consistency(tx, since, newest[0])
    return Head(
        checkpoint=newest[1],
        consistency=tuple(map(b64, proof)),
        highest={} if read is None else {LIVE: StreamHead(generation=1, sequence=read)},
        since=since,
        cosigned=cosigned,
    )


async def take(agency: Agency, head: Head, *, sequence: int = 1_000) -> None:
    async with agency.store.transaction() as tx:
        place = attributes_of(said(agency, Kind.HEAD, head, sequence=sequence))
        await heads.take(tx, agency, head, place, datetime.now(UTC))


async def test_each_side_cosigns_the_other_and_falls_silent(pair: Pair) -> None:
    drafts = [a_notice() for _ in range(3)]
    async with pair.running():
        for draft in drafts:
            await accept(pair.ice, draft)
            await until(lambda d=draft: answered(pair.ice, [d]), "the receipt")  # type: ignore[misc]  # a default binds it
        await until(lambda: settled(pair), "both cosigned")
        told = [await value(agency, HEADS) for agency in (pair.ice, pair.hhs)]
        sizes = [await value(a, "SELECT size FROM log_head") for a in (pair.ice, pair.hhs)]
        # Nothing is left to tell, however often somebody looks.
        for agency in (pair.ice, pair.hhs):
            for _ in range(3):
                await Heads(agency).step()

        assert [await value(a, HEADS) for a in (pair.ice, pair.hhs)] == told
    assert [await value(a, "SELECT size FROM log_head") for a in (pair.ice, pair.hhs)] == sizes
    async with pair.ice.store.transaction() as tx:
        newest = await log.newest_checkpoint(tx)
        assert newest is not None
        [kept] = await store.cosignatures_of(tx, newest[0])
    [found] = cosignatures(newest[1] + kept.line, pair.ice.directory.cosigners)
    assert found.verifier.name == pair.hhs.ring.cosigner.name
    assert abs((found.at - datetime.now(UTC)).total_seconds()) < 60
    assert await value(pair.ice, READ, LIVE) == 3
    for agency in (pair.ice, pair.hhs):
        times = await times_of(agency.store, agency.name)
        assert times.seen
        report = await verify(agency.store, log_keys=[agency.ring.log_key.verifier], times=times)
        assert report.difference is None


async def test_a_head_that_comes_late_moves_back_nothing_of_what_was_read(pair: Pair) -> None:
    async with pair.running(ice=("sealer",), hhs=("sealer",)):
        await grow(pair.hhs)
        await until(lambda: nothing_waits(pair), "sealed")

    for read, sequence in ((5, 11), (3, 10), (7, 12)):
        await take(pair.ice, await a_head(pair.hhs, read=read), sequence=sequence)
        assert await value(pair.ice, READ, LIVE) == max(read, 5)


async def test_growth_is_cosigned_and_what_was_seen_is_not_cosigned_again(pair: Pair) -> None:
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "the first cosignatures")
        before = await value(pair.hhs, "SELECT size FROM peer_head")
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "the next ones")
    after = await value(pair.hhs, "SELECT size FROM peer_head")
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert after > before

    # A head from before, or one that begins elsewhere, moves nothing.
    await take(pair.hhs, await a_head(pair.ice, since=0))
    assert await value(pair.hhs, OWED) == 0
    assert await value(pair.hhs, "SELECT count(*) FROM alarm WHERE cleared_at IS NULL") == 0


async def test_two_roots_of_one_size_are_found_out(pair: Pair) -> None:
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "cosigned")
    size = await value(pair.hhs, "SELECT size FROM peer_head")
    assert isinstance(size, int)
    forked = sign_checkpoint(size, bytes(32), pair.ice.ring.log_key)

    await take(pair.hhs, Head(checkpoint=forked, consistency=(), highest={}, since=size))

    assert await value(pair.hhs, "SELECT code FROM alarm WHERE cleared_at IS NULL") == "NB-3021"
    assert await value(pair.hhs, OWED) == 0


async def test_a_log_that_did_not_grow_out_of_the_last_gets_no_cosignature(pair: Pair) -> None:
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "cosigned")
    size = await value(pair.hhs, "SELECT size FROM peer_head")
    assert isinstance(size, int)
    other = sign_checkpoint(size + 1, bytes(32), pair.ice.ring.log_key)
    proof = (b64(bytes(32)),) * 3

    await take(pair.hhs, Head(checkpoint=other, consistency=proof, highest={}, since=size))

    assert await value(pair.hhs, "SELECT code FROM alarm WHERE cleared_at IS NULL") == "NB-3023"
    assert await value(pair.hhs, "SELECT size FROM peer_head") == size


async def test_a_head_smaller_than_what_was_cosigned_is_a_rollback_unless_it_is_an_old_one(
    pair: Pair,
) -> None:
    async with pair.running():
        for _ in range(2):
            await accept(pair.ice, a_notice())
            await until(lambda: settled(pair), "cosigned")
    size = await value(pair.hhs, "SELECT size FROM peer_head")
    assert isinstance(size, int)
    smaller = sign_checkpoint(size - 1, bytes(32), pair.ice.ring.log_key)
    head = Head(checkpoint=smaller, consistency=(), highest={}, since=size - 1)

    await take(pair.hhs, head, sequence=1)
    assert await conflicts.listed(pair.hhs.store) == []
    await take(pair.hhs, head, sequence=1_000)

    [found] = await conflicts.listed(pair.hhs.store)
    assert (found.code, found.size) == ("NB-3157", size - 1)
    cosigned = await value(pair.hhs, "SELECT note FROM peer_head")
    assert (found.known_note, found.told_note) == (cosigned, smaller)
    assert await value(pair.hhs, "SELECT size FROM peer_head") == size
    assert await value(pair.hhs, OWED) == 0


@pytest.mark.parametrize("late", [False, True])
async def test_two_heads_of_a_log_that_went_back_are_found_in_either_order(
    pair: Pair, *, late: bool
) -> None:
    """The larger one was told before; it may still arrive after the smaller one."""
    heads_ = []
    async with pair.running(ice=("sealer",), hhs=()):
        for _ in range(2):
            await grow(pair.ice)
            await until(lambda: is_sealed(pair.ice), "sealed")
            heads_.append(await a_head(pair.ice))
    # The larger one was made when the peer had cosigned something that nobody here knows of.
    smaller, larger = heads_[0], heads_[1].model_copy(update={"since": 1})
    told = [(larger, 10), (smaller, 11)]

    for head, sequence in reversed(told) if late else told:
        await take(pair.hhs, head, sequence=sequence)

    [found] = await conflicts.listed(pair.hhs.store)
    assert (found.code, found.times) == ("NB-3157", 1)
    assert found.size == parse_checkpoint(smaller.checkpoint).checkpoint.size
    assert {found.known_note, found.told_note} == {smaller.checkpoint, larger.checkpoint}
    # What contradicts another one is not cosigned, though it grew out of the nothing before.
    cosigned = [(smaller.checkpoint,)] if late else []
    assert await rows(pair.hhs, "SELECT note FROM peer_head") == cosigned


async def test_a_cosignature_of_what_we_never_signed_is_refused(pair: Pair) -> None:
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "cosigned")
    head = await a_head(pair.hhs)
    size = parse_checkpoint((await a_head(pair.ice)).checkpoint).checkpoint.size
    invented = sign_checkpoint(size, bytes(32), pair.ice.ring.log_key)

    with pytest.raises(EvidenceError, match="NB-3024"):
        await take(pair.ice, head.model_copy(update={"cosigned": invented}))


async def test_a_head_that_crossed_the_peers_answer_is_told_again(pair: Pair) -> None:
    """Both told at once, so that one said more before it heard what was cosigned."""
    for agency in (pair.ice, pair.hhs):
        await grow(agency)
    async with pair.running(ice=("sealer",), hhs=("sealer",)):
        await until(lambda: nothing_waits(pair), "both sealed")
    # ICE told its first head, grew, and owes a cosignature: its next head begins at nothing too.
    first = await a_head(pair.ice)
    await take(pair.hhs, first, sequence=1)
    await take(pair.ice, await a_head(pair.hhs), sequence=1)
    await Heads(pair.ice).step()
    await grow(pair.ice)

    async with pair.running():
        await until(lambda: settled(pair), "cosigned all the same")


async def nothing_waits(pair: Pair) -> bool:
    return all([await is_sealed(agency) for agency in (pair.ice, pair.hhs)])


async def test_a_peer_that_is_away_finds_one_head_and_not_thousands(pair: Pair) -> None:
    async with pair.running(hhs=()):
        await accept(pair.ice, a_notice())
        await until(lambda: told(pair.ice, 1), "the first head")
        for _ in range(5):
            await accept(pair.ice, a_notice())
            await Heads(pair.ice).step()

        assert await value(pair.ice, HEADS) == 1


async def told(agency: Agency, count: int) -> bool:
    return await value(agency, HEADS) == count


async def test_a_head_under_a_key_that_is_not_trusted_yet_is_no_dead_letter(pair: Pair) -> None:
    async with pair.running():
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "cosigned")
    await rotate(pair)
    unknown = "SELECT count(*) FROM unauthenticated WHERE cause = 'NB-2010'"
    async with pair.running():
        await grow(pair.ice)
        await until(lambda: is_some(pair.hhs, unknown), "a head that nobody vouches for")
        assert await value(pair.hhs, "SELECT count(*) FROM dead_letter") == 0
        await trust(pair.hhs, pair.ice)
        # What comes next shows that a head is missing, and its stored bytes come again.
        await accept(pair.ice, a_notice())
        await until(lambda: settled(pair), "cosigned again")
    assert await value(pair.hhs, "SELECT count(*) FROM dead_letter") == 0


async def is_some(agency: Agency, query: str) -> bool:
    return await value(agency, query) != 0
