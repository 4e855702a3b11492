-- What the HHS side alone keeps: a case for each notice, who works it, and what was done.

-- One for each notice that arrived. Identity of the child stays in `payload`, read when it is needed.
CREATE TABLE case_file (
    notice_id    uuid PRIMARY KEY,
    state        text NOT NULL CHECK (state IN ('unowned', 'taken', 'closed', 'withdrawn')),
    office       text NOT NULL,
    outcome      text NOT NULL,
    base_city    text NOT NULL,
    hearing_at   timestamptz NOT NULL,
    hearing_zone text NOT NULL,
    priority     text NOT NULL CHECK (priority IN ('ROUTINE', 'URGENT')),
    lane         text NOT NULL,
    -- The newest revision that was applied, and its message: its payload says the most.
    revision     integer NOT NULL,
    notice_kind  text NOT NULL,
    message_id   uuid NOT NULL,
    opened_at    timestamptz NOT NULL,
    due_at       timestamptz NOT NULL,
    -- Who works it, as long as the lease runs; `taken_at` is when somebody first did.
    owner        text,
    lease_until  timestamptz,
    taken_at     timestamptz,
    closed_at    timestamptz,
    -- The code that a person chose; ICE hears the coarse one that it stands for.
    outcome_code text,
    reply_revision integer NOT NULL DEFAULT 0,
    CHECK ((state = 'taken') = (owner IS NOT NULL AND lease_until IS NOT NULL)
           OR state IN ('closed', 'withdrawn'))
);
CREATE INDEX case_file_queue ON case_file (due_at) WHERE state IN ('unowned', 'taken');

-- What people did with a case, in order; internal detail that never goes back to ICE.
CREATE TABLE case_event (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notice_id   uuid NOT NULL,
    event       text NOT NULL,
    code        text,
    actor       text,
    happened_at timestamptz NOT NULL,
    record_id   bigint
);
CREATE INDEX case_event_notice ON case_event (notice_id);
