"""Look at selected messages: what each would change, and digests of what that rests on.

An event is blocked unless its stored bytes are exactly those that were recorded: the envelope under
its hash, the content under the envelope's commitment. Nothing is written on the way.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from schemas.canonical import format_time
from schemas.catalog import parse_body
from schemas.envelope import SALT_BYTES, Attributes, commitment, read
from schemas.errors import RejectedError
from services.exchange.recorded import (
    Direction,
    Finding,
    Projection,
    Readable,
    Recorded,
    Standing,
)
from services.hhs.projection import CaseProjection
from services.ice.projection import ReplyProjection
from services.ledger.store import Store, Transaction
from services.replay import store
from services.replay.selection import Counts, Selection
from services.replay.store import PASS_SECONDS, Stored

BATCH_MAX = 500

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One event: how it stands, and its envelope where its bytes are whole."""

    message: Recorded
    finding: Finding
    envelope: bytes | None
    content_hash: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found: digests of the messages and of how they stand, and the first that differ."""

    counts: Counts
    source_digest: bytes
    target_digest: bytes
    first: tuple[Examined, ...]


def projection_of(agency: str) -> Projection:
    """Return what an agency derives from messages."""
    return ReplyProjection() if agency == "ice" else CaseProjection()


async def survey(
    database: Store,
    projection: Projection,
    selection: Selection,
    *,
    first_max: int = 0,
    progress: Progress | None = None,
) -> Survey:
    """Examine every selected message in one snapshot of the store.

    `first` has up to `first_max` events that are not the same, in order.
    """
    counts = Counts()
    source, target = sha256(), sha256()
    first: list[Examined] = []
    ahead: dict[UUID, int] = {}
    async with database.transaction(seconds=PASS_SECONDS) as tx:
        await store.begin_pass(tx)
        async for messages, _ in store.recorded(tx, selection, after=None, batch_max=BATCH_MAX):
            for event in await examine(tx, projection, messages, ahead):
                counts.add(event.finding.standing)
                source.update(_said(event))
                target.update(_found(event))
                if event.finding.standing is not Standing.SAME and len(first) < first_max:
                    first.append(event)
            if progress is not None:
                progress(counts.events)
    return Survey(
        counts=counts,
        source_digest=source.digest(),
        target_digest=target.digest(),
        first=tuple(first),
    )


async def examine(
    tx: Transaction,
    projection: Projection,
    messages: Sequence[Recorded],
    ahead: MutableMapping[UUID, int],
    *,
    apply: bool = False,
) -> list[Examined]:
    """Say how each of these messages stands, and with `apply` let new and changed ones take effect.

    Their notices are held first then, so that what is found is what is changed.
    """
    stored = await store.stored(tx, [message.message_id for message in messages])
    findings: dict[UUID, Finding] = {}
    whole: set[UUID] = set()
    readable: list[Readable] = []
    for message in messages:
        has = stored[message.message_id]
        attributes, cause = _attributes(message, has)
        if attributes is None:
            findings[message.message_id] = Finding(Standing.BLOCKED, cause=cause)
            continue
        whole.add(message.message_id)
        findings[message.message_id] = Finding(Standing.SAME)
        if message.direction is Direction.SENT or message.kind not in projection.kinds:
            continue
        try:
            body = parse_body(message.kind, attributes.version, has.body or b"")
        except RejectedError as error:
            findings[message.message_id] = Finding(Standing.BLOCKED, cause=error.code)
            continue
        readable.append(Readable(message=message, lane=attributes.lane, body=body))
    if apply:
        notices = {r.message.notice_id for r in readable if r.message.notice_id is not None}
        await projection.hold(tx, sorted(notices))
    compared = await projection.compare(tx, readable, ahead) if readable else []
    if apply:
        await projection.apply(tx, readable, compared)
    for each, finding in zip(readable, compared, strict=True):
        findings[each.message.message_id] = finding
    return [
        Examined(
            message=message,
            finding=findings[message.message_id],
            envelope=stored[message.message_id].envelope if message.message_id in whole else None,
            content_hash=_hash(stored[message.message_id].body),
        )
        for message in messages
    ]


def _attributes(message: Recorded, has: Stored) -> tuple[Attributes | None, str | None]:
    """Return what the envelope says of itself, or the code of what is wrong with the bytes."""
    if has.erased:
        return None, "NB-6020"
    if has.envelope is None or not has.kept or has.body is None or has.salt is None:
        return None, "NB-6021"
    try:
        envelope = read(has.envelope)
    except RejectedError:
        return None, "NB-6022"
    attributes = envelope.claims
    if (
        attributes is None
        or envelope.hash != message.envelope_hash
        or len(has.salt) != SALT_BYTES
        or commitment(has.salt, has.body) != attributes.commitment
    ):
        return None, "NB-6022"
    return attributes, None


def _hash(body: bytes | None) -> bytes | None:
    return None if body is None else sha256(body).digest()


def _said(event: Examined) -> bytes:
    """Return what a plan rests on, of one message."""
    message = event.message
    parts = (
        message.message_id,
        message.direction,
        message.kind,
        message.notice_id,
        message.revision,
        format_time(message.at),
        message.envelope_hash.hex(),
        event.content_hash.hex() if event.content_hash else None,
        event.envelope is not None,
    )
    return ("|".join(map(str, parts)) + "\n").encode()


def _found(event: Examined) -> bytes:
    """Return what a plan shows, of one message: how it stands, and each difference."""
    finding = event.finding
    parts = (event.message.message_id, finding.standing, finding.cause, *finding.differences)
    return ("|".join(map(str, parts)) + "\n").encode()
