"""Statements about everything that this agency has of some notices."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from services.ledger.store import Transaction, away


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A record; without an index while it waits for the sealer, or in a log that a restore ended.

    `former` says that it is in such a log.
    """

    record_id: int
    record_index: int | None
    former: bool
    notice_id: UUID | None
    action: str
    record: bytes
    opened: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message about a notice, in either direction, and what answered it.

    `envelope` are its bytes, None once erased, archived or lost; `left` is what erasure left of
    them. A receipt of ours is `record_index` under the checkpoint of `batch_size`; one of the
    peer's is `answer_index` in `answer_message`.
    """

    notice_id: UUID
    message_id: UUID
    direction: str
    kind: str
    revision: int | None
    stream: str
    generation: int
    sequence: int
    envelope_hash: bytes
    envelope: bytes | None
    left: bytes | None
    at: datetime
    answer: str | None
    answer_code: str | None
    answer_message: UUID | None
    answer_index: int | None
    record_index: int | None
    batch_size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The plain content of a message with the salt of its commitment."""

    message_id: UUID
    salt: bytes
    body: bytes


_OF_OFFICE = {
    "ice": """
SELECT notice_id FROM obligation
WHERE office = %(office)s AND revision > 0
  AND (%(since)s::timestamptz IS NULL OR detected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR detected_at < %(until)s)
ORDER BY notice_id LIMIT %(limit)s
""",
    "hhs": """
SELECT notice_id FROM case_file
WHERE office = %(office)s
  AND (%(since)s::timestamptz IS NULL OR opened_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR opened_at < %(until)s)
ORDER BY notice_id LIMIT %(limit)s
""",
}


async def of_office(
    tx: Transaction,
    agency: str,
    office: str,
    *,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> list[UUID]:
    """Return notices of an office: at ICE detected, at HHS opened, in that time."""
    cursor = await tx.execute(
        _OF_OFFICE[agency], {"office": office, "since": since, "until": until, "limit": limit}
    )
    return [row[0] for row in await cursor.fetchall()]


_RECORDS = """
SELECT r.record_id, e.record_index, f.record_id IS NOT NULL AS former, r.notice_id, r.action,
       r.record, o.opened
FROM record AS r
LEFT JOIN log_entry AS e USING (record_id)
LEFT JOIN former_entry AS f USING (record_id)
LEFT JOIN opening AS o USING (record_id)
WHERE r.notice_id = ANY(%b::uuid[])
ORDER BY r.record_id
"""

# The partial index of migration 0008 answers this, however large the log is.
_KEY_RECORDS = """
SELECT r.record_id, e.record_index, f.record_id IS NOT NULL AS former, r.notice_id, r.action,
       r.record, NULL::jsonb AS opened
FROM record AS r
LEFT JOIN log_entry AS e USING (record_id)
LEFT JOIN former_entry AS f USING (record_id)
WHERE r.action IN ('party.published', 'party.trusted')
ORDER BY r.record_id
"""


async def records(tx: Transaction, notices: Sequence[UUID]) -> list[Recorded]:
    """Return every record that names one of these notices, in the order they were written.

    Raises `NotFoundError` NB-3070 where some of them are in an archive.
    """
    await away.require(tx, notices=notices)
    async with tx.cursor(row_factory=class_row(Recorded)) as cursor:
        await cursor.execute(_RECORDS, [list(notices)])
        return await cursor.fetchall()


async def key_records(tx: Transaction) -> list[Recorded]:
    """Return the records that name party files by their fingerprints."""
    async with tx.cursor(row_factory=class_row(Recorded)) as cursor:
        await cursor.execute(_KEY_RECORDS)
        return await cursor.fetchall()


# The bytes of what was refused stand with its dead letter alone.
_MESSAGES = """
SELECT s.notice_id, s.message_id, 'sent' AS direction, s.kind, s.revision, s.stream, s.generation,
       s.sequence, s.envelope_hash, e.envelope, x.envelope AS "left", s.sequenced_at AS at,
       s.answer, s.answer_code, s.answer_message, s.answer_index,
       NULL::bigint AS record_index, NULL::bigint AS batch_size
FROM sent AS s
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN erased_envelope AS x USING (message_id)
WHERE s.notice_id = ANY(%(notices)b::uuid[])
UNION ALL
SELECT i.notice_id, i.message_id, 'received', i.kind, i.revision, i.stream, i.generation,
       i.sequence, i.envelope_hash, coalesce(e.envelope, d.bytes), x.envelope, i.received_at,
       CASE WHEN i.state IN ('refused', 'superseded') THEN 'refusal'
            WHEN b.size IS NOT NULL THEN 'receipt' END,
       NULL, i.answered_by, NULL, l.record_index, b.size
FROM inbox AS i
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN erased_envelope AS x USING (message_id)
LEFT JOIN LATERAL (
    SELECT bytes FROM dead_letter
    WHERE authentic AND dead_letter.message_id = i.message_id AND erasure_id IS NULL
      AND i.state IN ('refused', 'superseded')
    ORDER BY first_at LIMIT 1
) AS d ON true
LEFT JOIN log_entry AS l ON l.record_id = i.record_id
LEFT JOIN LATERAL (
    SELECT size FROM answer_batch
    WHERE first_index <= l.record_index AND size > l.record_index
    ORDER BY first_index DESC LIMIT 1
) AS b ON true
WHERE i.notice_id = ANY(%(notices)b::uuid[])
ORDER BY at, message_id
"""


async def messages(tx: Transaction, notices: Sequence[UUID]) -> list[Message]:
    """Return the messages about these notices, oldest first."""
    async with tx.cursor(row_factory=class_row(Message)) as cursor:
        await cursor.execute(_MESSAGES, {"notices": list(notices)})
        return await cursor.fetchall()


async def envelopes(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the exact bytes of messages, where they are kept."""
    cursor = await tx.execute(
        "SELECT message_id, envelope FROM envelope WHERE message_id = ANY(%b::uuid[])",
        [list(messages)],
    )
    return {row[0]: bytes(row[1]) for row in await cursor.fetchall()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A receipts message of the peer: its bytes, where in its stream it came, and when."""

    message_id: UUID
    envelope: bytes
    stream: str
    generation: int
    sequence: int
    taken_at: datetime


async def answers(tx: Transaction, messages: Sequence[UUID]) -> list[Answer]:
    """Return control messages of the peer that were taken, in the order of their stream."""
    async with tx.cursor(row_factory=class_row(Answer)) as cursor:
        await cursor.execute(
            "SELECT message_id, e.envelope, i.stream, i.generation, i.sequence,"
            " i.received_at AS taken_at FROM inbox AS i JOIN envelope AS e USING (message_id)"
            " WHERE message_id = ANY(%b::uuid[]) ORDER BY i.generation, i.sequence",
            [list(messages)],
        )
        return await cursor.fetchall()


# A message id begins with the milliseconds at which it was made (UUIDv7), so the index of ids finds
# what came after a time.
_OWN_HEADS = """
SELECT e.envelope FROM sent AS s JOIN envelope AS e USING (message_id)
WHERE s.kind = 'head' AND s.message_id >= %(first)s
ORDER BY s.message_id LIMIT %(limit)s
"""
_PEER_HEADS = """
SELECT e.envelope FROM inbox AS i JOIN envelope AS e USING (message_id)
WHERE i.stream = %(stream)s AND (i.generation, i.sequence) > (%(generation)s, %(sequence)s)
  AND i.kind = 'head'
ORDER BY i.generation, i.sequence LIMIT %(limit)s
"""
_BATCHES = """
SELECT e.envelope
FROM peer_checkpoint AS c
JOIN inbox AS i ON i.stream = %(stream)s AND i.generation = c.generation
               AND i.sequence = c.sequence
JOIN envelope AS e USING (message_id)
WHERE c.origin = %(origin)s AND c.size > %(above)s AND c.size <= %(up_to)s AND i.kind = 'receipts'
ORDER BY c.size LIMIT %(limit)s
"""


async def own_heads(tx: Transaction, *, since: datetime, limit: int) -> list[bytes]:
    """Return the first heads that we told from a time on."""
    first = UUID(int=int(since.timestamp() * 1000) << 80)
    cursor = await tx.execute(_OWN_HEADS, {"first": first, "limit": limit})
    return [bytes(row[0]) for row in await cursor.fetchall()]


async def peer_heads_after(tx: Transaction, answer: Answer, *, limit: int) -> list[bytes]:
    """Return the first heads of the peer behind an answer in its stream."""
    place = {
        "stream": answer.stream,
        "generation": answer.generation,
        "sequence": answer.sequence,
        "limit": limit,
    }
    cursor = await tx.execute(_PEER_HEADS, place)
    return [bytes(row[0]) for row in await cursor.fetchall()]


async def batches(
    tx: Transaction, stream: str, origin: str, *, above: int, up_to: int, limit: int
) -> list[bytes]:
    """Return the answers of the peer whose checkpoints have these sizes, the smallest first."""
    values = {
        "stream": stream,
        "origin": origin,
        "above": above,
        "up_to": up_to,
        "limit": limit,
    }
    cursor = await tx.execute(_BATCHES, values)
    return [bytes(row[0]) for row in await cursor.fetchall()]


async def contents(tx: Transaction, messages: Sequence[UUID]) -> list[Content]:
    """Return the plain contents of messages that were not erased."""
    async with tx.cursor(row_factory=class_row(Content)) as cursor:
        await cursor.execute(
            "SELECT message_id, salt, body FROM payload"
            " WHERE message_id = ANY(%b::uuid[]) AND salt IS NOT NULL AND body IS NOT NULL"
            " ORDER BY message_id",
            [list(messages)],
        )
        return await cursor.fetchall()


async def notes(tx: Transaction, sizes: Sequence[int]) -> dict[int, str]:
    """Return our own checkpoints of these sizes."""
    cursor = await tx.execute(
        "SELECT size, note FROM checkpoint WHERE size = ANY(%b::bigint[])", [list(sizes)]
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def newest_of_peer(tx: Transaction) -> list[tuple[str, int, str]]:
    """Return the newest checkpoint of each of the peer's logs, as a receipt showed it."""
    cursor = await tx.execute(
        "SELECT DISTINCT ON (origin) origin, size, note FROM peer_checkpoint"
        " ORDER BY origin, size DESC"
    )
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]
