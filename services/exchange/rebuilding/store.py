"""Statements that make projections again, in a schema of their own that is always rolled back.

Scratch tables: `act` (what records say), `said` (what contents say), `told` (what commitments to
names and texts stand for), `receipt`, `taken` (messages that took effect here), and `sent`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

from psycopg import Rollback, sql
from psycopg.rows import class_row

from services.ledger.store import Store, Transaction, away

SECONDS = 3_600.0
_BATCH = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A content that a record commits to, as far as it is there; `bound` is the commitment."""

    message_id: UUID
    bound: bytes
    salt: bytes | None
    body: bytes | None
    erased: bool
    envelope: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidRow:
    """What a content says, as far as projections take it over."""

    message_id: UUID
    state: str
    kind: str | None = None
    revision: int | None = None
    notice_kind: str | None = None
    reason_code: str | None = None
    a_number: str | None = None
    base_city: str | None = None
    hearing_on: date | None = None
    hearing_at: datetime | None = None
    hearing_zone: str | None = None
    outcome: str | None = None
    office: str | None = None
    priority: str | None = None
    source_release: str | None = None
    eoir_case_key: int | None = None
    eoir_proceeding_key: int | None = None
    eoir_schedule_key: int | None = None
    code: str | None = None
    happened_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldRow:
    """Who acted, and the text that the record commits to."""

    record_id: int
    state: str
    actor: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRow:
    """One message that a verified receipts message answered; `held_at` when it waits there."""

    message_id: UUID
    envelope_hash: bytes
    record_index: int
    record_id: int
    answer_message: UUID
    held_at: datetime | None


# Names are only looked up here: no table of ours lies in a schema with an open name.
_TABLES = """
CREATE UNLOGGED TABLE act (
    record_id bigint, action text, result text, notice_id uuid, message_id uuid, at timestamptz,
    reason text, detail jsonb, policy text, stream text, generation integer, sequence bigint,
    envelope bytea, bound bytea
);
CREATE UNLOGGED TABLE said (
    message_id uuid, state text, kind text, revision integer, notice_kind text, reason_code text,
    a_number text, base_city text, hearing_on date, hearing_at timestamptz, hearing_zone text,
    outcome text, office text, priority text, source_release text, eoir_case_key bigint,
    eoir_proceeding_key bigint, eoir_schedule_key bigint, code text, happened_at timestamptz
);
CREATE UNLOGGED TABLE told (record_id bigint, state text, actor text, text text);
CREATE UNLOGGED TABLE receipt (
    message_id uuid, envelope_hash bytea, record_index bigint, record_id bigint,
    answer_message uuid, held_at timestamptz
);
"""


@asynccontextmanager
async def scratch(database: Store) -> AsyncIterator[tuple[Transaction, str]]:
    """Give out a transaction in an empty schema of its own, rolled back however it ends."""
    schema = f"scratch_{uuid4().hex}"
    async with database.transaction(seconds=SECONDS) as tx:
        await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # What reads the whole store may take its time, also between two statements.
        await tx.execute(f"SET LOCAL statement_timeout = '{SECONDS:.0f}s'")
        await tx.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{SECONDS:.0f}s'")
        # Every cursor here is read to its end: a plan that is quick to begin would never get there.
        await tx.execute("SET LOCAL cursor_tuple_fraction = 1")
        await tx.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        await tx.execute(
            sql.SQL("SET LOCAL search_path = {}, public").format(sql.Identifier(schema))
        )
        for statement in filter(str.strip, _TABLES.split(";")):
            await tx.execute(statement)
        yield tx, schema
        raise Rollback


# Base64 of 32 bytes, as records have it.
_BYTES = "decode(translate({}, '-_', '+/') || '=', 'base64')"

_ACTS = f"""
INSERT INTO act
SELECT record_id, action, said ->> 'result', notice_id, message_id, recorded_at, said ->> 'reason',
       said -> 'detail', said ->> 'policy', said ->> 'stream', (said ->> 'generation')::integer,
       (said ->> 'sequence')::bigint, {_BYTES.format("said ->> 'envelope'")},
       {_BYTES.format("said ->> 'commitment'")}
FROM (
    SELECT *, convert_from(record, 'UTF8')::jsonb AS said FROM record
    WHERE (action LIKE 'message.%%' OR action LIKE 'notice.%%' OR action LIKE 'case.%%'
           OR action IN ('receipts.verified', 'receipt.voided', 'refusal.received',
                         'answer.overdue', 'void.declared'))
      AND (%(until)s::timestamptz IS NULL OR recorded_at <= %(until)s)
      AND (%(notice_id)s::uuid IS NULL OR notice_id = %(notice_id)s
           OR action IN ('receipts.verified', 'answer.overdue', 'void.declared'))
) AS spoken
"""  # noqa: S608 - constants

# Messages of the peer that took effect: at once, or once those before them had come. When they
# were taken is what their newest arrival says; one that waits still took no effect. `since` is when
# clocks began: earlier, where the message was set aside first, or stands in for one that was.
# `policy` is the version in force when it took effect, NULL where its record names none.
_TAKEN = """
CREATE UNLOGGED TABLE taken AS
SELECT DISTINCT ON (a.message_id) a.message_id, a.notice_id, a.at, a.record_id,
       split_part(a.stream, '.', 3) AS lane,
       coalesce((SELECT min((s.detail ->> 'since')::timestamptz) FROM act AS s
                 WHERE s.message_id = a.message_id
                   AND s.action IN ('message.received', 'message.applied')), a.at) AS since,
       coalesce((SELECT max(s.policy) FROM act AS s
                 WHERE s.message_id = a.message_id AND s.action = 'message.applied'), a.policy)
           AS policy
FROM act AS a
WHERE a.action = 'message.received'
  AND (a.result = 'taken'
       OR EXISTS (SELECT FROM act AS later
                  WHERE later.message_id = a.message_id AND later.action = 'message.applied'))
ORDER BY a.message_id, a.record_id DESC
"""


async def take_acts(tx: Transaction, *, until: datetime | None, notice_id: UUID | None) -> None:
    """Read what records say, up to a moment, of one notice if one is named.

    Raises `NotFoundError` NB-3070 where some of them are in an archive.
    """
    await away.require(tx, notices=None if notice_id is None else [notice_id], until=until)
    await tx.execute(_ACTS, {"until": until, "notice_id": notice_id})
    await tx.execute("CREATE INDEX ON act (message_id)")
    await tx.execute("ANALYZE act")
    await tx.execute(_TAKEN)
    await tx.execute("CREATE INDEX ON taken (message_id)")
    await tx.execute("ANALYZE taken")


_CONTENTS = """
SELECT c.message_id, c.bound, p.salt, p.body, p.erased_at IS NOT NULL AS erased,
       CASE WHEN p.body IS NULL THEN coalesce(e.envelope, x.envelope) END AS envelope
FROM (
    SELECT message_id, min(bound) AS bound
    FROM (
        SELECT coalesce((detail ->> 'content')::uuid, message_id) AS message_id, bound FROM act
        WHERE bound IS NOT NULL AND action <> 'message.refused'
    ) AS committed
    GROUP BY message_id
) AS c
LEFT JOIN payload AS p USING (message_id)
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN erased_envelope AS x USING (message_id)
"""


async def contents(tx: Transaction) -> AsyncIterator[list[Content]]:
    """Yield every content that a record commits to, in batches."""
    async with tx.cursor(name="contents", row_factory=class_row(Content)) as cursor:
        await cursor.execute(_CONTENTS, binary=True)
        while batch := await cursor.fetchmany(_BATCH):
            yield batch


async def contents_taken(tx: Transaction) -> None:
    """Let what contents say be found, once all of it is there."""
    await run(tx, "CREATE INDEX ON said (message_id); ANALYZE said")


async def keep_said(tx: Transaction, rows: Sequence[SaidRow]) -> None:
    """Keep what contents say."""
    await copy(tx, "said", rows)


_OPENINGS = """
SELECT a.record_id, r.record, o.opened
FROM act AS a
JOIN record AS r USING (record_id)
LEFT JOIN opening AS o USING (record_id)
WHERE a.action = ANY(%s) AND a.result = 'ok'
"""


async def openings(
    tx: Transaction, actions: Sequence[str]
) -> AsyncIterator[list[tuple[int, bytes, dict[str, Any] | None]]]:
    """Yield record id, record and opening of these acts, in batches."""
    async with tx.cursor(name="openings") as cursor:
        await cursor.execute(_OPENINGS, [list(actions)])
        while batch := await cursor.fetchmany(_BATCH):
            yield [(row[0], row[1], row[2]) for row in batch]


async def keep_told(tx: Transaction, rows: Sequence[ToldRow]) -> None:
    """Keep what commitments stand for."""
    await copy(tx, "told", rows)


# Of one notice, only the messages that answered it: each is still read from its exact bytes.
_RECEIPTS = """
SELECT a.record_id, a.message_id, a.envelope, e.envelope
FROM act AS a
LEFT JOIN envelope AS e USING (message_id)
WHERE a.action = 'receipts.verified'
  AND (%(notice_id)s::uuid IS NULL
       OR a.message_id IN (SELECT answer_message FROM public.sent
                           WHERE notice_id = %(notice_id)s))
"""


async def receipts(
    tx: Transaction, *, notice_id: UUID | None
) -> AsyncIterator[tuple[int, UUID, bytes, bytes | None]]:
    """Yield record id, message id, recorded hash and exact bytes of verified receipts messages."""
    async with tx.cursor(name="receipts") as cursor:
        # A few at a time: each is up to 256 KiB.
        cursor.itersize = 16
        await cursor.execute(_RECEIPTS, {"notice_id": notice_id})
        async for row in cursor:
            yield row[0], row[1], row[2], row[3]


async def keep_receipts(tx: Transaction, rows: Sequence[ReceiptRow]) -> None:
    """Keep which messages were answered."""
    await copy(tx, "receipt", rows)


async def copy(tx: Transaction, table: str, rows: Sequence[Any]) -> None:
    """Write rows of one class into the scratch table that has its columns."""
    if not rows:
        return
    names = tuple(rows[0].__dataclass_fields__)
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    async with tx.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            await copy.write_row([getattr(row, name) for name in names])


# Numbered messages and what came of them. A receipt is believed of exactly the bytes that were
# sent; the first one after the last refusal stands, unless it is of a message that was held, and
# refused since; one that a restore at the peer made void stands no more. A range that was declared
# void ends the wait of those without another answer.
_SENT = """
CREATE UNLOGGED TABLE sent AS SELECT * FROM public.sent WITH NO DATA;

ANALYZE receipt;

CREATE UNLOGGED TABLE refused AS
SELECT DISTINCT ON (message_id) * FROM act WHERE action = 'refusal.received'
ORDER BY message_id, record_id DESC;

CREATE UNLOGGED TABLE unreceipted AS
SELECT message_id, max(record_id) AS record_id FROM act WHERE action = 'receipt.voided'
GROUP BY message_id;

CREATE UNLOGGED TABLE void AS SELECT * FROM act WHERE action = 'void.declared';

INSERT INTO sent (stream, generation, sequence, message_id, kind, notice_id, revision,
                  envelope_hash, sequenced_at, overdue_at, answer, answer_code, answer_message,
                  answer_index, answered_at)
SELECT a.stream, a.generation, a.sequence, a.message_id, coalesce(s.kind, l.kind), a.notice_id,
       coalesce(r.revision, s.revision, w.revision, (a.detail ->> 'revision')::integer),
       a.envelope,
       coalesce((a.detail ->> 'sent_at')::timestamptz, a.at), NULL,
       CASE WHEN y.message_id IS NOT NULL THEN 'receipt'
            WHEN n.message_id IS NOT NULL THEN 'refusal'
            WHEN v.message_id IS NOT NULL THEN 'void' END,
       CASE WHEN y.message_id IS NULL THEN coalesce(n.reason, v.reason) END,
       coalesce(y.answer_message, (n.detail ->> 'answer')::uuid, v.message_id), y.record_index,
       coalesce(y.at, n.at, v.at)
FROM act AS a
LEFT JOIN said AS s USING (message_id)
LEFT JOIN {revisions} AS r USING (message_id)
LEFT JOIN (SELECT message_id, (detail ->> 'revision')::integer AS revision FROM act
           WHERE action = 'message.renewed') AS w USING (message_id)
LEFT JOIN public.sent AS l ON l.message_id = a.message_id AND s.state <> 'whole'
LEFT JOIN (
    SELECT DISTINCT ON (p.message_id, p.envelope_hash) p.*, act.at
    FROM receipt AS p JOIN act USING (record_id)
    LEFT JOIN refused AS f ON f.message_id = p.message_id
    LEFT JOIN unreceipted AS u ON u.message_id = p.message_id
    WHERE (u.record_id IS NULL OR p.record_id > u.record_id)
      AND (f.message_id IS NULL
           OR p.record_id > f.record_id
              AND (p.held_at IS NULL OR p.held_at > (f.detail ->> 'refused_at')::timestamptz))
    ORDER BY p.message_id, p.envelope_hash, p.record_id
) AS y ON y.message_id = a.message_id AND y.envelope_hash = a.envelope
LEFT JOIN refused AS n ON n.message_id = a.message_id
LEFT JOIN LATERAL (
    SELECT d.message_id, d.reason, d.at FROM void AS d
    WHERE d.stream = a.stream AND d.generation = a.generation
      AND a.sequence BETWEEN (d.detail ->> 'first')::bigint AND (d.detail ->> 'last')::bigint
    ORDER BY d.record_id LIMIT 1
) AS v ON true
WHERE a.action IN ('message.sent', 'message.recovered')
  AND split_part(a.stream, '.', 3) <> 'control';

CREATE INDEX ON sent (stream, generation, sequence);
ANALYZE sent;

UPDATE sent AS s SET overdue_at = late.at
FROM (
    SELECT DISTINCT ON (x.stream, x.generation, x.sequence) x.stream, x.generation, x.sequence, a.at
    FROM act AS a
    CROSS JOIN LATERAL string_to_table(a.detail ->> 'ranges', ' ') AS part
    JOIN sent AS x ON x.stream = a.stream AND x.generation = a.generation
        AND x.sequence BETWEEN split_part(part, '-', 1)::bigint
                           AND split_part(part, '-', -1)::bigint
    WHERE a.action = 'answer.overdue'
    ORDER BY x.stream, x.generation, x.sequence, a.record_id
) AS late
WHERE (s.stream, s.generation, s.sequence) = (late.stream, late.generation, late.sequence)
"""


async def rebuild_sent(tx: Transaction, *, revisions: str) -> None:
    """Make numbered messages and their answers again."""
    await run(tx, _SENT.replace("{revisions}", revisions))


async def run(tx: Transaction, statements: str) -> None:
    """Run statements that take no values, one after the other."""
    for statement in filter(str.strip, statements.split(";")):
        await tx.execute(statement)


# Views over tables that were made again read those: the definition is the live one's, by name.
_VIEWS = """
SELECT c.relname, pg_get_viewdef(c.oid)
FROM pg_class AS c
WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
ORDER BY c.oid
"""


async def look_at(tx: Transaction, schema: str) -> None:
    """Make the live schema's views over what was made again, and gather the planner's figures."""
    # Read while the live tables are the ones that bare names mean, so that they are written bare.
    await tx.execute("SET LOCAL search_path = public")
    views = await (await tx.execute(_VIEWS)).fetchall()
    await tx.execute(sql.SQL("SET LOCAL search_path = {}, public").format(sql.Identifier(schema)))
    for name, definition in views:
        await tx.execute(
            sql.SQL("CREATE VIEW {} AS {}").format(sql.Identifier(name), sql.SQL(definition))
        )
    tables = await tx.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = %s::regnamespace",
        [schema],
    )
    for (name,) in await tables.fetchall():
        await tx.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A content or name that is not what its record commits to: not there, or another."""

    table: str
    column: str
    notice_id: UUID | None
    row: str
    state: str


_UNFIT = """
SELECT 'payload' AS table, 'body' AS column,
       (SELECT notice_id FROM act
        WHERE coalesce((detail ->> 'content')::uuid, message_id) = s.message_id
          AND notice_id IS NOT NULL LIMIT 1) AS notice_id,
       message_id::text AS row, state
FROM said AS s WHERE state NOT IN ('whole', 'erased')
UNION ALL
SELECT 'opening', 'opened', a.notice_id, t.record_id::text, t.state
FROM told AS t JOIN act AS a USING (record_id) WHERE t.state = 'altered'
"""


async def unfit(tx: Transaction) -> AsyncIterator[Unfit]:
    """Yield contents and names that are not what their records commit to."""
    async with tx.cursor(name="unfit", row_factory=class_row(Unfit)) as cursor:
        await cursor.execute(_UNFIT)
        async for row in cursor:
            yield row


async def tombstones(tx: Transaction) -> int:
    """Return how many contents and names were erased."""
    cursor = await tx.execute(
        "SELECT (SELECT count(*) FROM said WHERE state = 'erased')"
        " + (SELECT count(*) FROM told WHERE state = 'erased')"
    )
    (row,) = await cursor.fetchall()
    return int(row[0])
