"""Statements about messages under a revoked key of ours, and what is sent in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.ledger.store import Transaction

SIGNED_BY_REVOKED = "NB-3183"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A message of ours as it was signed; `salt` and `body` are None in control."""

    stream: str
    generation: int
    sequence: int
    message_id: UUID
    kind: str
    notice_id: UUID | None
    revision: int | None
    envelope: bytes
    salt: bytes | None
    body: bytes | None


# What every envelope of one key begins with tells it from others.
_UNANSWERED = """
SELECT s.stream, s.generation, s.sequence, s.message_id, s.kind, s.notice_id, s.revision,
       e.envelope, p.salt, p.body
FROM sent AS s
JOIN envelope AS e USING (message_id)
JOIN payload AS p USING (message_id)
WHERE s.answer IS NULL AND p.body IS NOT NULL
  AND substring(e.envelope FROM 1 FOR %(length)s) = %(begin)b
ORDER BY s.stream, s.generation, s.sequence
"""

# In control nothing is answered: what the peer did not say that it read may be lost.
_UNREAD = """
SELECT s.stream, s.generation, s.sequence, s.message_id, s.kind, s.notice_id, s.revision,
       e.envelope, NULL::bytea, NULL::bytea
FROM sent AS s
JOIN envelope AS e USING (message_id)
LEFT JOIN peer_read AS r USING (stream, generation)
WHERE s.answer = 'none' AND s.sequence > coalesce(r.highest, 0)
  AND substring(e.envelope FROM 1 FOR %(length)s) = %(begin)b
ORDER BY s.stream, s.generation, s.sequence
"""


async def unanswered(tx: Transaction, begin: bytes) -> list[Signed]:
    """Return unanswered messages whose bytes begin so, in order of stream and sequence."""
    return await _signed(tx, _UNANSWERED, begin)


async def unread(tx: Transaction, begin: bytes) -> list[Signed]:
    """Return control messages whose bytes begin so and which the peer may not have read."""
    return await _signed(tx, _UNREAD, begin)


async def _signed(tx: Transaction, query: str, begin: bytes) -> list[Signed]:
    cursor = await tx.execute(query, {"begin": begin, "length": len(begin)})
    return [
        Signed(
            stream=row[0],
            generation=row[1],
            sequence=row[2],
            message_id=row[3],
            kind=row[4],
            notice_id=row[5],
            revision=row[6],
            envelope=row[7],
            salt=row[8],
            body=row[9],
        )
        for row in await cursor.fetchall()
    ]


# A message may be renewed more than once: every former id leads to the newest.
async def note(tx: Transaction, pairs: Sequence[tuple[UUID, UUID]], now: datetime) -> None:
    """Note which message (second) says what another one (first) said."""
    former, new = [each for each, _ in pairs], [each for _, each in pairs]
    await tx.execute(
        "UPDATE renewed AS r SET renewed_as = t.new, renewed_at = %s"
        " FROM unnest(%b::uuid[], %b::uuid[]) AS t (former, new) WHERE r.renewed_as = t.former",
        [now, former, new],
    )
    await tx.execute(
        "INSERT INTO renewed (message_id, renewed_as, renewed_at)"
        " SELECT former, new, %s FROM unnest(%b::uuid[], %b::uuid[]) AS t (former, new)",
        [now, former, new],
    )


async def answer_by(tx: Transaction, pairs: Sequence[tuple[UUID, UUID]]) -> None:
    """Let what a control message (first) answered be answered by another one (second)."""
    values = [[each for each, _ in pairs], [each for _, each in pairs]]
    places = (("answer_batch", "message_id"), ("inbox", "answered_by"), ("voided", "message_id"))
    for table, column in places:
        await tx.execute(
            f"UPDATE {table} SET {column} = t.new"  # noqa: S608 - constants
            f" FROM unnest(%b::uuid[], %b::uuid[]) AS t (former, new) WHERE {column} = t.former",
            values,
        )


async def corrects(tx: Transaction, causes: Sequence[UUID]) -> dict[UUID, int]:
    """Return the revisions of those of these messages that are ours and of a notice."""
    cursor = await tx.execute(
        "SELECT message_id, revision FROM sent WHERE message_id = ANY(%b) AND revision IS NOT NULL",
        [list(causes)],
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


# What says the same as a message that took effect here: the commitment binds salt and content.
_REPEATED = """
SELECT t.message_id
FROM unnest(%(messages)b::uuid[], %(notices)b::uuid[], %(revisions)b::int[],
            %(commitments)b::text[]) AS t (message_id, notice_id, revision, commitment)
JOIN applied AS a ON a.notice_id = t.notice_id AND a.revision >= t.revision
WHERE EXISTS (SELECT FROM inbox AS i JOIN record AS r USING (record_id)
              WHERE i.notice_id = t.notice_id AND i.revision = t.revision
                AND i.message_id <> t.message_id AND i.state = 'applied'
                AND convert_from(r.record, 'UTF8')::jsonb ->> 'commitment' = t.commitment)
"""

# One that is held has no effect yet: the message that says the same again waits in its place.
_TAKE_THE_PLACE = """
UPDATE inbox AS i SET state = 'applied'
FROM unnest(%(messages)b::uuid[], %(notices)b::uuid[], %(revisions)b::int[],
            %(commitments)b::text[]) AS t (message_id, notice_id, revision, commitment),
     record AS r
WHERE i.notice_id = t.notice_id AND i.revision = t.revision AND i.message_id <> t.message_id
  AND i.state = 'held' AND r.record_id = i.record_id
  AND convert_from(r.record, 'UTF8')::jsonb ->> 'commitment' = t.commitment
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a message says of its place: notice, revision, and the commitment as records have it."""

    message_id: UUID
    notice_id: UUID
    revision: int
    commitment: str


async def repeated(tx: Transaction, contents: Sequence[Content]) -> set[UUID]:
    """Return the messages whose very content took effect here under another id.

    Where it is held under another id, that one waits no longer: the new message does.
    """
    values = {
        "messages": [each.message_id for each in contents],
        "notices": [each.notice_id for each in contents],
        "revisions": [each.revision for each in contents],
        "commitments": [each.commitment for each in contents],
    }
    await tx.execute(_TAKE_THE_PLACE, values)
    return {row[0] for row in await (await tx.execute(_REPEATED, values)).fetchall()}
