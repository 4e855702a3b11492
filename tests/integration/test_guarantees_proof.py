"""Guarantee 4: a receipt is believed for what it proves, and for nothing else."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.checkpoint import Signer
from services.bus import Entry
from services.exchange.process import delivery_of
from tests.agencies import Pair, a_notice, accept, two_agencies, value
from tests.steps import LIVE, receipts, received, relay, rows


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


@pytest.fixture
async def records(pair: Pair) -> list[dict[str, Any]]:
    """What HHS would write of two notices that ICE published."""
    await accept(pair.ice, a_notice(), a_notice())
    await relay(pair.ice, LIVE)
    sent = await rows(pair.ice, "SELECT message_id, envelope_hash FROM sent ORDER BY sequence")
    return [received(message_id, bytes(envelope_hash)) for message_id, envelope_hash in sent]


async def answers(pair: Pair) -> list[str | None]:
    return [row[0] for row in await rows(pair.ice, "SELECT answer FROM sent ORDER BY sequence")]


async def take(pair: Pair, *entries: Entry) -> None:
    await delivery_of(pair.ice, pair.ice_noted).take(entries)


async def test_a_receipt_discharges_its_message_and_no_other(
    pair: Pair, records: list[dict[str, Any]]
) -> None:
    await take(pair, receipts(pair.hhs, records[:1], sequence=1))

    assert await answers(pair) == ["receipt", None]


async def test_a_checkpoint_of_another_log_key_proves_nothing(
    pair: Pair, records: list[dict[str, Any]]
) -> None:
    stranger = Signer(pair.hhs.ring.log_key.name, Ed25519PrivateKey.generate())

    await take(pair, receipts(pair.hhs, records, signer=stranger, sequence=1))

    assert await answers(pair) == [None, None]
    assert await value(pair.ice, "SELECT code FROM alarm") == "NB-3052"


async def test_a_proven_record_of_other_bytes_is_no_receipt_of_ours(
    pair: Pair, records: list[dict[str, Any]]
) -> None:
    records[0]["envelope"] = records[1]["envelope"]

    await take(pair, receipts(pair.hhs, records, sequence=1))

    assert await answers(pair) == [None, None]
    assert await value(pair.ice, "SELECT code FROM alarm") == "NB-3022"


async def test_a_proven_record_of_a_refusal_is_no_receipt(
    pair: Pair, records: list[dict[str, Any]]
) -> None:
    records[0]["action"] = "message.refused"

    await take(pair, receipts(pair.hhs, records, sequence=1))

    assert await answers(pair) == [None, "receipt"]


async def test_two_checkpoints_of_one_size_are_a_fork_and_the_second_proves_nothing(
    pair: Pair, records: list[dict[str, Any]]
) -> None:
    first, second = records

    await take(pair, receipts(pair.hhs, [first], sequence=1))
    await take(pair, receipts(pair.hhs, [second], sequence=2))

    assert await answers(pair) == ["receipt", None]
    assert await value(pair.ice, "SELECT code FROM alarm") == "NB-3021"
