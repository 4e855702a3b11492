"""Refusals that come together are taken together, and each does what it would do alone."""

from datetime import UTC, datetime
from pathlib import Path

from schemas.canonical import b64
from schemas.envelope import Kind, read
from schemas.reply import Refusal
from services.bus import Entry
from services.exchange.process import delivery_of
from tests.agencies import a_notice, two_agencies, value
from tests.restores import Database
from tests.steps import attributes_of, rows, said, sent

TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM inbox WHERE state = 'control'"


async def test_refusals_of_one_read_share_a_transaction_and_each_counts(
    home: Path, database: Database, redis_url: str
) -> None:
    async with two_agencies(home, database, redis_url) as pair:
        twice, once, other, broken, kept = await sent(pair, *(a_notice() for _ in range(5)))

        def refused(entry: Entry, code: str, *, sequence: int, envelope: bytes = b"") -> Entry:
            told = attributes_of(entry)
            refusal = Refusal(
                message_id=told.id,
                stream=told.stream,
                generation=told.generation,
                sequence=told.sequence,
                envelope=b64(envelope or read(entry.jws).hash),
                code=code,
                field=None,
                final=False,
                at=datetime.now(UTC),
            )
            return said(pair.hhs, Kind.REFUSAL, refusal, sequence=sequence)

        first = [
            refused(twice, "NB-2010", sequence=1),
            refused(twice, "NB-8002", sequence=2),
            refused(once, "NB-2010", sequence=3),
            refused(other, "NB-2010", sequence=4, envelope=bytes(32)),
        ]
        delivery = delivery_of(pair.ice, pair.ice_noted)
        await delivery.take([*first, first[2]])

        assert await value(pair.ice, TRANSACTIONS) == 1
        standing = dict(await rows(pair.ice, "SELECT message_id, answer_code FROM sent"))
        assert [standing[attributes_of(entry).id] for entry in (twice, once, other, broken)] == [
            "NB-8002", "NB-2010", None, None
        ]  # fmt: skip
        assert [(each.message_id, each.code) for each in pair.ice_noted.answers] == [
            (attributes_of(twice).id, "NB-2010"),
            (attributes_of(twice).id, "NB-8002"),
            (attributes_of(once).id, "NB-2010"),
        ]
        recorded = "SELECT count(*) FROM record WHERE action = 'refusal.received'"
        assert await value(pair.ice, recorded) == 3

        # One that breaks its schema is set aside, and the others are taken without it.
        await delivery.take(
            [
                refused(kept, "NB-2010", sequence=5),
                said(pair.hhs, Kind.REFUSAL, b"{}", sequence=6),
                refused(other, "NB-2010", sequence=7),
            ]
        )

        assert await rows(pair.ice, "SELECT message_id, code FROM refusal WHERE code = 'NB-2010'"
                          " ORDER BY message_id") == sorted(
            (attributes_of(entry).id, "NB-2010") for entry in (once, other, kept)
        )  # fmt: skip
        assert await value(pair.ice, "SELECT count(*) FROM dead_letter") == 1
        assert await value(pair.ice, "SELECT count(*) FROM gap") == 0
