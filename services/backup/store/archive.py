"""Statements about archives: what is closed and old enough, the log beside it, and what moved."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from services.ledger.store import Transaction

_READ_A_TIME = 500

# When a notice is over: at HHS its case, at ICE by the outcome that it heard of or its withdrawal,
# unless a person is asked something about it.
_CLOSED = {
    "hhs": "SELECT notice_id FROM case_file WHERE state IN ('closed', 'withdrawn')",
    "ice": (
        "SELECT notice_id FROM obligation AS o WHERE confirm IS NULL AND (state = 'withdrawn'"
        " OR (state = 'recorded' AND EXISTS (SELECT FROM reply AS r"
        " WHERE r.notice_id = o.notice_id AND r.kind = 'outcome')))"
    ),
}

# Closed notices of which nothing is owed, waits, is set aside or lost, or happened since a time or
# behind a size of the log. That somebody had a proof made is no act on the notice.
_QUIET = """
CREATE TEMPORARY TABLE quiet ON COMMIT DROP AS
WITH over AS (
    {closed}
), message AS (
    SELECT notice_id, greatest(sequenced_at, answered_at) AS at,
           answer IS NULL OR answer <> 'receipt' AS busy
    FROM sent WHERE notice_id IN (SELECT notice_id FROM over)
    UNION ALL
    SELECT notice_id, received_at, state NOT IN ('applied', 'superseded')
    FROM inbox WHERE notice_id IN (SELECT notice_id FROM over)
), still AS (
    SELECT notice_id FROM message GROUP BY notice_id
    HAVING max(at) < %(before)s AND NOT bool_or(busy)
)
SELECT s.notice_id FROM still AS s
WHERE NOT EXISTS (SELECT FROM outbox AS o WHERE o.notice_id = s.notice_id)
  AND NOT EXISTS (SELECT FROM dead_letter AS d
                  WHERE d.notice_id = s.notice_id AND d.state = 'open')
  AND NOT EXISTS (SELECT FROM lost AS l
                  WHERE l.notice_id = s.notice_id AND l.resolved_at IS NULL)
  AND NOT EXISTS (SELECT FROM record AS r LEFT JOIN log_entry AS e USING (record_id)
                  WHERE r.notice_id = s.notice_id AND r.action <> 'proof.built'
                  AND (r.recorded_at >= %(before)s OR e.record_index >= %(size)s
                       OR EXISTS (SELECT FROM unsealed AS u WHERE u.record_id = r.record_id)))
"""

# Their messages, each with the newest record of the log that holds its hash.
_CHOOSE = """
CREATE TEMPORARY TABLE chosen ON COMMIT DROP AS
SELECT DISTINCT ON (m.message_id) m.message_id, e.record_index
FROM (SELECT notice_id, message_id FROM sent UNION ALL SELECT notice_id, message_id FROM inbox) AS m
JOIN quiet USING (notice_id)
JOIN record AS r ON r.message_id = m.message_id AND r.record IS NOT NULL
    AND r.action IN ('message.sent', 'message.received', 'message.recovered')
JOIN log_entry AS e USING (record_id)
JOIN payload AS p ON p.message_id = m.message_id AND p.body IS NOT NULL
JOIN envelope AS v ON v.message_id = m.message_id
WHERE e.record_index < %(size)s
ORDER BY m.message_id, e.record_index DESC
"""

# Their records. One that names a content which stays (what waited for a person) stays with it:
# retention finds the content by it.
_CHOOSE_RECORDS = """
CREATE TEMPORARY TABLE chosen_record ON COMMIT DROP AS
SELECT e.record_index, r.record_id
FROM record AS r
JOIN quiet USING (notice_id)
JOIN log_entry AS e USING (record_id)
WHERE r.record IS NOT NULL AND e.record_index < %(size)s AND r.recorded_at < %(before)s
  AND NOT EXISTS (
      SELECT FROM payload AS p WHERE p.body IS NOT NULL AND p.message_id =
      (convert_from(r.record, 'UTF8')::jsonb #>> '{detail,content}')::uuid)
"""


async def hold_still(tx: Transaction) -> None:
    """Let a transaction see one moment, and take its time."""
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await tx.execute("SET LOCAL statement_timeout = '1h'")
    await tx.execute("SET LOCAL idle_in_transaction_session_timeout = '1h'")


async def choose(tx: Transaction, agency: str, *, before: datetime, size: int) -> tuple[int, int]:
    """Note what can be moved, for `lines` in the same transaction: how many messages and records.

    Only of notices on which nothing happened since `before`, and in the first `size` records.
    """
    values = {"before": before, "size": size}
    await tx.execute(_QUIET.format(closed=_CLOSED[agency]), values)
    await tx.execute("ANALYZE quiet")
    messages = await tx.execute(_CHOOSE, values)
    records = await tx.execute(_CHOOSE_RECORDS, values)
    for table in ("chosen", "chosen_record"):
        await tx.execute(f"CREATE INDEX ON {table} (record_index)".encode())
    return messages.rowcount, records.rowcount


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A record of the log in its place, the checkpoint that ends there, and a message to move.

    `leaf` stands for bytes that are in an earlier archive; `moves` says that the record moves, with
    what `opened` tells of it.
    """

    record_index: int
    record: bytes | None
    leaf: bytes | None
    note: str | None
    moves: bool
    opened: dict[str, Any] | None
    message_id: UUID | None
    envelope: bytes | None
    salt: bytes | None
    body: bytes | None


_LINES = """
SELECT e.record_index, r.record, r.leaf, c.note, k.record_id IS NOT NULL AS moves, o.opened,
       m.message_id, v.envelope, p.salt, p.body
FROM log_entry AS e
JOIN record AS r USING (record_id)
LEFT JOIN checkpoint AS c ON c.size = e.record_index + 1
LEFT JOIN chosen_record AS k ON k.record_index = e.record_index
LEFT JOIN opening AS o ON o.record_id = k.record_id
LEFT JOIN chosen AS m ON m.record_index = e.record_index
LEFT JOIN envelope AS v ON v.message_id = m.message_id
LEFT JOIN payload AS p ON p.message_id = m.message_id
WHERE e.record_index < %s
ORDER BY e.record_index
"""


async def lines(tx: Transaction, size: int) -> AsyncIterator[Row]:
    """Yield the log up to `size`, in order."""
    async with tx.cursor(name="archive", row_factory=class_row(Row), binary=True) as cursor:
        await cursor.execute(_LINES, [size])
        while rows := await cursor.fetchmany(_READ_A_TIME):
            for row in rows:
                yield row


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A file that messages and records were moved to; its bytes are told by their digest.

    `record_id` is the record that tells of it.
    """

    archive_id: UUID
    digest: bytes
    made_at: datetime
    before: datetime
    origin: str
    size: int
    messages: int
    records: int
    record_id: int


_COLUMNS = ", ".join(Archive.__dataclass_fields__)


async def keep(tx: Transaction, archive: Archive) -> None:
    """Note an archive whose messages and records leave in the same transaction."""
    names = list(Archive.__dataclass_fields__)
    values = ", ".join(f"%({name})s" for name in names)
    await tx.execute(
        f"INSERT INTO archive ({_COLUMNS}) VALUES ({values})",  # noqa: S608 - constants
        {name: getattr(archive, name) for name in names},
    )


async def leave(tx: Transaction, archive_id: UUID, messages: Sequence[UUID], now: datetime) -> int:
    """Remove content and bytes of messages that an archive holds; returns how many were there."""
    await tx.execute(
        "INSERT INTO archived (message_id, archive_id) SELECT *, %s FROM unnest(%b::uuid[])",
        [archive_id, list(messages)],
    )
    await tx.execute(
        "UPDATE payload SET salt = NULL, body = NULL, erased_at = %s"
        " WHERE message_id = ANY(%b::uuid[])",
        [now, list(messages)],
    )
    gone = await tx.execute(
        "DELETE FROM envelope WHERE message_id = ANY(%b::uuid[])", [list(messages)]
    )
    return gone.rowcount


# Only the leaf hash stays; that it is of these bytes is what the table's trigger sees to.
_LEAVE_RECORDS = """
UPDATE record AS r SET record = NULL, leaf = sha256('\\x00'::bytea || r.record), archive_id = %s
FROM log_entry AS e
WHERE e.record_id = r.record_id AND e.record_index = ANY(%b::bigint[])
RETURNING r.record_id
"""


async def leave_records(tx: Transaction, archive_id: UUID, indexes: Sequence[int]) -> int:
    """Remove bytes and openings of records that an archive holds; returns how many were there."""
    cursor = await tx.execute(_LEAVE_RECORDS, [archive_id, list(indexes)])
    left = [row[0] for row in await cursor.fetchall()]
    await tx.execute("DELETE FROM opening WHERE record_id = ANY(%b::bigint[])", [left])
    return len(left)


async def come_back(tx: Transaction, messages: Sequence[tuple[UUID, bytes, bytes, bytes]]) -> int:
    """Put (id, envelope, salt, content) back that was archived; returns how many were."""
    columns = [[row[at] for row in messages] for at in range(4)]
    cursor = await tx.execute(
        "DELETE FROM archived WHERE message_id = ANY(%b::uuid[])", [columns[0]]
    )
    await tx.execute(
        "INSERT INTO envelope (message_id, envelope) SELECT * FROM unnest(%b::uuid[], %b::bytea[])"
        " ON CONFLICT (message_id) DO NOTHING",
        columns[:2],
    )
    await tx.execute(
        "UPDATE payload AS p SET salt = t.salt, body = t.body, erased_at = NULL"
        " FROM unnest(%b::uuid[], %b::bytea[], %b::bytea[]) AS t (message_id, salt, body)"
        " WHERE p.message_id = t.message_id AND p.body IS NULL",
        [columns[0], columns[2], columns[3]],
    )
    return cursor.rowcount


# Places of the log that an archive is of, which a restore may have ended since.
PLACED = """
SELECT r.record_id, t.record, t.opened
FROM unnest(%(indexes)b::bigint[], %(records)b::bytea[], %(opened)b::jsonb[])
    AS t (record_index, record, opened)
JOIN archive AS a ON a.digest = %(digest)b
LEFT JOIN log_entry AS e
    ON e.record_index = t.record_index AND a.origin = (SELECT origin FROM log_head)
LEFT JOIN former_entry AS f ON f.origin = a.origin AND f.record_index = t.record_index
JOIN public.record AS r ON r.record_id = coalesce(e.record_id, f.record_id)
    AND r.archive_id = a.archive_id AND r.leaf = sha256('\\x00'::bytea || t.record)
"""

RecordRow = tuple[int, bytes, Mapping[str, Any]]


def placed(digest: bytes, records: Sequence[RecordRow]) -> dict[str, Any]:
    """Return the values of `PLACED` for records (index, bytes, openings) of an archive."""
    return {
        "digest": digest,
        "indexes": [row[0] for row in records],
        "records": [row[1] for row in records],
        "opened": [Jsonb(row[2]) if row[2] else None for row in records],
    }


_RECORDS_BACK = f"""
WITH placed AS MATERIALIZED ({PLACED}), back AS (
    UPDATE record AS r SET record = p.record, leaf = NULL, archive_id = NULL
    FROM placed AS p WHERE p.record_id = r.record_id
), opened AS (
    INSERT INTO opening (record_id, opened)
    SELECT record_id, opened FROM placed WHERE opened IS NOT NULL
    ON CONFLICT (record_id) DO NOTHING
)
SELECT count(*) FROM placed
"""  # noqa: S608 - constants


async def records_back(tx: Transaction, digest: bytes, records: Sequence[RecordRow]) -> int:
    """Put records back that an archive with this digest holds; returns how many were away."""
    (row,) = await (await tx.execute(_RECORDS_BACK, placed(digest, records))).fetchall()
    return int(row[0])
