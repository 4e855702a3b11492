"""Statements that make case files again, from acts, contents and names in the scratch schema."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.exchange.rebuilding.store import run
from services.ledger.store import Transaction

_BATCH = 5_000

# Acts that a case keeps; the last three are what a revision of the notice did.
ACTS = (
    "case.taken",
    "case.taken_over",
    "case.renewed",
    "case.released",
    "case.closed",
    "case.corrected",
    "case.updated",
    "case.withdrawn",
)
# Replies are numbered for each notice, in the order in which they were made.
REPLIES = "reply_made"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRow:
    """When a case that was opened then is due, before and after somebody took it."""

    policy: str
    lane: str
    priority: str
    opened_at: datetime
    take_due: datetime
    outcome_due: datetime


# An act of a revision that still waits for an earlier one did not happen yet.
_EVENTS = f"""
CREATE UNLOGGED TABLE case_event AS SELECT * FROM public.case_event WITH NO DATA;

INSERT INTO case_event (event_id, notice_id, event, code, actor, happened_at, record_id)
SELECT a.record_id, a.notice_id, split_part(a.action, '.', 2),
       CASE WHEN t.state = 'erased' AND t.text IS NULL THEN l.code
            WHEN a.action = 'case.closed' THEN t.text
            WHEN a.action IN ('case.corrected', 'case.updated', 'case.withdrawn') THEN a.reason END,
       CASE WHEN t.state = 'erased' AND t.actor IS NULL THEN l.actor ELSE t.actor END,
       a.at, a.record_id
FROM act AS a
JOIN told AS t USING (record_id)
LEFT JOIN public.case_event AS l ON l.record_id = a.record_id AND t.state = 'erased'
WHERE a.result = 'ok' AND a.action IN {ACTS}
  AND (a.action NOT IN ('case.corrected', 'case.updated', 'case.withdrawn')
       OR a.message_id IN (SELECT message_id FROM taken));

CREATE INDEX ON case_event (notice_id);
ANALYZE case_event;

CREATE UNLOGGED TABLE {REPLIES} AS
SELECT a.message_id, a.notice_id,
       row_number() OVER (PARTITION BY a.notice_id ORDER BY a.record_id)::integer AS revision
FROM act AS a
WHERE a.result = 'ok' AND a.message_id IS NOT NULL
  AND a.action IN ('case.taken', 'case.taken_over', 'case.renewed', 'case.closed')
"""  # noqa: S608 - constants


async def rebuild_events(tx: Transaction) -> None:
    """Make again what was done in cases, and which replies went."""
    await run(tx, _EVENTS)


# What decides a case, one row each: its first and newest revision, who took it first and who had it
# last, the last release with the priority that the case had then, how it ended.
_STEPS = """
CREATE UNLOGGED TABLE step AS
WITH revision AS MATERIALIZED (
    SELECT t.notice_id, t.since, t.lane, t.record_id, t.policy, s.*
    FROM taken AS t JOIN said AS s USING (message_id)
    WHERE s.kind = 'fta'
), began AS (
    -- The first revision that took effect: another may stand in for a notice that was refused.
    SELECT DISTINCT ON (notice_id) * FROM revision ORDER BY notice_id, revision
), handed AS (
    SELECT DISTINCT ON (e.notice_id) e.notice_id, e.event, e.actor, e.happened_at, e.record_id,
           a.policy, a.detail
    FROM case_event AS e JOIN act AS a USING (record_id)
    WHERE e.event IN ('taken', 'taken_over', 'renewed', 'released')
    ORDER BY e.notice_id, e.record_id DESC
), ended AS (
    -- A correction takes withdrawals before it back.
    SELECT notice_id,
           min(happened_at) FILTER (WHERE event IN ('taken', 'taken_over', 'renewed')) AS taken_at,
           min(happened_at) FILTER (WHERE event = 'closed') AS closed_at,
           max(code) FILTER (WHERE event = 'closed') AS outcome_code,
           min(happened_at) FILTER (WHERE event = 'withdrawn'
                                      AND record_id > coalesce(corrected, 0)) AS withdrawn_at
    FROM (
        SELECT *, max(record_id) FILTER (WHERE event = 'corrected')
                      OVER (PARTITION BY notice_id) AS corrected
        FROM case_event
    ) AS e GROUP BY notice_id
)
SELECT b.notice_id, b.since AS opened_at, b.lane, b.state AS first_state, h.event, h.actor,
       h.happened_at AS handed_at, h.detail, coalesce(h.policy, b.policy, '') AS policy,
       CASE WHEN h.event = 'released' THEN coalesce((
           SELECT r.priority FROM case_event AS c
           JOIN act AS a ON a.record_id = c.record_id
           JOIN said AS r ON r.message_id = a.message_id
           WHERE c.notice_id = b.notice_id AND c.record_id < h.record_id
             AND c.event IN ('corrected', 'updated', 'withdrawn')
           ORDER BY c.record_id DESC LIMIT 1), b.priority)
       ELSE b.priority END AS priority,
       e.taken_at, e.closed_at, e.outcome_code, e.withdrawn_at
FROM began AS b
LEFT JOIN handed AS h USING (notice_id)
LEFT JOIN ended AS e USING (notice_id)
"""


async def take_steps(tx: Transaction) -> None:
    """Gather what decides each case."""
    await run(tx, _STEPS)


_STARTS = """
SELECT DISTINCT policy, lane, coalesce(priority, 'ROUTINE'), opened_at FROM step
"""


async def starts(tx: Transaction) -> AsyncIterator[list[tuple[str, str, str, datetime]]]:
    """Yield policy version, lane, priority and beginning of cases, each combination once."""
    await tx.execute(
        "CREATE UNLOGGED TABLE clock (policy text, lane text, priority text,"
        " opened_at timestamptz, take_due timestamptz, outcome_due timestamptz)"
    )
    async with tx.cursor(name="starts") as cursor:
        await cursor.execute(_STARTS)
        while batch := await cursor.fetchmany(_BATCH):
            yield [(row[0], row[1], row[2], row[3]) for row in batch]


async def keep_clocks(tx: Transaction, rows: Sequence[ClockRow]) -> None:
    """Keep when cases are due."""
    await tx.execute(
        "INSERT INTO clock SELECT * FROM unnest(%b::text[], %b::text[], %b::text[],"
        " %b::timestamptz[], %b::timestamptz[], %b::timestamptz[])",
        [[getattr(row, name) for row in rows] for name in ClockRow.__dataclass_fields__],
    )


# A closed case keeps whose it was and gives up its lease; a withdrawn one keeps both. Where the
# content was erased, what it decided is taken as it stands.
_CASES = """
INSERT INTO case_file (notice_id, state, office, outcome, base_city, hearing_at, hearing_zone,
                       priority, lane, revision, notice_kind, message_id, opened_at, due_at, owner,
                       lease_until, taken_at, closed_at, outcome_code, reply_revision)
SELECT p.notice_id,
       CASE WHEN p.withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN p.closed_at IS NOT NULL THEN 'closed'
            WHEN p.event <> 'released' THEN 'taken'
            ELSE 'unowned' END,
       coalesce(n.office, l.office), coalesce(n.outcome, l.outcome),
       coalesce(n.base_city, l.base_city), coalesce(n.hearing_at, l.hearing_at),
       coalesce(n.hearing_zone, l.hearing_zone), coalesce(n.priority, l.priority), p.lane,
       n.revision, coalesce(n.notice_kind, l.notice_kind), n.message_id, p.opened_at,
       CASE WHEN p.event <> 'released' THEN c.outcome_due
            WHEN p.priority IS NULL THEN d.due_at
            ELSE c.take_due END,
       CASE WHEN p.event <> 'released' THEN p.actor END,
       CASE WHEN p.event <> 'released' AND p.closed_at IS NULL
            THEN coalesce((p.detail ->> 'lease_until')::timestamptz, p.handed_at + %(lease)s) END,
       p.taken_at, coalesce(p.closed_at, p.withdrawn_at), p.outcome_code,
       coalesce(r.revision, 0)
FROM step AS p
JOIN clock AS c ON c.policy = p.policy AND c.lane = p.lane AND c.opened_at = p.opened_at
    AND c.priority = coalesce(p.priority, 'ROUTINE')
JOIN (
    SELECT DISTINCT ON (t.notice_id) t.notice_id, s.*
    FROM taken AS t JOIN said AS s USING (message_id)
    WHERE s.kind = 'fta'
    ORDER BY t.notice_id, s.revision DESC
) AS n ON n.notice_id = p.notice_id
LEFT JOIN public.case_file AS l ON l.notice_id = p.notice_id AND n.state <> 'whole'
LEFT JOIN public.case_file AS d ON d.notice_id = p.notice_id AND p.first_state <> 'whole'
LEFT JOIN (SELECT notice_id, max(revision) AS revision FROM reply_made GROUP BY notice_id) AS r
    ON r.notice_id = p.notice_id
"""


async def rebuild_cases(tx: Transaction, *, lease: timedelta) -> None:
    """Make case files again; `lease` is for takes whose record does not say for how long."""
    await run(
        tx,
        "ANALYZE step; ANALYZE clock;"
        "CREATE UNLOGGED TABLE case_file AS SELECT * FROM public.case_file WITH NO DATA",
    )
    await tx.execute(_CASES, {"lease": lease})
    await run(tx, "CREATE INDEX ON case_file (due_at); CREATE INDEX ON case_file (notice_id)")
