"""Nothing is backdated: times in records are held to the cosignatures around them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from uuid_utils.compat import uuid7

from schemas.canonical import canonical, format_time, parse
from schemas.checkpoint import parse_checkpoint
from schemas.cosignature import cosign
from schemas.errors import EvidenceError
from schemas.party import fingerprint
from services.exchange import dead, parties
from services.exchange.held import apply_held
from services.exchange.outbox import Draft
from services.exchange.process import delivery_of
from services.exchange.store import heads
from services.exchange.store.heads import Kept
from services.exchange.witnessed import times_of
from services.hhs.casework import CaseWork
from services.keys import KeyRing
from services.ledger import times
from services.ledger.records import Record, make_record
from services.ledger.store import Store, log
from services.ledger.times import Times
from services.ledger.verify import verify
from services.replay.shadow import shadow
from tests.agencies import Pair, a_notice, trust, two_agencies, until, value
from tests.ledgers import LOG_KEY, ORIGIN, START, a_sealer, keep, opened, seal_all
from tests.steps import rotate, sent

MINUTE = timedelta(minutes=1)


@pytest.fixture
def hhs(home: Path) -> KeyRing:
    return KeyRing.generate(home / "hhs", "hhs.noticebus.example", "hhs")


def said(at: datetime) -> Record:
    """Return a record of this time that is about no notice."""
    return make_record("report.made", time=at)


def arrived(
    at: datetime, *, result: str = "held", since: datetime | None = None, of: Record | None = None
) -> Record:
    """Return the record of a message's arrival, of the notice of another one."""
    return make_record(
        "message.received",
        time=at,
        result=result,
        notice_id=uuid4() if of is None else of.notice_id,
        message_id=uuid4(),
        detail=None if since is None else {"since": format_time(since)},
    )


def effect(of: Record, at: datetime, action: str = "case.corrected") -> Record:
    """Return a record of what a message did."""
    return make_record(action, time=at, notice_id=of.notice_id, message_id=of.message_id)


@asynccontextmanager
async def trusting(url: str, hhs: KeyRing) -> AsyncIterator[Store]:
    """Open a store at ICE that trusts HHS's cosigner."""
    async with opened(url) as store:
        file = hhs.party(partitions={})
        async with store.transaction() as tx:
            await parties.trust(
                tx, file, peer="hhs", expected_fingerprint=fingerprint(file), actor="x"
            )
        yield store


async def sealed(store: Store, *records: Record) -> None:
    await keep(store, records)
    await seal_all(a_sealer(store))


async def seen(store: Store, hhs: KeyRing, at: datetime) -> None:
    """Let HHS cosign the newest checkpoint at a time."""
    async with store.transaction() as tx:
        newest = await log.newest_checkpoint(tx)
        assert newest is not None
        line = cosign(parse_checkpoint(newest[1]).checkpoint, hhs.cosigner, at)
        kept = Kept(size=newest[0], name=hhs.cosigner.name, line=line, cosigned_at=at)
        await heads.keep_cosignature(tx, ORIGIN, kept)


async def found(store: Store) -> tuple[str, object] | None:
    report = await verify(store, log_keys=[LOG_KEY.verifier], times=await times_of(store, "ice"))
    difference = report.difference
    return None if difference is None else (difference.code, difference.where.get("index"))


async def test_records_are_held_to_the_cosignatures_around_them(
    database: Callable[[str], str], hhs: KeyRing
) -> None:
    async with trusting(database("ice"), hhs) as store:
        await start_again(store)
        held = arrived(START)
        await sealed(store, held, said(START + 60 * MINUTE))
        await seen(store, hhs, START + 61 * MINUTE)
        # Within the grace, and the effect of what was held since then.
        await sealed(store, said(START + 56 * MINUTE), effect(held, START))
        assert await found(store) is None
        # HHS is away for hours, and cosigns late: what waited is not backdated.
        await sealed(store, said(START + 100 * MINUTE))
        await seen(store, hhs, START + 500 * MINUTE)
        await sealed(store, said(START + 110 * MINUTE))
        assert await found(store) is None

        await sealed(store, said(START + 500 * MINUTE), said(START + 94 * MINUTE))
        assert await found(store) == ("NB-3160", 7)


async def start_again(store: Store) -> None:
    """Forget what opening the store put on record, which is of today."""
    async with store.transaction() as tx:
        await tx.execute("DELETE FROM unsealed")
        await tx.execute("ALTER TABLE record DISABLE TRIGGER append_only")
        await tx.execute("DELETE FROM record")
        await tx.execute("ALTER TABLE record ENABLE TRIGGER append_only")


LATER = START + 60 * MINUTE
# Two messages that waited, until their turn came and as a dead letter, and one that did not.
HELD, TAKEN = arrived(START), arrived(START, result="taken")
LETTER, TO_COME = arrived(LATER, result="taken", since=START), arrived(START)
BESIDE = arrived(START, of=HELD)
DISHONEST = {
    # What a person did, whatever it names.
    "closing, as of when a notice came": [effect(TAKEN, START, "case.closed")],
    "closing, as of when a held message came": [effect(HELD, START, "case.closed")],
    "taking": [make_record("case.taken", time=START, notice_id=TAKEN.notice_id)],
    # A message that waited for nothing, or that came at another time.
    "what was taken at once": [effect(TAKEN, START)],
    "what was held since later": [effect(HELD, START + MINUTE)],
    "what was set aside since later": [effect(LETTER, START + MINUTE)],
    # No message, one of another notice, one that did it before, and one that is yet to come.
    "no message": [make_record("case.corrected", time=START, notice_id=HELD.notice_id)],
    "another notice": [
        make_record("case.updated", time=START, notice_id=uuid4(), message_id=HELD.message_id)
    ],
    "a second time": [effect(HELD, START, "case.updated"), effect(HELD, START)],
    "before it came": [said(LATER), effect(TO_COME, START), TO_COME],
    "an arrival": [arrived(START)],
}


async def waited(store: Store, hhs: KeyRing, *more: Record) -> None:
    """Seal what came and waited, have it seen an hour later, then seal `more`."""
    await start_again(store)
    await sealed(store, HELD, TAKEN, BESIDE, said(LATER), LETTER)
    await seen(store, hhs, LATER + MINUTE)
    await sealed(store, *more)


async def test_what_waited_bears_the_time_at_which_it_came(
    database: Callable[[str], str], hhs: KeyRing
) -> None:
    async with trusting(database("ice"), hhs) as store:
        await waited(
            store,
            hhs,
            effect(HELD, START),
            effect(BESIDE, START, "notice.acknowledged"),
            effect(LETTER, START, "case.withdrawn"),
        )

        assert await found(store) is None


@pytest.mark.parametrize("what", DISHONEST)
async def test_nothing_else_is_dated_back_to_when_a_message_came(
    database: Callable[[str], str], hhs: KeyRing, what: str
) -> None:
    """A recipient that was late cannot say that it did what it did when it was told."""
    records = DISHONEST[what]
    async with trusting(database("ice"), hhs) as store:
        await waited(store, hhs, *records)

        # Where there are several, the second one.
        assert await found(store) == ("NB-3160", 5 + (len(records) > 1))


async def test_a_record_that_is_dated_after_it_was_seen_is_named(
    database: Callable[[str], str], hhs: KeyRing
) -> None:
    async with trusting(database("ice"), hhs) as store:
        now = datetime.now(UTC)
        await sealed(store, said(now + 4 * MINUTE), said(now + 6 * MINUTE))
        await seen(store, hhs, now)

        assert await found(store) == ("NB-3160", 2)
        async with store.transaction() as tx:
            (kept,) = await heads.cosignatures_of(tx, 3)
            await tx.execute("DELETE FROM cosignature")
            other = replace(kept, line=kept.line[:-8] + "AAAAAA=\n")
            await heads.keep_cosignature(tx, ORIGIN, other)
        with pytest.raises(EvidenceError, match="NB-305"):
            await times_of(store, "ice")


async def test_lives_in_which_messages_wait_are_honest(
    home: Path,
    database: Callable[[str], str],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Held until their turn, two together, and held as dead letters; with no grace at all."""
    monkeypatch.setattr(times, "GRACE", timedelta(0))
    one, other, third = a_notice(), a_notice(), a_notice()
    async with two_agencies(home, database, redis_url) as pair:
        delivery = delivery_of(pair.hhs, CaseWork())
        entries = await sent(pair, one, other, correction(one), correction(other))
        for entry in (*entries[2:], *entries[:2]):
            await delivery.take([entry])
        await rotate(pair)
        late = (await sent(pair, third, correction(third)))[4:]
        await delivery.take(late)
        await trust(pair.hhs, pair.ice)
        for letter in sorted(await dead.listed(pair.hhs), key=lambda each: -(each.sequence or 0)):
            await dead.redrive(delivery, letter, actor="clerk", reason="the key is trusted")
        async with pair.running(ice=(), hhs=("sealer",)):
            await until(partial(is_sealed, pair), "what came")
        size = await value(pair.hhs, "SELECT size FROM log_head")
        assert isinstance(size, int)

        assert await apply_held(pair.hhs, CaseWork()) == 3
        async with pair.running(ice=(), hhs=("sealer",)):
            await until(partial(is_sealed, pair), "what it did")

        walk = await times_of(pair.hhs.store, "hhs")
        strict = Times(seen=[(size, datetime.max.replace(tzinfo=UTC))], came=walk.came)
        keys = pair.hhs.ring.log_verifiers
        report = await verify(pair.hhs.store, log_keys=keys, times=strict)
        assert report.difference is None
        assert report.size == size + 6
        acts = "SELECT count(DISTINCT recorded_at) FROM record WHERE action = 'case.corrected'"
        assert await value(pair.hhs, acts) == 3
        assert (await shadow(pair.hhs.store, "hhs")).differing == 0


def correction(draft: Draft) -> Draft:
    """Return the second revision of a notice."""
    said = parse(draft.body) | {
        "revision": 2,
        "notice_kind": "CORRECTION",
        "reason_code": "OTHER",
        "supersedes": str(draft.message_id),
    }
    return replace(draft, message_id=uuid7(), revision=2, body=canonical(said))


async def is_sealed(pair: Pair) -> bool:
    return await value(pair.hhs, "SELECT count(*) FROM unsealed") == 0
