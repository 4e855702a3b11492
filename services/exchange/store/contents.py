"""Statements that read messages in order to hold them against their records, row by row."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID, uuid4

from psycopg import sql
from psycopg.rows import args_row, class_row

from services.ledger.store import Transaction

ROWS_A_READ = 500
# What is read in one go: for each share the records are looked through once.
MESSAGES_A_SHARE = 2_000
SHARES_MAX = 32


# Not frozen: one is made of every message there is, and that would take twice the time.
@dataclass(slots=True)
class Kept:
    """A message that was sent or taken here, with all that is kept of it.

    `place` is the table that names it; `record` and `record_index` are those of the record that it
    was sent or taken with, `record_archived` says that its bytes are in an archive alone, and
    `points_to_it` is false where the row names another.
    """

    place: str
    message_id: UUID
    stream: str
    generation: int
    sequence: int
    kind: str
    notice_id: UUID | None
    revision: int | None
    envelope_hash: bytes
    state: str | None
    moment: datetime
    answer: str | None
    answer_code: str | None
    answer_message: UUID | None
    answer_index: int | None
    answered_at: datetime | None
    envelope: bytes | None
    archived: bool
    erased: bool
    content: bool
    salt: bytes | None
    body: bytes | None
    erased_at: datetime | None
    record: bytes | None
    record_archived: bool
    record_index: int | None
    points_to_it: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A control message that was taken as an answer, and when it was."""

    envelope: bytes | None
    taken_at: datetime


# In the order of their streams, so that neighbours share an answer.
_SENT = """
SELECT 'sent' AS place, s.message_id, s.stream, s.generation, s.sequence, s.kind, s.notice_id,
       s.revision, s.envelope_hash, NULL AS state, s.sequenced_at AS moment, s.answer,
       s.answer_code, s.answer_message, s.answer_index, s.answered_at, e.envelope,
       a.message_id IS NOT NULL AS archived, x.message_id IS NOT NULL AS erased,
       p.message_id IS NOT NULL AS content, p.salt, p.body,
       p.erased_at, r.record, r.record IS NULL AND r.leaf IS NOT NULL AS record_archived,
       l.record_index, true AS points_to_it
FROM (SELECT * FROM sent
      WHERE (stream, generation, sequence) >= (%(stream)s, %(generation)s, %(sequence)s)
      ORDER BY stream, generation, sequence LIMIT %(messages)s) AS s
LEFT JOIN archived AS a USING (message_id)
LEFT JOIN erased_envelope AS x USING (message_id)
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN payload AS p USING (message_id)
LEFT JOIN record AS r ON r.message_id = s.message_id
    AND r.action IN ('message.sent', 'message.recovered')
LEFT JOIN log_entry AS l ON l.record_id = r.record_id
ORDER BY s.stream, s.generation, s.sequence
"""
_TAKEN = """
SELECT 'inbox' AS place, i.message_id, i.stream, i.generation, i.sequence, i.kind, i.notice_id,
       i.revision, i.envelope_hash, i.state, i.received_at AS moment, NULL AS answer,
       NULL AS answer_code, NULL::uuid AS answer_message, NULL::bigint AS answer_index,
       NULL::timestamptz AS answered_at, e.envelope, a.message_id IS NOT NULL AS archived,
       x.message_id IS NOT NULL AS erased, p.message_id IS NOT NULL AS content, p.salt,
       p.body, p.erased_at, r.record, r.record IS NULL AND r.leaf IS NOT NULL AS record_archived,
       l.record_index,
       i.record_id IS NULL OR i.record_id IS NOT DISTINCT FROM r.record_id AS points_to_it
FROM (SELECT * FROM inbox
      WHERE (stream, generation, sequence) >= (%(stream)s, %(generation)s, %(sequence)s)
      ORDER BY stream, generation, sequence LIMIT %(messages)s) AS i
LEFT JOIN archived AS a USING (message_id)
LEFT JOIN erased_envelope AS x USING (message_id)
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN payload AS p USING (message_id)
LEFT JOIN record AS r ON r.message_id = i.message_id
    AND r.action IN ('message.received', 'receipts.verified')
LEFT JOIN log_entry AS l ON l.record_id = r.record_id
ORDER BY i.stream, i.generation, i.sequence
"""


# What came in goes first: an answer that was changed itself is then named, not its receivers.
_KEPT = {"inbox": _TAKEN, "sent": _SENT}


@dataclass(frozen=True, slots=True)
class Share:
    """Neighbouring messages of one place, the first of them and how many at most."""

    place: str
    stream: str
    generation: int
    sequence: int
    messages: int


async def shares(tx: Transaction) -> list[Share]:
    """Return all messages that were taken or sent in shares, in the order to be read.

    Each has a third of what is left, so that they are few, and several readers end together.
    """
    made: list[Share] = []
    left = {place: await _count(tx, place) for place in _KEPT}
    least = max(MESSAGES_A_SHARE, sum(left.values()) // SHARES_MAX)
    for place in _KEPT:
        first = 0
        while left[place]:
            messages = min(left[place], max(least, sum(left.values()) // 3))
            made.append(Share(place, *await _at(tx, place, first), messages))
            first, left[place] = first + messages, left[place] - messages
    return made


async def _count(tx: Transaction, place: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(place))
    [(count,)] = await (await tx.execute(query)).fetchall()
    return int(count)


async def _at(tx: Transaction, place: str, before: int) -> tuple[str, int, int]:
    """Return where the message stands that has so many before it."""
    query = sql.SQL(
        "SELECT stream, generation, sequence FROM {} ORDER BY 1, 2, 3 OFFSET %s LIMIT 1"
    ).format(sql.Identifier(place))
    [(stream, generation, sequence)] = await (await tx.execute(query, [before])).fetchall()
    return stream, generation, sequence


async def kept(tx: Transaction, share: Share) -> AsyncGenerator[list[Kept]]:
    """Yield the messages of a share in their order, some hundred at a time."""
    async with tx.cursor(name=f"kept_{uuid4().hex}", row_factory=args_row(Kept)) as cursor:
        await cursor.execute(_KEPT[share.place], asdict(share), binary=True)
        while rows := await cursor.fetchmany(ROWS_A_READ):
            yield rows


_SET_ASIDE = """
SELECT message_id, moment FROM unnest(%(messages)s::uuid[], %(moments)s::timestamptz[])
    AS came (message_id, moment)
WHERE (message_id, moment) IN (
          SELECT message_id, recorded_at FROM record WHERE action = 'message.refused')
   OR (message_id, moment) IN (SELECT message_id, first_at FROM dead_letter)
"""


async def set_aside(
    tx: Transaction, came: Sequence[tuple[UUID, datetime]]
) -> set[tuple[UUID, datetime]]:
    """Return which of these messages were refused or set aside when they came, to be taken later.

    The records are looked through once.
    """
    asked = {"messages": [each[0] for each in came], "moments": [each[1] for each in came]}
    return {(row[0], row[1]) for row in await (await tx.execute(_SET_ASIDE, asked)).fetchall()}


async def answer(tx: Transaction, message_id: UUID) -> Answer | None:
    """Return a control message that was taken from the peer, None if none is known by this id."""
    async with tx.cursor(row_factory=class_row(Answer)) as cursor:
        await cursor.execute(
            "SELECT e.envelope, i.received_at AS taken_at FROM inbox AS i"
            " LEFT JOIN envelope AS e USING (message_id)"
            " WHERE i.message_id = %s AND i.state = 'control'",
            [message_id],
        )
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class Answered:
    """What is noted of the answer to a message of ours; each is None while there is none."""

    message_id: UUID
    envelope_hash: bytes
    answer: str | None
    answer_message: UUID | None
    answer_index: int | None
    answered_at: datetime | None


async def answered(tx: Transaction, messages: Sequence[UUID]) -> list[Answered]:
    """Return what is noted of the answers to these messages, of those that are ours."""
    async with tx.cursor(row_factory=args_row(Answered), binary=True) as cursor:
        await cursor.execute(
            "SELECT message_id, envelope_hash, answer, answer_message, answer_index, answered_at"
            " FROM sent WHERE message_id = ANY(%b) ORDER BY stream, generation, sequence",
            [list(messages)],
        )
        return await cursor.fetchall()


async def receipted(tx: Transaction) -> int:
    """Return how many messages of ours have a receipt, as it is noted."""
    cursor = await tx.execute("SELECT count(*) FROM sent WHERE answer = 'receipt'")
    [(count,)] = await cursor.fetchall()
    return int(count)


# Sealed records of messages that no table names any more.
_GONE = """
SELECT e.record_index, r.message_id, r.action
FROM record AS r
JOIN log_entry AS e USING (record_id)
WHERE r.message_id IS NOT NULL
  AND ((r.action = 'message.sent'
        AND NOT EXISTS (SELECT FROM sent AS s WHERE s.message_id = r.message_id))
    OR (r.action IN ('message.received', 'receipts.verified')
        AND NOT EXISTS (SELECT FROM inbox AS i WHERE i.message_id = r.message_id)))
ORDER BY e.record_index LIMIT 1
"""


async def gone(tx: Transaction) -> tuple[int, UUID, str] | None:
    """Return index, message and action of the first record whose message has no row."""
    cursor = await tx.execute(_GONE)
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1], row[2])


# Bytes of a message that no table names any more; records name most, receipts have none.
_ORPHAN = """
SELECT message_id FROM envelope AS e
WHERE NOT EXISTS (SELECT FROM sent AS s WHERE s.message_id = e.message_id)
  AND NOT EXISTS (SELECT FROM inbox AS i WHERE i.message_id = e.message_id)
ORDER BY message_id LIMIT 1
"""


async def orphan(tx: Transaction) -> UUID | None:
    """Return the first message whose bytes are kept and that was neither sent nor taken."""
    cursor = await tx.execute(_ORPHAN)
    row = await cursor.fetchone()
    return None if row is None else row[0]


# Sequences of ours without a row: before each that has one, and after the last one.
_HOLES = """
SELECT stream, generation, before + 1, sequence - 1
FROM (
    SELECT stream, generation, sequence,
           lag(sequence, 1, 0::bigint) OVER (PARTITION BY stream, generation ORDER BY sequence)
               AS before
    FROM (SELECT stream, generation, sequence FROM sent
          UNION ALL
          SELECT stream, generation, next_sequence FROM stream_out) AS numbered
) AS neighbours
WHERE sequence > before + 1
ORDER BY 1, 2, 3
"""
# What a restore lost of an earlier generation is void, or waits for a person under its sequences.
_EXPLAINED = """
SELECT first_sequence, last_sequence FROM voided
WHERE stream = %(stream)s AND generation = %(generation)s
UNION ALL
SELECT first_sequence, coalesce(last_sequence, first_sequence) FROM lost
WHERE stream = %(stream)s AND generation = %(generation)s
ORDER BY 1
"""


async def unnumbered(tx: Transaction) -> tuple[str, int, int] | None:
    """Return stream, generation and sequence of the first message of ours that has no row.

    One that was declared void, or that a restore lost, is none.
    """
    for stream, generation, first, last in await (await tx.execute(_HOLES)).fetchall():
        cursor = await tx.execute(_EXPLAINED, {"stream": stream, "generation": generation})
        for begin, end in await cursor.fetchall():
            if begin <= first <= end:
                first = end + 1
        if first <= last:
            return stream, generation, first
    return None


@dataclass(frozen=True, slots=True)
class Log:
    """Where a log of ours ends; `former` is one that a restore ended."""

    origin: str
    size: int
    former: bool


async def logs(tx: Transaction) -> dict[str, Log]:
    """Return our logs by name."""
    cursor = await tx.execute(
        "SELECT origin, size, false FROM log_head"
        " UNION ALL SELECT origin, size, true FROM former_log"
    )
    return {row[0]: Log(*row) for row in await cursor.fetchall()}


_NOTES = """
SELECT size, note FROM checkpoint
WHERE size >= %(size)s AND (SELECT origin FROM log_head) = %(origin)s
UNION ALL
SELECT size, note FROM former_checkpoint WHERE origin = %(origin)s AND size >= %(size)s
ORDER BY size LIMIT %(limit)s
"""


async def notes(tx: Transaction, origin: str, size: int, *, limit: int) -> dict[int, str]:
    """Return the first checkpoints of a log of ours of at least this size, by size."""
    values = {"origin": origin, "size": size, "limit": limit}
    return {row[0]: row[1] for row in await (await tx.execute(_NOTES, values)).fetchall()}
