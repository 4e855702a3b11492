"""Statements that make obligations again, from acts and contents in the scratch schema."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from services.exchange.rebuilding.store import SaidRow, copy, run
from services.ledger.store import Transaction

_BATCH = 2_000
# Every message of ours says its revision itself.
NONE_KNOWN = "(SELECT NULL::uuid AS message_id, NULL::integer AS revision)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A whole content that no message carries; `asks` when it waits for a person, else keys."""

    record_id: int
    notice_id: UUID
    content_id: UUID
    body: bytes
    asks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedRow:
    """A key of the court as it attached; `first` when none of its kind was known."""

    notice_id: UUID
    record_id: int
    kind: str
    key: int
    first: bool


# Revisions that were made: every act of ours that names one. A reply names the peer's.
_BEGIN = """
CREATE UNLOGGED TABLE made AS
SELECT a.notice_id, (a.detail ->> 'revision')::integer AS revision, a.message_id, a.record_id,
       a.action, coalesce((a.detail ->> 'made_at')::timestamptz, a.at) AS at,
       a.detail ->> 'lane' AS lane,
       a.action = 'notice.withdrawn' OR coalesce(a.detail ->> 'kind' = 'WITHDRAWAL', false)
           AS withdraws
FROM act AS a
WHERE a.action LIKE 'notice.%' AND a.result = 'ok' AND a.message_id IS NOT NULL
  AND a.detail ? 'revision'
  AND a.action NOT IN ('notice.acknowledged', 'notice.disposition', 'notice.action',
                       'notice.closed');
CREATE INDEX ON made (notice_id, revision);
ANALYZE made;

CREATE UNLOGGED TABLE attached (
    notice_id uuid, record_id bigint, kind text, key bigint, first boolean
);
CREATE UNLOGGED TABLE waiting (LIKE said)
"""


async def begin(tx: Transaction) -> None:
    """Gather which revisions were made."""
    await run(tx, _BEGIN)


_KEPT = """
SELECT a.record_id, a.notice_id, s.message_id AS content_id, p.body,
       a.action <> 'notice.keys_attached' AS asks
FROM act AS a
JOIN said AS s ON s.message_id = (a.detail ->> 'content')::uuid AND s.state = 'whole'
JOIN payload AS p ON p.message_id = s.message_id
WHERE a.action IN ('notice.to_confirm', 'notice.keys_attached')
"""


async def kept(tx: Transaction) -> AsyncIterator[list[Kept]]:
    """Yield contents that no message carries, in batches."""
    async with tx.cursor(name="kept", row_factory=class_row(Kept)) as cursor:
        await cursor.execute(_KEPT)
        while batch := await cursor.fetchmany(_BATCH):
            yield batch


async def keep_waiting(tx: Transaction, rows: Sequence[SaidRow]) -> None:
    """Keep what contents say that wait for a person."""
    await copy(tx, "waiting", rows)


async def keep_attached(tx: Transaction, rows: Sequence[AttachedRow]) -> None:
    """Keep which keys attached."""
    await copy(tx, "attached", rows)


# In order. `question` is the fold of asking and answering: an answer ends the question before it,
# and what a person decided against is not asked again. A question that the docket ended, or that
# was answered with no, leaves what HHS was told. Where a content was erased, what it said is taken
# as it stands.
_OBLIGATIONS = """
DELETE FROM said WHERE message_id IN (SELECT message_id FROM waiting);
INSERT INTO said SELECT * FROM waiting;
ANALYZE said;

CREATE UNLOGGED TABLE notice_revision AS SELECT * FROM public.notice_revision WITH NO DATA;
INSERT INTO notice_revision (notice_id, revision, message_id, notice_kind, reason_code, made_at)
SELECT m.notice_id, m.revision, m.message_id, coalesce(s.notice_kind, l.notice_kind),
       coalesce(s.reason_code, l.reason_code), m.at
FROM made AS m
LEFT JOIN said AS s USING (message_id)
LEFT JOIN public.notice_revision AS l ON l.notice_id = m.notice_id AND l.revision = m.revision
    AND s.state <> 'whole';
CREATE INDEX ON notice_revision (notice_id, revision);

CREATE UNLOGGED TABLE question AS
WITH turn AS (
    SELECT a.record_id, a.notice_id, a.reason,
           CASE WHEN a.action = 'notice.recovered' AND a.detail ->> 'kind' = 'WITHDRAWAL'
                THEN 'notice.withdrawn' ELSE a.action END AS action,
           CASE WHEN a.action IN ('notice.to_confirm', 'notice.taken_back') THEN a.reason END
               AS asked,
           (a.detail ->> 'content')::uuid AS content_id
    FROM act AS a
    WHERE a.result = 'ok'
      AND (a.action IN ('notice.to_confirm', 'notice.taken_back', 'notice.confirmed',
                        'notice.withdrawn', 'notice.dismissed', 'notice.kept', 'notice.unasked')
           OR a.action IN ('notice.recorded', 'notice.recovered') AND a.detail ? 'revision')
), following AS (
    SELECT *, lag(asked) OVER (PARTITION BY notice_id ORDER BY record_id) AS pending FROM turn
)
SELECT f.notice_id,
       (array_agg(f.action ORDER BY f.record_id DESC))[1] AS last_action,
       (array_agg(f.asked ORDER BY f.record_id DESC))[1] AS asked,
       max(f.record_id) AS last_record,
       (array_agg(f.content_id ORDER BY f.record_id DESC)
           FILTER (WHERE f.content_id IS NOT NULL))[1] AS content_id,
       coalesce(array_agg(f.pending ORDER BY f.record_id) FILTER (
           WHERE f.pending IS NOT NULL
             AND (f.action IN ('notice.dismissed', 'notice.kept')
                  OR (f.action = 'notice.confirmed'
                      OR f.action = 'notice.recorded' AND f.reason = 'BY_HAND')
                     AND f.pending <> 'MISSED_AGAIN')), '{}') AS kept_codes
FROM following AS f
GROUP BY f.notice_id;

CREATE UNLOGGED TABLE alias AS SELECT * FROM public.alias WITH NO DATA;
INSERT INTO alias (notice_id, kind, key)
SELECT notice_id, kind, key FROM attached WHERE NOT first
UNION
SELECT l.notice_id, l.kind, l.key FROM public.alias AS l
WHERE l.notice_id IN (SELECT a.notice_id FROM act AS a
                      JOIN said AS s ON s.message_id = (a.detail ->> 'content')::uuid
                      WHERE a.action = 'notice.keys_attached' AND s.state <> 'whole');

CREATE UNLOGGED TABLE obligation AS SELECT * FROM public.obligation WITH NO DATA;
INSERT INTO obligation (notice_id, a_number, base_city, hearing_on, hearing_at, hearing_zone,
                        outcome, office, lane, state, confirm, confirm_code, kept_codes, revision,
                        detected_at, origin, release, eoir_case_key, eoir_proceeding_key,
                        eoir_schedule_key, content_id)
SELECT o.notice_id,
       CASE WHEN c.state <> 'whole' THEN l.a_number
            ELSE coalesce(c.a_number, b.a_number, l.a_number) END,
       CASE WHEN c.state <> 'whole' THEN l.base_city
            ELSE coalesce(c.base_city, b.base_city, l.base_city) END,
       CASE WHEN c.state <> 'whole' THEN l.hearing_on
            ELSE coalesce(c.hearing_on, b.hearing_on, l.hearing_on) END,
       CASE WHEN c.state <> 'whole' THEN l.hearing_at
            ELSE coalesce(c.hearing_at, f.hearing_at, CASE WHEN f IS NULL THEN b.hearing_at END,
                          l.hearing_at) END,
       CASE WHEN c.state <> 'whole' THEN l.hearing_zone
            ELSE coalesce(c.hearing_zone, f.hearing_zone,
                          CASE WHEN f IS NULL THEN b.hearing_zone END, l.hearing_zone) END,
       CASE WHEN c.state <> 'whole' THEN l.outcome
            ELSE coalesce(c.outcome, f.outcome, w.outcome, CASE WHEN f IS NULL THEN b.outcome END,
                          l.outcome) END,
       CASE WHEN c.state <> 'whole' THEN l.office
            ELSE coalesce(c.office, f.office, CASE WHEN f IS NULL THEN b.office END,
                          l.office) END,
       coalesce(m.lane, o.lane),
       CASE q.last_action WHEN 'notice.to_confirm' THEN 'to_confirm'
                          WHEN 'notice.taken_back' THEN 'to_confirm'
                          WHEN 'notice.dismissed' THEN 'dismissed'
                          WHEN 'notice.withdrawn' THEN 'withdrawn'
                          ELSE CASE WHEN n.withdraws THEN 'withdrawn' ELSE 'recorded' END END,
       CASE WHEN q.asked IS NULL THEN NULL
            WHEN q.last_action = 'notice.taken_back' AND m.record_id < q.last_record
                THEN 'withdrawal'
            ELSE 'send' END,
       q.asked, q.kept_codes, coalesce(n.revision, 0), o.at,
       CASE WHEN b.state <> 'whole' THEN l.origin
            WHEN b.source_release = 'hand' THEN 'hand' ELSE 'docket' END,
       CASE WHEN b.state <> 'whole' OR f.state <> 'whole' THEN l.release
            WHEN m.action = 'notice.recorded' AND f.source_release <> 'hand' THEN f.source_release
            WHEN b.source_release <> 'hand' THEN b.source_release END,
       coalesce(b.eoir_case_key, k.case_key, l.eoir_case_key),
       coalesce(b.eoir_proceeding_key, k.proceeding_key, l.eoir_proceeding_key),
       coalesce(b.eoir_schedule_key, k.schedule_key, l.eoir_schedule_key),
       CASE WHEN m.record_id IS NULL THEN q.content_id END
FROM (
    SELECT DISTINCT ON (notice_id) notice_id, record_id, detail ->> 'lane' AS lane,
           coalesce((detail ->> 'detected_at')::timestamptz, at) AS at,
           coalesce((detail ->> 'content')::uuid, message_id) AS content_id
    FROM act
    WHERE result = 'ok' AND (action = 'notice.to_confirm' AND detail ? 'content'
                             OR action IN ('notice.recorded', 'notice.recovered')
                                AND detail ? 'revision')
    -- What came back after a restore was made of the newest revision that came back.
    ORDER BY notice_id, (action = 'notice.recovered'),
             CASE action WHEN 'notice.recovered' THEN -(detail ->> 'revision')::integer
                         ELSE record_id END
) AS o
JOIN question AS q ON q.notice_id = o.notice_id
LEFT JOIN made AS m ON m.notice_id = o.notice_id AND m.revision = 1
LEFT JOIN said AS b ON b.message_id = o.content_id
LEFT JOIN said AS f ON f.message_id = m.message_id
LEFT JOIN LATERAL (
    -- What a person corrected last, or sent by hand once more, is what the obligation stands for.
    SELECT s.* FROM made AS r JOIN said AS s ON s.message_id = r.message_id
    WHERE r.notice_id = o.notice_id
      AND (r.action = 'notice.corrected' OR r.action = 'notice.recorded' AND r.revision > 1
           OR r.action = 'notice.recovered' AND s.notice_kind = 'CORRECTION')
    ORDER BY r.revision DESC LIMIT 1
) AS c ON true
LEFT JOIN said AS w ON w.message_id = q.content_id AND m.record_id IS NULL
LEFT JOIN (
    SELECT notice_id, max(revision) AS revision,
           (array_agg(withdraws ORDER BY revision DESC))[1] AS withdraws
    FROM made GROUP BY notice_id
) AS n ON n.notice_id = o.notice_id
LEFT JOIN (
    SELECT notice_id, (array_agg(key ORDER BY record_id) FILTER (WHERE kind = 'case'))[1]
               AS case_key,
           (array_agg(key ORDER BY record_id) FILTER (WHERE kind = 'proceeding'))[1]
               AS proceeding_key,
           (array_agg(key ORDER BY record_id) FILTER (WHERE kind = 'schedule'))[1]
               AS schedule_key
    FROM attached WHERE first GROUP BY notice_id
) AS k ON k.notice_id = o.notice_id
LEFT JOIN (
    SELECT DISTINCT a.notice_id FROM act AS a
    JOIN said AS s ON s.message_id = coalesce((a.detail ->> 'content')::uuid, a.message_id)
    WHERE a.action LIKE 'notice.%' AND s.state <> 'whole'
) AS gone ON gone.notice_id = o.notice_id
LEFT JOIN public.obligation AS l ON l.notice_id = gone.notice_id;
CREATE INDEX ON obligation (notice_id);

CREATE UNLOGGED TABLE reply AS SELECT * FROM public.reply WITH NO DATA;
INSERT INTO reply (notice_id, revision, kind, code, message_id, happened_at, received_at)
SELECT a.notice_id, (a.detail ->> 'revision')::integer,
       CASE a.action WHEN 'notice.acknowledged' THEN 'acknowledgement'
                     WHEN 'notice.disposition' THEN 'disposition'
                     WHEN 'notice.action' THEN 'action' ELSE 'outcome' END,
       a.reason, a.message_id, coalesce(s.happened_at, l.happened_at), a.at
FROM act AS a
JOIN taken AS t ON t.message_id = a.message_id
LEFT JOIN said AS s ON s.message_id = a.message_id
LEFT JOIN public.reply AS l ON l.message_id = a.message_id AND s.state <> 'whole'
WHERE a.action IN ('notice.acknowledged', 'notice.disposition', 'notice.action', 'notice.closed')
  AND a.result = 'ok';
CREATE INDEX ON reply (notice_id)
"""


async def rebuild_obligations(tx: Transaction) -> None:
    """Make obligations, their revisions and aliases, and the replies to them again."""
    await run(tx, _OBLIGATIONS)


async def finish(tx: Transaction) -> None:
    """Let the view `notice` find its rows."""
    await run(tx, "CREATE INDEX ON sent (message_id); CREATE INDEX ON sent (notice_id)")
