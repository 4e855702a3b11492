-- The audited store, on both sides alike: audit log, then exchange. Each agency has a database of
-- its own; `0001_ice.sql` and `0001_hhs.sql` add what one side alone needs.

-- Records as they were committed, in no particular order. Bytes are RFC 8785 JSON, hashed as stored.
-- The columns beside them are for searching; `ledger verify` compares them with the bytes.
CREATE TABLE record (
    record_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action      text NOT NULL,
    notice_id   uuid,
    message_id  uuid,
    recorded_at timestamptz NOT NULL,
    record      bytea NOT NULL CHECK (octet_length(record) <= 8192)
);
CREATE INDEX record_notice ON record (notice_id) WHERE notice_id IS NOT NULL;

-- What the salted commitments in a record stand for (actor, office, free text); erasable.
CREATE TABLE opening (
    record_id bigint PRIMARY KEY,
    opened    jsonb NOT NULL
);

-- Committed records that no checkpoint covers yet; `owes` names the agency that waits for a receipt.
CREATE TABLE unsealed (
    record_id bigint PRIMARY KEY,
    owes      text
);

-- The audit log proper: the sealer's numbering, gapless from 0.
CREATE TABLE log_entry (
    record_index bigint PRIMARY KEY CHECK (record_index >= 0),
    record_id    bigint NOT NULL UNIQUE
);

-- Full tiles only, 256 hashes wide (C2SP tlog-tiles); level 0 holds leaf hashes.
CREATE TABLE tile (
    level  smallint NOT NULL,
    n      bigint NOT NULL,
    hashes bytea NOT NULL CHECK (octet_length(hashes) = 8192),
    PRIMARY KEY (level, n)
);

CREATE TABLE checkpoint (
    size      bigint PRIMARY KEY,
    root      bytea NOT NULL CHECK (octet_length(root) = 32),
    note      text NOT NULL,
    sealed_at timestamptz NOT NULL
);

-- One row: where the tree stands. The sealer holds it FOR UPDATE while it seals.
CREATE TABLE log_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    origin    text NOT NULL,
    size      bigint NOT NULL,
    frontier  bytea[] NOT NULL,
    root      bytea NOT NULL
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tile
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Party files: our own and those trusted by fingerprint. The newest `current` one of an agency
-- decides its partitions; keys of `former` ones still open what was signed under them.
CREATE TABLE party (
    agency      text NOT NULL,
    fingerprint text NOT NULL,
    party       bytea NOT NULL,
    status      text NOT NULL CHECK (status IN ('current', 'former')),
    trusted_at  timestamptz NOT NULL,
    PRIMARY KEY (agency, fingerprint)
);

-- Messages accepted and not yet numbered. `body` holds the data of control messages alone; what is
-- encrypted on the wire has its plain bytes in `payload`.
CREATE TABLE outbox (
    position       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream         text NOT NULL,
    message_id     uuid NOT NULL UNIQUE,
    kind           text NOT NULL,
    notice_id      uuid,
    revision       integer,
    correlation_id uuid,
    causation_id   uuid,
    commitment     bytea,
    made_at        timestamptz NOT NULL,
    body           bytea
);
CREATE INDEX outbox_stream ON outbox (stream, position);

-- The plain content of messages, sent and received, with the salt of its commitment; erasable.
CREATE TABLE payload (
    message_id uuid PRIMARY KEY,
    salt       bytea,
    body       bytea,
    erased_at  timestamptz
);

-- The exact bytes of messages, sent and received.
CREATE TABLE envelope (
    message_id uuid PRIMARY KEY,
    envelope   bytea NOT NULL
);
ALTER TABLE envelope ALTER COLUMN envelope SET STORAGE EXTERNAL;

-- One row a stream we write: the next sequence, and how far entries were handed to the bus.
CREATE TABLE stream_out (
    stream        text PRIMARY KEY,
    lane          text NOT NULL,
    partition     integer NOT NULL,
    generation    integer NOT NULL,
    next_sequence bigint NOT NULL DEFAULT 1,
    published     bigint NOT NULL DEFAULT 0
);

-- Numbered messages and what came of them. `answer` is NULL while one is owed, 'none' in control.
CREATE TABLE sent (
    stream         text NOT NULL,
    generation     integer NOT NULL,
    sequence       bigint NOT NULL,
    message_id     uuid NOT NULL UNIQUE,
    kind           text NOT NULL,
    notice_id      uuid,
    revision       integer,
    envelope_hash  bytea NOT NULL,
    sequenced_at   timestamptz NOT NULL,
    overdue_at     timestamptz,
    answer         text CHECK (answer IN ('none', 'receipt', 'refusal', 'void')),
    answer_code    text,
    answer_message uuid,
    answer_index   bigint,
    answered_at    timestamptz,
    PRIMARY KEY (stream, generation, sequence)
);
CREATE INDEX sent_unanswered ON sent (stream, generation, sequence) WHERE answer IS NULL;
CREATE INDEX sent_notice ON sent (notice_id) WHERE notice_id IS NOT NULL;

-- Runs of entries handed to the bus, each with its first and last entry id: for trimming, and for
-- telling whether an entry is gone. Rows go when all their messages are answered.
CREATE TABLE publication (
    publication_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream         text NOT NULL,
    generation     integer NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    first_entry    text NOT NULL,
    last_entry     text NOT NULL,
    published_at   timestamptz NOT NULL,
    acknowledged_seen_at timestamptz
);
CREATE INDEX publication_stream ON publication (stream, generation, first_sequence);

-- Stored bytes that the relay is asked to send once more.
CREATE TABLE republish (
    stream       text NOT NULL,
    generation   integer NOT NULL,
    sequence     bigint NOT NULL,
    cause        text NOT NULL,
    requested_at timestamptz NOT NULL,
    PRIMARY KEY (stream, generation, sequence)
);

-- One row a stream we read: the highest sequence that arrived. What is missing below it is in `gap`.
CREATE TABLE stream_in (
    stream     text NOT NULL,
    generation integer NOT NULL,
    highest    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, generation)
);
CREATE TABLE gap (
    stream         text NOT NULL,
    generation     integer NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    detected_at    timestamptz NOT NULL,
    asked_at       timestamptz,
    asked          integer NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, generation, first_sequence)
);

-- Which control message carried the receipts of a sealed batch: records first_index to size - 1.
CREATE TABLE answer_batch (
    first_index bigint PRIMARY KEY,
    size        bigint NOT NULL,
    message_id  uuid NOT NULL
);

-- Messages taken. `answered_by` is the control message that carried a refusal; a receipt's is found
-- by the record's index in `answer_batch`, so that no row is written twice.
CREATE TABLE inbox (
    message_id    uuid PRIMARY KEY,
    stream        text NOT NULL,
    generation    integer NOT NULL,
    sequence      bigint NOT NULL,
    kind          text NOT NULL,
    notice_id     uuid,
    revision      integer,
    envelope_hash bytea NOT NULL,
    state         text NOT NULL CHECK (state IN ('applied', 'held', 'refused', 'control')),
    received_at   timestamptz NOT NULL,
    record_id     bigint,
    answered_by   uuid,
    UNIQUE (stream, generation, sequence)
);
CREATE INDEX inbox_held ON inbox (notice_id) WHERE state = 'held';
CREATE INDEX inbox_notice ON inbox (notice_id, revision) WHERE notice_id IS NOT NULL;

-- How far the incoming revisions of a notice were applied.
CREATE TABLE applied (
    notice_id uuid PRIMARY KEY,
    revision  integer NOT NULL
);

-- Checkpoints of the peer that a receipt rested on.
CREATE TABLE peer_checkpoint (
    origin  text NOT NULL,
    size    bigint NOT NULL,
    root    bytea NOT NULL,
    note    text NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (origin, size)
);

-- Entries set aside: exact bytes, cause, attempts. `message_id` and `sequence` are claims that
-- nobody vouches for when `authentic` is false.
CREATE TABLE dead_letter (
    dead_id       uuid PRIMARY KEY,
    stream        text NOT NULL,
    entry_id      text NOT NULL,
    bytes_hash    bytea NOT NULL UNIQUE,
    bytes         bytea NOT NULL,
    cause         text NOT NULL,
    field         text,
    schema_version text,
    authentic     boolean NOT NULL,
    message_id    uuid,
    notice_id     uuid,
    generation    integer,
    sequence      bigint,
    first_at      timestamptz NOT NULL,
    last_at       timestamptz NOT NULL,
    arrivals      integer NOT NULL DEFAULT 1,
    state         text NOT NULL CHECK (state IN ('open', 'redriven', 'discarded', 'refused')),
    state_at      timestamptz NOT NULL
);
CREATE INDEX dead_letter_state ON dead_letter (state, cause);
CREATE INDEX dead_letter_sequence ON dead_letter (stream, generation, sequence);

-- Each attempt that failed when tried alone, with its error code; never its values. Copies of the
-- same bytes are one message, so they share their attempts.
CREATE TABLE attempt (
    bytes_hash bytea NOT NULL,
    number     integer NOT NULL,
    stream     text NOT NULL,
    generation integer,
    sequence   bigint,
    cause      text NOT NULL,
    failed_at  timestamptz NOT NULL,
    PRIMARY KEY (bytes_hash, number)
);
CREATE INDEX attempt_sequence ON attempt (stream, generation, sequence);

-- Bytes that nobody vouched for: counted per cause and minute, put on record when the minute ends.
CREATE TABLE unauthenticated (
    stream      text NOT NULL,
    cause       text NOT NULL,
    minute      timestamptz NOT NULL,
    arrivals    bigint NOT NULL,
    recorded_at timestamptz,
    PRIMARY KEY (stream, cause, minute)
);

CREATE TABLE alarm (
    alarm_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code      text NOT NULL,
    subject   text NOT NULL,
    raised_at timestamptz NOT NULL,
    last_at   timestamptz NOT NULL,
    times     integer NOT NULL DEFAULT 1,
    cleared_at timestamptz
);
CREATE UNIQUE INDEX alarm_open ON alarm (code, subject) WHERE cleared_at IS NULL;

-- Replays that were planned: what was selected and how it stood then, so that a run does what the
-- plan showed or is refused. Counts, digests and ids alone; `cursor` is how far a run has come.
CREATE TABLE replay_plan (
    plan_id       uuid PRIMARY KEY,
    state         text NOT NULL CHECK (state IN ('planned', 'running', 'done')),
    target        text NOT NULL,
    since         timestamptz,
    until         timestamptz NOT NULL,
    notice_id     uuid,
    source_digest bytea NOT NULL,
    target_digest bytea NOT NULL,
    counts        jsonb NOT NULL,
    made_at       timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    made_by       text NOT NULL,
    cursor        jsonb,
    done          jsonb,
    begun_at      timestamptz,
    ran_at        timestamptz
);
