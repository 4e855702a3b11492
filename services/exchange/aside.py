"""Set aside what cannot be taken: exact bytes, cause and attempts are kept, the rest goes on.

Bytes that nobody vouches for never mark a message id: they are counted per cause and minute. What
an agency did sign and cannot be taken is answered with a refusal, so that the sender stops
publishing it; its deadlines run on. A signature that is wrong under a known key is refused for
ever; a key that is unknown may be trusted tomorrow, and then the same bytes are redriven.
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from schemas.canonical import b64, parse
from schemas.catalog import body_of
from schemas.envelope import Attributes, Kind, Lane, Unverified, open_data, read, verify
from schemas.errors import EvidenceError, NoticeBusError, RejectedError
from schemas.reply import Refusal
from services.bus import Entry
from services.exchange import gaps, outbox, superseding
from services.exchange.agency import Agency
from services.exchange.intake import Arrived, answer_again, first_taken
from services.exchange.outbox import OUTBOX_CHANNELS
from services.exchange.store import dead, incoming
from services.exchange.store.dead import DeadLetter
from services.exchange.store.incoming import InboxRow
from services.exchange.store.published import republish_messages
from services.ledger.records import Record, make_record
from services.ledger.store import Transaction, append, append_returning, notify
from services.telemetry.metrics import MESSAGES_REFUSED, UNAUTHENTICATED

log = structlog.get_logger()

UNKNOWN_KEY = "NB-2010"
# What time may mend: a key that is trusted tomorrow, a kind that the next release knows.
REDRIVABLE = frozenset({UNKNOWN_KEY, "NB-2008"})
# Other bytes under an id or sequence that was taken: the first stays in its place, answer included.
TWINS = frozenset({"NB-2151", "NB-2152"})
# These contradict what was taken, and no redrive will ever take them.
FINAL = TWINS | {"NB-2153"}
ATTEMPTS_USED_UP = "NB-2110"
_OFFICE = re.compile(r"[A-Z]{3}")


async def set_aside_unauthenticated(
    agency: Agency, refused: Sequence[tuple[Entry, RejectedError]], *, redriven: bool = False
) -> None:
    """Keep entries that nobody vouches for, all in one transaction, and count them.

    What was `redriven` lies here already and did not arrive again: it stays as it is.
    """
    if redriven:
        return
    if not refused:
        return
    now = datetime.now(UTC)
    async with agency.store.transaction() as tx:
        for entry, error in refused:
            await _keep_unauthenticated(agency, tx, entry, error, now)
        for (stream, cause), arrivals in Counter((e.stream, x.code) for e, x in refused).items():
            await dead.count_unauthenticated(tx, stream, cause, arrivals, now)
            UNAUTHENTICATED.labels(cause).inc(arrivals)
            log.error("entries refused", stream=stream, cause=cause, count=arrivals)


async def _keep_unauthenticated(
    agency: Agency, tx: Transaction, entry: Entry, error: RejectedError, now: datetime
) -> None:
    claimed = _claims(entry)
    open_again = error.code in REDRIVABLE
    claims = claimed.claims if claimed is not None else None
    if open_again and claims is not None and claims.kind is Kind.HEAD:
        # The next one says all of it again; once its key is trusted, it is asked for by its gap.
        return
    letter = DeadLetter(
        dead_id=uuid7(),
        stream=entry.stream,
        entry_id=entry.entry_id,
        bytes_hash=sha256(entry.jws).digest(),
        envelope=entry.jws,
        cause=error.code,
        field=_field(error),
        schema_version=None,
        authentic=False,
        message_id=claims.id if claims else None,
        notice_id=claims.subject if claims else None,
        generation=claims.generation if claims else None,
        sequence=claims.sequence if claims else None,
        first_at=now,
        last_at=now,
        arrivals=1,
        state="open" if open_again else "refused",
        state_at=now,
    )
    dead_id, arrivals = await dead.set_aside(tx, letter)
    if not open_again or claimed is None or claims is None:
        return
    if arrivals > 1:
        # The sender asks again: its refusal, which bears the dead letter's id, may be lost.
        if await republish_messages(tx, [dead_id], now):
            await notify(tx, OUTBOX_CHANNELS[Lane.CONTROL])
        return
    # The claims decide only where the refusal points: the sender compares the hash with what it
    # sent, so a forged claim tells it nothing.
    if claims.recipient == agency.name and claims.lane is not Lane.CONTROL:
        await _answer_with_refusal(
            tx, claims, claimed.hash, error, now, final=False, message_id=dead_id
        )


async def refuse(agency: Agency, message: Arrived, error: RejectedError | EvidenceError) -> None:
    """Set aside a message that its sender did sign: dead letter, record, refusal in answer.

    One that was answered before, by a copy in the same batch, is answered with the same again.
    """
    now = datetime.now(UTC)
    attributes = message.envelope.attributes
    async with agency.store.transaction() as tx:
        highest = await incoming.lock_stream(tx, message.entry.stream, attributes.generation)
        try:
            before = await first_taken(tx, message)
        except RejectedError as stronger:
            # Whatever else is wrong with it: its place belongs to another, which stays.
            error, before = stronger, None
        if before is not None and not message.is_new(before):
            await answer_again(tx, [before], now)
            return
        twin = error.code in TWINS
        final = error.code in FINAL
        letter = _letter(agency, message, error, now, final=final)
        told = await dead.cause_of(tx, letter.bytes_hash) if message.redriven else None
        await dead.set_aside(tx, letter, arrived=not message.redriven)
        records = await append_returning(tx, [_refused(message, error, now)])
        if final or isinstance(error, EvidenceError):
            await dead.raise_alarm(tx, error.code, str(attributes.id), now)
        answer = None
        # One that fails again is refused again only if its sender has to know something else.
        if not twin and attributes.lane is not Lane.CONTROL and told != error.code:
            answer = await _answer_with_refusal(
                tx, attributes, message.envelope.hash, error, now, final=final
            )
        if before is not None and answer is not None:
            await incoming.set_answer(tx, attributes.id, answer)
        if not twin and before is None:
            await incoming.add(
                tx,
                message.entry.stream,
                attributes.generation,
                [_refused_row(attributes, message.envelope.hash, records[0], answer)],
                now,
            )
            if message.redriven:
                # It lay here unread since it came: its clocks run since then.
                first = await dead.first_arrivals(tx, [letter.bytes_hash])
                await incoming.set_arrived(tx, {attributes.id: first[letter.bytes_hash]})
            await superseding.give_way(tx, attributes.subject)
            await gaps.note_arrivals(
                tx,
                message.entry.stream,
                attributes.generation,
                highest,
                [attributes.sequence],
                now,
            )
    MESSAGES_REFUSED.labels(error.code).inc()
    log.error(
        "message refused",
        message_id=str(attributes.id),
        stream=message.entry.stream,
        cause=error.code,
    )


async def give_up_held(
    agency: Agency, message: Arrived, error: RejectedError | EvidenceError
) -> None:
    """Set aside a message that cannot be applied though its turn has come; redrive takes it.

    It has its receipt, which says that it was held; now its sender gets a refusal too, and an alarm
    says it here.
    """
    now = datetime.now(UTC)
    attributes = message.envelope.attributes
    answer = uuid7()
    async with agency.store.transaction() as tx:
        if not await incoming.give_up_held(tx, attributes.id, answered_by=answer):
            return
        final = error.code in FINAL
        await dead.set_aside(tx, _letter(agency, message, error, now, final=final))
        await _answer_with_refusal(
            tx, attributes, message.envelope.hash, error, now, final=final, message_id=answer
        )
        await superseding.give_way(tx, attributes.subject)
        await append(tx, [_refused(message, error, now)])
        await dead.raise_alarm(tx, error.code, str(attributes.id), now)
    MESSAGES_REFUSED.labels(error.code).inc()
    log.error(
        "held message set aside",
        message_id=str(attributes.id),
        stream=attributes.stream,
        cause=error.code,
    )


async def note_failure(agency: Agency, entry: Entry, error: Exception) -> bool:
    """Count a failed attempt of an entry tried alone; True once it was set aside for it."""
    spent = await count_attempt(agency, entry, error)
    if spent is None:
        return False
    try:
        envelope = verify(read(entry.jws), agency.directory.verify_keys)
    except RejectedError:
        await set_aside_unauthenticated(agency, [(entry, spent)])
    else:
        await refuse(agency, Arrived(entry=entry, envelope=envelope), spent)
    return True


async def count_attempt(agency: Agency, entry: Entry, error: Exception) -> RejectedError | None:
    """Count a failed attempt; returns why the entry is to be set aside once they are used up."""
    cause = error.code if isinstance(error, NoticeBusError) else type(error).__name__
    now = datetime.now(UTC)
    claimed = _claims(entry)
    claims = claimed.claims if claimed is not None else None
    async with agency.store.transaction() as tx:
        number = await dead.add_attempt(
            tx,
            bytes_hash=sha256(entry.jws).digest(),
            stream=entry.stream,
            generation=claims.generation if claims else None,
            sequence=claims.sequence if claims else None,
            cause=cause,
            now=now,
        )
    log.warning(
        "attempt failed",
        stream=entry.stream,
        entry_id=entry.entry_id,
        attempt=number,
        cause=cause,
        exc_info=error,
    )
    if number < agency.settings.delivery.attempts_max:
        return None
    return RejectedError(ATTEMPTS_USED_UP, attempts=number, cause=cause)


async def _answer_with_refusal(
    tx: Transaction,
    attributes: Attributes,
    envelope_hash: bytes,
    error: NoticeBusError,
    now: datetime,
    *,
    final: bool,
    message_id: UUID | None = None,
) -> UUID:
    message_id = message_id or uuid7()
    refusal = Refusal(
        message_id=attributes.id,
        stream=attributes.stream,
        generation=attributes.generation,
        sequence=attributes.sequence,
        envelope=b64(envelope_hash),
        code=error.code,
        field=_field(error),
        final=final,
        at=now,
    )
    await outbox.say(
        tx,
        message_id=message_id,
        kind=Kind.REFUSAL,
        body=body_of(refusal),
        correlation_id=attributes.correlationid,
        causation_id=attributes.id,
        made_at=now,
    )
    return message_id


def _refused(message: Arrived, error: NoticeBusError, now: datetime) -> Record:
    attributes = message.envelope.attributes
    return make_record(
        "message.refused",
        time=now,
        result="refused",
        notice_id=attributes.subject,
        message_id=attributes.id,
        stream=message.entry.stream,
        generation=attributes.generation,
        sequence=attributes.sequence,
        envelope=message.envelope.hash,
        commitment=attributes.commitment,
        reason=error.code,
    )


def _letter(
    agency: Agency, message: Arrived, error: NoticeBusError, now: datetime, *, final: bool
) -> DeadLetter:
    attributes = message.envelope.attributes
    return DeadLetter(
        dead_id=uuid7(),
        stream=message.entry.stream,
        entry_id=message.entry.entry_id,
        bytes_hash=sha256(message.entry.jws).digest(),
        envelope=message.entry.jws,
        cause=error.code,
        field=_field(error),
        schema_version=f"{attributes.kind}/{attributes.version}",
        authentic=True,
        message_id=attributes.id,
        notice_id=attributes.subject,
        generation=attributes.generation,
        sequence=attributes.sequence,
        first_at=now,
        last_at=now,
        arrivals=1,
        state="refused" if final else "open",
        state_at=now,
        office=_office(agency, message),
    )


def _office(agency: Agency, message: Arrived) -> str | None:
    """Return the office that the content names, if it can be read at all: groups are sorted by it.

    Nothing else of the content is looked at, and nothing of it is trusted.
    """
    try:
        said = parse(open_data(message.envelope, agency.ring.decryption).body)
    except RejectedError:
        return None
    office = said.get("aor_code") if isinstance(said, dict) else None
    return office if isinstance(office, str) and _OFFICE.fullmatch(office) else None


def _refused_row(
    attributes: Attributes, envelope_hash: bytes, record_id: int, answered_by: UUID | None
) -> InboxRow:
    return InboxRow(
        message_id=attributes.id,
        sequence=attributes.sequence,
        kind=str(attributes.kind),
        notice_id=attributes.subject,
        revision=attributes.revision,
        envelope_hash=envelope_hash,
        state="refused",
        record_id=record_id,
        answered_by=answered_by,
    )


def _claims(entry: Entry) -> Unverified | None:
    try:
        return read(entry.jws)
    except RejectedError:
        return None


def _field(error: NoticeBusError) -> str | None:
    field = error.where.get("field")
    return str(field) if field is not None else None
