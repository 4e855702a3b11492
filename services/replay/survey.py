"""Look at selected messages: what each would change, and digests of what that rests on.

An event is blocked unless its bytes are exactly those that were recorded: the envelope under its
hash, the content under the envelope's commitment. Nothing is written on the way.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from schemas.canonical import format_time
from schemas.catalog import parse_body
from schemas.codes import UNKNOWN_OFFICE
from schemas.envelope import SALT_BYTES, Attributes, commitment, read
from schemas.errors import RejectedError
from schemas.notice import NilReturn, Notice
from services.exchange.recorded import (
    Ahead,
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
from services.replay.plans import Counts
from services.replay.reached import Reached
from services.replay.selection import Selection
from services.replay.sources import STORE, Progress, Source, Sourced
from services.replay.store import messages as store
from services.replay.store.messages import PASS_SECONDS

BATCH_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One event: how it stands, and its envelope where its bytes are whole."""

    message: Recorded
    finding: Finding
    envelope: bytes | None
    content_hash: bytes | None
    office: str = UNKNOWN_OFFICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found: digests of the messages and of how they stand, and the first that differ."""

    counts: Counts
    offices: dict[str, Counts]
    source_digest: bytes
    target_digest: bytes
    first: tuple[Examined, ...]


def projection_of(agency: str) -> Projection:
    """Return what an agency derives from messages."""
    return ReplyProjection() if agency == "ice" else CaseProjection()


async def events(
    database: Store,
    agency: str,
    *,
    selection: Selection,
    source: Source = STORE,
    projection: Projection | None = None,
) -> AsyncGenerator[Examined, None]:
    """Yield every selected event in order, with what it would change; one moment of the store.

    The selection must have an end, see `Selection.before`. Memory stays flat, and nothing is kept.
    The moment is held for an hour at most (`PASS_SECONDS`): who reads for longer gets
    `UnavailableError`, and asks for the rest by a later `since`.
    """
    derived = projection or projection_of(agency)
    async with database.transaction(seconds=PASS_SECONDS) as tx:
        await store.begin_pass(tx)
        await source.prepare(tx, selection)
        await store.read_only(tx)
        found = source.batches(tx, selection, after=None, batch_max=BATCH_MAX)
        async with aclosing(found) as batches:
            with closing(Reached()) as ahead:
                async for batch in batches:
                    examined = await examine(tx, derived, batch.messages, ahead, offices=True)
                    for event in examined:
                        yield event


async def survey(
    database: Store,
    agency: str,
    selection: Selection,
    *,
    source: Source = STORE,
    projection: Projection | None = None,
    first_max: int = 0,
    progress: Progress | None = None,
    tell: Callable[[Examined], None] | None = None,
) -> Survey:
    """Examine every selected message in one snapshot of the store.

    `first` has up to `first_max` events that are not the same, in order; `tell` is given each one.
    """
    counts, offices = Counts(), dict[str, Counts]()
    source_said, target_said = sha256(), sha256()
    first: list[Examined] = []
    found = events(database, agency, selection=selection, source=source, projection=projection)
    async with aclosing(found):
        async for event in found:
            standing = event.finding.standing
            counts.add(standing)
            offices.setdefault(event.office, Counts()).add(standing)
            source_said.update(_said(event))
            target_said.update(_found(event))
            if standing is not Standing.SAME and len(first) < first_max:
                first.append(event)
            if tell is not None:
                tell(event)
            if progress is not None and counts.events % BATCH_MAX == 0:
                progress(counts.events)
    if progress is not None:
        progress(counts.events)
    return Survey(
        counts=counts,
        offices=dict(sorted(offices.items())),
        source_digest=source_said.digest(),
        target_digest=target_said.digest(),
        first=tuple(first),
    )


async def examine(
    tx: Transaction,
    projection: Projection,
    sourced: Sequence[Sourced],
    ahead: Ahead,
    *,
    apply: bool = False,
    offices: bool = False,
) -> list[Examined]:
    """Say how each of these messages stands, and with `apply` let new and changed ones take effect.

    Their notices are held first then, so that what is found is what is changed. With `offices` each
    is told with its notice's office.
    """
    findings: dict[UUID, Finding] = {}
    whole: set[UUID] = set()
    readable: list[Readable] = []
    for each in sourced:
        message = each.message
        attributes, cause = _attributes(each)
        if attributes is None:
            findings[message.message_id] = Finding(Standing.BLOCKED, cause=cause)
            continue
        whole.add(message.message_id)
        findings[message.message_id] = Finding(Standing.SAME)
        if message.direction is Direction.SENT or message.kind not in projection.kinds:
            continue
        try:
            body = parse_body(message.kind, attributes.version, each.body or b"")
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
    for read_, finding in zip(readable, compared, strict=True):
        findings[read_.message.message_id] = finding
    named = await _offices(tx, sourced, readable) if offices else {}
    return [
        Examined(
            message=each.message,
            finding=findings[each.message.message_id],
            envelope=each.envelope if each.message.message_id in whole else None,
            content_hash=None if each.body is None else sha256(each.body).digest(),
            office=named.get(each.message.message_id, UNKNOWN_OFFICE),
        )
        for each in sourced
    ]


async def _offices(
    tx: Transaction, sourced: Sequence[Sourced], readable: Sequence[Readable]
) -> dict[UUID, str]:
    """Return the office of each message: its own, else that of its notice's newest revision."""
    named: dict[UUID, str] = {}
    for each in readable:
        if isinstance(each.body, Notice | NilReturn):
            named[each.message.message_id] = each.body.aor_code
    about = {
        each.message.message_id: each.message.notice_id
        for each in sourced
        if each.message.message_id not in named and each.message.notice_id is not None
    }
    by_notice = await store.offices(tx, sorted(set(about.values())))
    for message_id, notice_id in about.items():
        if notice_id in by_notice:
            named[message_id] = by_notice[notice_id]
    return named


def _attributes(each: Sourced) -> tuple[Attributes | None, str | None]:
    """Return what the envelope says of itself, or the code of what is wrong with the bytes."""
    if each.cause is not None or each.envelope is None or each.salt is None or each.body is None:
        return None, each.cause or "NB-6021"
    try:
        envelope = read(each.envelope)
    except RejectedError:
        return None, "NB-6022"
    attributes = envelope.claims
    if (
        attributes is None
        or envelope.hash != each.message.envelope_hash
        or len(each.salt) != SALT_BYTES
        or commitment(each.salt, each.body) != attributes.commitment
    ):
        return None, "NB-6022"
    return attributes, None


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
