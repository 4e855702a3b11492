"""Each class of hostile bytes between two good notices: both are receipted, and it is kept.

All of them lie in one stream before anybody reads it, so that they share batches and transactions.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import pytest
from redis.asyncio import Redis

from services.embedded import RedisServer
from services.exchange.outbox import Draft
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.databases import Databases
from tests.hostile import HOSTILE, Genuine, envelope_of
from tests.steps import LIVE, bus, relay, rows

_LETTER = "SELECT cause, state, authentic, bytes FROM dead_letter WHERE bytes_hash = %s"


@dataclass(frozen=True)
class Between:
    """What became of one hostile entry: its dead letters, and the receipts of its neighbours."""

    jws: bytes
    letters: list[tuple[object, ...]]
    receipted: bool
    times_taken: tuple[int, int]


@dataclass(frozen=True)
class Lived:
    """What became of them all; `counted` has the arrivals of unauthenticated bytes by cause."""

    each: Mapping[str, Between]
    counted: Mapping[str, int]
    letters: object
    gaps: object


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, redis_server: RedisServer
) -> Lived:
    async def live() -> Lived:
        async with Redis.from_url(redis_server.url) as client:
            await client.flushall()
        home = tmp_path_factory.mktemp("between") / "home"
        async with two_agencies(home, databases.fresh, redis_server.url) as pair:
            return await between_good_ones(pair)

    return asyncio.run(live())


async def between_good_ones(pair: Pair) -> Lived:
    good = [await published(pair)]
    hostile: dict[str, bytes] = {}
    for what, each in HOSTILE.items():
        genuine = await envelope_of(pair.ice, good[-1].message_id)
        hostile[what] = each.make(Genuine(pair.ice, pair.hhs, genuine))
        async with bus(pair.ice) as publisher:
            await publisher.publish(LIVE, [hostile[what]])
        good.append(await published(pair))

    async with pair.running():
        await until(lambda: answered(pair.ice, good), "every receipt")

    taken = [message.message_id for message in pair.hhs_noted.taken]
    became: dict[str, Between] = {}
    for number, (what, jws) in enumerate(hostile.items()):
        before, after = good[number : number + 2]
        became[what] = Between(
            jws=jws,
            letters=await rows(pair.hhs, _LETTER, sha256(jws).digest()),
            receipted=await answered(pair.ice, [before, after]),
            times_taken=(taken.count(before.message_id), taken.count(after.message_id)),
        )
    counted = await rows(pair.hhs, "SELECT cause, sum(arrivals) FROM unauthenticated GROUP BY 1")
    return Lived(
        each=became,
        counted={cause: int(arrivals) for cause, arrivals in counted},
        letters=await value(pair.hhs, "SELECT count(*) FROM dead_letter"),
        gaps=await value(pair.hhs, "SELECT count(*) FROM gap"),
    )


async def published(pair: Pair) -> Draft:
    """Return a good notice that is the newest entry of its stream."""
    draft = a_notice()
    await accept(pair.ice, draft)
    await relay(pair.ice, LIVE)
    return draft


@pytest.mark.parametrize("what", HOSTILE)
def test_what_lies_between_two_good_notices_is_kept_and_both_are_receipted(
    lived: Lived, what: str
) -> None:
    hostile, found = HOSTILE[what], lived.each[what]

    assert found.receipted
    assert found.times_taken == (1, 1)
    if hostile.cause is None:
        assert found.letters == []
    else:
        kept = (hostile.cause, hostile.kept, hostile.authentic, found.jws)
        assert found.letters == [kept]


def test_nothing_else_is_kept_and_what_nobody_vouches_for_is_counted_by_its_cause(
    lived: Lived,
) -> None:
    unvouched = [each.cause for each in HOSTILE.values() if each.cause and not each.authentic]

    assert lived.counted == {cause: unvouched.count(cause) for cause in unvouched}
    assert lived.letters == len([each for each in HOSTILE.values() if each.cause])
    assert lived.gaps == 0
