"""The exchange one step at a time, without processes: relay, upkeep, delivery, and forged messages.

A test that needs to stand between two steps takes them itself and waits for nothing.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from schemas.canonical import b64, canonical, parse
from schemas.catalog import body_of, dataschema_of
from schemas.checkpoint import Signer, sign_checkpoint
from schemas.envelope import Attributes, Kind, Lane, commitment, read, seal, stream_name
from schemas.fields import Body
from schemas.proof import append, consistency_proof, leaf_hash, range_root
from services.bus import Entry, Publisher
from services.exchange import rotation
from services.exchange.agency import Agency
from services.exchange.outbox import Draft
from services.exchange.relay import Relay
from services.exchange.store import heads
from services.exchange.upkeep import Upkeep
from services.ledger.records import make_record
from services.ledger.store import append as put_on_record
from tests.agencies import Pair, a_notice, accept, value

LIVE = "{ice.hhs.live.0}:out"
TO_HHS = "{ice.hhs.control.0}:out"
TO_ICE = "{hhs.ice.control.0}:out"


@asynccontextmanager
async def bus(agency: Agency) -> AsyncIterator[Publisher]:
    """Give out an agency's way onto the bus."""
    settings = agency.settings
    async with Publisher.open(settings.redis_url_required, settings=settings.bus) as publisher:
        yield publisher


async def relay(agency: Agency, stream: str) -> None:
    """Number and publish all that waits for a stream."""
    async with bus(agency) as publisher:
        one = Relay(agency, stream, Lane(stream.split(".")[2]), publisher)
        while await one.step():
            pass


async def upkeep(agency: Agency) -> None:
    """Let the sender look once after its streams."""
    async with bus(agency) as publisher:
        await Upkeep(agency, publisher).step()


async def on_stream(pair: Pair, stream: str) -> list[Entry]:
    """Return what a stream holds, as a first delivery."""
    async with bus(pair.ice) as publisher:
        found: Any = await publisher.client.xrange(stream)
    return [Entry(stream, entry.decode(), fields[b"jws"], 1) for entry, fields in found]


async def sent(pair: Pair, *drafts: Draft) -> list[Entry]:
    """Accept notices at ICE, publish them, and return all that their stream holds."""
    await accept(pair.ice, *drafts)
    await relay(pair.ice, LIVE)
    return await on_stream(pair, LIVE)


async def rows(agency: Agency, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Return all rows of a query."""
    async with agency.store.transaction() as tx:
        return await (await tx.execute(query, arguments)).fetchall()


async def change(agency: Agency, statement: str, *arguments: object) -> None:
    """Change an agency's store from outside."""
    async with agency.store.transaction() as tx:
        await tx.execute(statement, arguments)


async def tell_no_heads(pair: Pair) -> None:
    """Let both sides think for the next hour that a head of their whole future is under way.

    Then control holds what the test is about, and nothing else.
    """
    for agency in (pair.ice, pair.hhs):
        async with agency.store.transaction() as tx:
            await heads.told(
                tx, origin=agency.ring.log_key.name, size=2**40, since=0, now=datetime.now(UTC)
            )


def attributes_of(entry: Entry) -> Attributes:
    """Return what an entry says of itself."""
    claims = read(entry.jws).claims
    assert claims is not None
    return claims


def forged(pair: Pair, attributes: Attributes, body: bytes | None = None) -> Entry:
    """Seal any content under ICE's genuine key, on the stream that it names."""
    salt = bytes(32)
    content = body or a_notice(attributes.subject, revision=attributes.revision or 1).body
    jws = seal(
        replace(attributes, commitment=commitment(salt, content)),
        data=content,
        signing=pair.ice.ring.signing,
        encrypt_to=pair.ice.directory.encrypt_to,
        salt=salt,
    )
    return Entry(attributes.stream, "1-1", jws, 1)


def said(
    agency: Agency,
    kind: Kind,
    body: bytes | Body,
    *,
    sequence: int = 1,
    generation: int = 1,
    causation: UUID | None = None,
) -> Entry:
    """Return a control message that an agency signed."""
    message_id = uuid7()
    attributes = Attributes(
        id=message_id,
        kind=kind,
        version=1,
        source=agency.source,
        subject=None,
        time=datetime.now(UTC),
        sequence=sequence,
        correlationid=message_id,
        causationid=causation,
        recipient=agency.peer,
        lane=Lane.CONTROL,
        partition=0,
        generation=generation,
        revision=None,
        commitment=None,
        dataschema=dataschema_of(kind, 1),
    )
    data = body_of(body) if isinstance(body, Body) else body
    jws = seal(attributes, data=data, signing=agency.ring.signing, encrypt_to=None, salt=None)
    return Entry(stream_name(agency.name, agency.peer, Lane.CONTROL, 0), "1-1", jws, 1)


def received(
    message_id: UUID, envelope_hash: bytes, *, action: str = "message.received"
) -> dict[str, Any]:
    """Return a record as HHS would write it of a message."""
    record = make_record(
        action,
        time=datetime.now(UTC),
        result="taken",
        message_id=message_id,
        stream=LIVE,
        generation=1,
        sequence=1,
        envelope=envelope_hash,
    )
    said: dict[str, Any] = parse(record.record)
    return said


def receipts(
    hhs: Agency,
    records: Sequence[dict[str, Any]],
    *,
    first: int = 0,
    signer: Signer | None = None,
    sequence: int,
    causation: UUID | None = None,
    grown: Sequence[dict[str, Any]] = (),
) -> Entry:
    """Return a receipts message for the first records of a ledger, its checkpoint signed.

    It carries those from index `first` on; with `grown` also the proof that the ledger has these.
    """
    key = signer or hhs.ring.log_key
    leaves = [leaf_hash(canonical(record)) for record in (grown or records)]
    size = len(records)
    body = {
        "schema_version": "receipts/1.0",
        "index": first,
        "frontier": [b64(each) for each in append([], 0, leaves[:first])],
        "entries": [{"record": record} for record in records[first:]],
        "checkpoint": sign_checkpoint(size, range_root(leaves[:size]), key),
    }
    if grown:
        proof = consistency_proof(size, len(grown), lambda at, end: range_root(leaves[at:end]))
        body |= {
            "schema_version": "receipts/1.1",
            "grown": sign_checkpoint(len(grown), range_root(leaves), key),
            "consistency": [b64(each) for each in proof],
        }
    return said(hhs, Kind.RECEIPTS, canonical(body), sequence=sequence, causation=causation)


async def rotate(pair: Pair) -> None:
    """Let ICE sign with a key that HHS does not trust yet."""
    await rotation.rotate_signing_key(pair.ice, actor="tester")


async def grow(agency: Agency) -> None:
    """Put something on record that is no message."""
    async with agency.store.transaction() as tx:
        await put_on_record(tx, [make_record("keys.rotated", time=datetime.now(UTC))])


async def is_sealed(agency: Agency) -> bool:
    """Return whether all that is on record is sealed and anchored, so that heads may tell of it."""
    query = (
        "SELECT (SELECT count(*) FROM unsealed) + h.size - coalesce(a.size, 0)"
        " FROM log_head AS h LEFT JOIN anchored AS a USING (origin)"
    )
    return await value(agency, query) == 0


OWED = "SELECT count(*) FROM peer_head WHERE owed"
# One statement sees one moment: asked one after the other, a record may be sealed in between, and
# the checkpoint before it is the one that was cosigned.
_SETTLED = (
    "SELECT (SELECT count(*) FROM cosignature WHERE size = (SELECT max(size) FROM checkpoint)) = %s"
    " AND NOT EXISTS (SELECT FROM peer_head WHERE owed) AND NOT EXISTS (SELECT FROM unsealed)"
)


async def settled(pair: Pair, *, cosignatures: int = 1) -> bool:
    """Return whether each side cosigned the other's newest checkpoint, and owes nothing.

    `cosignatures` counts those under each: one, and one more for each further witness.
    """
    return all([await value(each, _SETTLED, cosignatures) for each in (pair.ice, pair.hhs)])
