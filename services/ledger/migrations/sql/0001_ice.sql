-- What the ICE side alone keeps: obligations, their aliases, the notices made from them, and what
-- HHS said of them.

-- A missed hearing that owes a notice. One for each child, base city and local hearing date, for
-- life; `notice_id` names it on both sides. Where it stands between sending and closing is read
-- from `sent` and `reply` by the view `notice`, never stored twice.
CREATE TABLE obligation (
    notice_id    uuid PRIMARY KEY,
    a_number     text NOT NULL,
    base_city    text NOT NULL,
    hearing_on   date NOT NULL,
    hearing_at   timestamptz NOT NULL,
    hearing_zone text NOT NULL,
    outcome      text NOT NULL,
    office       text NOT NULL,
    lane         text NOT NULL CHECK (lane IN ('live', 'backlog')),
    state        text NOT NULL CHECK (state IN ('to_confirm', 'dismissed', 'recorded', 'withdrawn')),
    -- What a person is asked, and why; `kept_codes` are the reasons that people decided against
    -- before, so that none of them asks again.
    confirm      text CHECK (confirm IN ('send', 'withdrawal')),
    confirm_code text,
    kept_codes   text[] NOT NULL DEFAULT '{}',
    revision     integer NOT NULL DEFAULT 0,
    detected_at  timestamptz NOT NULL,
    origin       text NOT NULL CHECK (origin IN ('docket', 'hand')),
    release      text,
    -- The court's keys as they first became known; further ones are in `alias`.
    eoir_case_key       bigint,
    eoir_proceeding_key bigint,
    eoir_schedule_key   bigint,
    -- What a notice would say, until one is sent (personal data); from then on the newest
    -- revision's payload says it.
    content      bytea,
    UNIQUE (a_number, base_city, hearing_on),
    CHECK ((state = 'to_confirm') = (confirm IS NOT NULL))
);
CREATE INDEX obligation_waiting ON obligation (notice_id) WHERE state = 'to_confirm';

-- Other keys under which the court knows the same hearing: a second case, a new proceeding.
CREATE TABLE alias (
    notice_id uuid NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('case', 'proceeding', 'schedule')),
    key       bigint NOT NULL,
    PRIMARY KEY (notice_id, kind, key)
);

-- Each revision that was made into a message.
CREATE TABLE notice_revision (
    notice_id   uuid NOT NULL,
    revision    integer NOT NULL,
    message_id  uuid NOT NULL,
    notice_kind text NOT NULL,
    reason_code text,
    made_at     timestamptz NOT NULL,
    PRIMARY KEY (notice_id, revision)
);

-- What a person at HHS did, as far as it comes back: acknowledgement and coarse outcome.
CREATE TABLE reply (
    notice_id   uuid NOT NULL,
    revision    integer NOT NULL,
    kind        text NOT NULL,
    code        text,
    message_id  uuid NOT NULL UNIQUE,
    happened_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (notice_id, revision)
);

-- Docket releases that were read, and how far.
CREATE TABLE docket_import (
    release     text PRIMARY KEY,
    digest      text NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    summary     jsonb
);

-- A notice as people see it: one row for each obligation, its newest message and what came of it.
CREATE VIEW notice AS
SELECT o.notice_id, o.revision, o.a_number, o.base_city, o.hearing_on, o.hearing_at, o.hearing_zone,
       o.outcome, o.office, o.lane, o.detected_at, o.origin, o.release, o.confirm, o.confirm_code,
       o.eoir_case_key, o.eoir_proceeding_key, o.eoir_schedule_key,
       coalesce(r.notice_kind, 'NEW') AS notice_kind, r.reason_code, r.message_id,
       r.made_at AS recorded_at,
       s.stream, s.generation, s.sequence, s.sequenced_at AS sent_at, s.overdue_at,
       s.answer, s.answer_code,
       CASE WHEN s.answer = 'receipt' THEN s.answered_at END AS receipt_at,
       taken.happened_at AS acknowledged_at,
       closed.happened_at AS closed_at, closed.code AS outcome_code,
       CASE
           WHEN o.state IN ('to_confirm', 'dismissed', 'withdrawn') THEN o.state
           WHEN closed.happened_at IS NOT NULL THEN 'closed'
           WHEN s.answer IN ('refusal', 'void') THEN 'dead'
           WHEN taken.happened_at IS NOT NULL THEN 'acknowledged'
           WHEN s.answer = 'receipt' THEN 'receipted'
           WHEN s.sequence IS NOT NULL THEN 'sent'
           ELSE 'recorded'
       END AS state
FROM obligation AS o
LEFT JOIN notice_revision AS r ON r.notice_id = o.notice_id AND r.revision = o.revision
LEFT JOIN sent AS s ON s.message_id = r.message_id
LEFT JOIN LATERAL (
    SELECT happened_at FROM reply
    WHERE reply.notice_id = o.notice_id AND reply.kind = 'acknowledgement'
    ORDER BY reply.revision LIMIT 1
) AS taken ON true
LEFT JOIN LATERAL (
    SELECT happened_at, code FROM reply
    WHERE reply.notice_id = o.notice_id AND reply.kind = 'outcome'
    ORDER BY reply.revision DESC LIMIT 1
) AS closed ON true;
