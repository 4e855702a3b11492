"""What nobody should be able to do to the exchange, tried on real Redis and PostgreSQL."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from schemas.canonical import b64, canonical
from schemas.envelope import MESSAGE_BYTES_MAX, Attributes, Kind, Lane, commitment, read, seal
from schemas.errors import RejectedError
from services.bus import Publisher
from services.exchange import dead, rotation
from services.exchange.aside import UNKNOWN_KEY
from services.exchange.outbox import BODY_BYTES_MAX
from services.exchange.process import delivery_of
from tests.agencies import Pair, a_notice, accept, answered, trust, two_agencies, until, value
from tests.forgery import ATTRIBUTES
from tests.vectors.make import ENCRYPT_TO, SIGNING

LIVE = "{ice.hhs.live.0}:out"
CONTROL = "{hhs.ice.control.0}:out"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


async def test_a_key_that_is_trusted_later_lets_the_same_bytes_be_redriven(pair: Pair) -> None:
    await rotation.rotate_signing_key(pair.ice, actor="tester")
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running():
        await until(lambda: state_at_ice(pair, draft.message_id, "refusal"), "the refusal")
        (letter,) = await dead.listed(pair.hhs)
        assert (letter.cause, letter.authentic) == (UNKNOWN_KEY, False)
        assert await value(pair.hhs, "SELECT count(*) FROM inbox WHERE kind = 'fta'") == 0

        await trust(pair.hhs, pair.ice)
        delivery = delivery_of(pair.hhs, pair.hhs_noted)
        redriven = await dead.redrive(delivery, letter, actor="clerk", reason="trusted now")

        assert redriven.state == "redriven"
        await until(lambda: answered(pair.ice, [draft]), "the receipt after all")
    assert [taken.message_id for taken in pair.hhs_noted.taken] == [draft.message_id]


async def test_six_hundred_and_twelve_malformed_entries_stop_nothing(pair: Pair) -> None:
    drafts = [a_notice() for _ in range(20)]
    async with pair.running():
        async with bus(pair) as publisher:
            await publisher.publish(LIVE, [b"not a message %d" % n for n in range(612)])
        await accept(pair.ice, *drafts)
        await until(lambda: answered(pair.ice, drafts), "every receipt")
        await until(lambda: counted(pair, 612), "612 entries counted")

    assert await value(pair.hhs, "SELECT count(*) FROM dead_letter WHERE state = 'refused'") == 612
    assert await value(pair.hhs, "SELECT sum(arrivals) FROM unauthenticated") == 612
    assert await value(pair.hhs, "SELECT count(*) FROM gap") == 0


async def test_other_bytes_under_a_known_id_are_refused_and_the_first_stays(pair: Pair) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")
        attributes = await attributes_of(pair, draft.message_id)
        twin = forged(pair, replace(attributes, sequence=attributes.sequence + 1))
        async with bus(pair) as publisher:
            await publisher.publish(LIVE, [twin])
        await until(lambda: dead_letter_of(pair, twin), "the twin's dead letter")

    assert await value(pair.hhs, "SELECT cause FROM dead_letter") == "NB-2151"
    assert await value(pair.hhs, "SELECT count(*) FROM alarm WHERE code = 'NB-2151'") == 1
    assert len(pair.hhs_noted.taken) == 1


async def test_another_message_under_a_known_sequence_is_refused(pair: Pair) -> None:
    draft, other = a_notice(), a_notice()
    await accept(pair.ice, draft)
    async with pair.running():
        await until(lambda: answered(pair.ice, [draft]), "the receipt")
        attributes = await attributes_of(pair, draft.message_id)
        twin = forged(
            pair, replace(attributes, id=other.message_id, subject=other.notice_id), other.body
        )
        async with bus(pair) as publisher:
            await publisher.publish(LIVE, [twin])
        await until(lambda: dead_letter_of(pair, twin), "the twin's dead letter")

    assert await value(pair.hhs, "SELECT cause FROM dead_letter") == "NB-2152"
    assert len(pair.hhs_noted.taken) == 1


@pytest.mark.parametrize("damage", ["record", "leaf count", "foreign hash"])
async def test_receipts_that_do_not_prove_discharge_nothing(pair: Pair, damage: str) -> None:
    draft = a_notice()
    await accept(pair.ice, draft)
    async with pair.running(ice=("relay",)):
        await until(lambda: receipts_on(pair, CONTROL), "the receipts")
    genuine = (await receipts_on(pair, CONTROL))[-1]
    body = json.loads(json.loads(json.dumps(payload_of(genuine)))["data"])
    entry = next(e for e in body["entries"] if "record" in e)
    if damage == "record":
        entry["record"]["result"] = "held"
    elif damage == "leaf count":
        body["entries"].append({"leaf": b64(sha256(b"x").digest())})
    else:
        entry["record"]["envelope"] = b64(sha256(b"y").digest())
    claims = read(genuine).claims
    assert claims is not None
    lie = seal(
        claims, data=canonical(body), signing=pair.hhs.ring.signing, encrypt_to=None, salt=None
    )
    async with bus(pair) as publisher:
        await publisher.client.delete(CONTROL)
        await publisher.publish(CONTROL, [lie])

    async with pair.running(hhs=()):
        await until(lambda: dead_letter_at_ice(pair, lie), "the lie set aside")

    assert await value(pair.ice, "SELECT answer FROM sent WHERE kind = 'fta'") is None
    assert await value(pair.ice, "SELECT cause FROM dead_letter") == "NB-3020"
    assert await value(pair.ice, "SELECT count(*) FROM alarm WHERE code = 'NB-3020'") == 1


def bus(pair: Pair):  # type: ignore[no-untyped-def]  # an async context manager of Publisher
    return Publisher.open(pair.redis_url, settings=pair.ice.settings.bus)


def payload_of(jws: bytes) -> dict[str, object]:
    members = json.loads(read(jws).payload)
    members["data"] = json.dumps(members["data"])
    return dict(members)


def forged(pair: Pair, attributes: Attributes, body: bytes | None = None) -> bytes:
    """Seal other content under the sender's own, genuine key."""
    draft = a_notice(attributes.subject)
    salt = bytes(32)
    content = body or draft.body
    return seal(
        replace(attributes, commitment=commitment(salt, content)),
        data=content,
        signing=pair.ice.ring.signing,
        encrypt_to=pair.ice.directory.encrypt_to,
        salt=salt,
    )


async def attributes_of(pair: Pair, message_id: UUID) -> Attributes:
    envelope = await value(
        pair.ice, "SELECT envelope FROM envelope WHERE message_id = %s", message_id
    )
    assert isinstance(envelope, bytes)
    claims = read(envelope).claims
    assert claims is not None
    assert (claims.kind, claims.lane) == (Kind.FTA, Lane.LIVE)
    return claims


async def state_at_ice(pair: Pair, message_id: UUID, answer: str) -> bool:
    found = await value(pair.ice, "SELECT answer FROM sent WHERE message_id = %s", message_id)
    return found == answer


async def counted(pair: Pair, arrivals: int) -> bool:
    found = await value(pair.hhs, "SELECT sum(arrivals) FROM unauthenticated")
    return found == arrivals


async def dead_letter_of(pair: Pair, envelope: bytes) -> bool:
    digest = sha256(envelope).digest()
    query = "SELECT count(*) FROM dead_letter WHERE bytes_hash = %s"
    return await value(pair.hhs, query, digest) == 1


async def dead_letter_at_ice(pair: Pair, envelope: bytes) -> bool:
    digest = sha256(envelope).digest()
    query = "SELECT count(*) FROM dead_letter WHERE bytes_hash = %s"
    return await value(pair.ice, query, digest) == 1


async def receipts_on(pair: Pair, stream: str) -> list[bytes]:
    """Return the envelopes on a control stream that carry receipts; heads stand beside them."""
    return [jws for jws in await stream_bytes(pair, stream) if kind_of(jws) is Kind.RECEIPTS]


def kind_of(jws: bytes) -> Kind | None:
    claims = read(jws).claims
    return None if claims is None else claims.kind


async def stream_bytes(pair: Pair, stream: str) -> list[bytes]:
    async with bus(pair) as publisher:
        return [fields[b"jws"] for _, fields in await publisher.client.xrange(stream)]


async def test_content_that_no_envelope_can_carry_is_refused_at_the_door(pair: Pair) -> None:
    draft = replace(a_notice(), body=b'{"a":"' + b"x" * BODY_BYTES_MAX + b'"}')

    with pytest.raises(RejectedError, match="NB-2156"):
        await accept(pair.ice, draft)

    assert await value(pair.ice, "SELECT count(*) FROM outbox") == 0


def test_the_largest_content_that_is_accepted_fits_into_an_envelope() -> None:
    body = b'{"a":"' + b"x" * (BODY_BYTES_MAX - 8) + b'"}'
    salt = bytes(32)

    envelope = seal(
        replace(ATTRIBUTES, commitment=commitment(salt, body)),
        data=body,
        signing=SIGNING["ice"],
        encrypt_to=ENCRYPT_TO["hhs"],
        salt=salt,
    )

    assert len(envelope) <= MESSAGE_BYTES_MAX
