-- Backups that were restored, the ledgers that they ended, and what was lost with them.

-- A store that was made from a backup. Until a person adopts it the triggers `restored` refuse
-- changes; `generation` is the one it goes on with, once that is decided.
CREATE TABLE restoration (
    restored_at    timestamptz PRIMARY KEY,
    backup_made_at timestamptz NOT NULL,
    backup_digest  bytea NOT NULL,
    generation     integer,
    adopted_at     timestamptz
);

-- SQLSTATE of our own: the driver's border turns it into words.
CREATE FUNCTION refuse_until_adopted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'restored and not adopted' USING ERRCODE = '55NB1';
END $$;

-- Logs that end where a restore cut them off: evidence, never continued. Their records stay in
-- `record`; entries, tiles, checkpoints and answers keep their indexes under the log's origin.
CREATE TABLE former_log (
    origin     text PRIMARY KEY,
    generation integer NOT NULL,
    size       bigint NOT NULL,
    frontier   bytea[] NOT NULL,
    root       bytea NOT NULL,
    ended_at   timestamptz NOT NULL
);
CREATE TABLE former_entry (
    origin       text NOT NULL,
    record_index bigint NOT NULL,
    record_id    bigint NOT NULL UNIQUE,
    PRIMARY KEY (origin, record_index)
);
CREATE TABLE former_tile (
    origin text NOT NULL,
    level  smallint NOT NULL,
    n      bigint NOT NULL,
    hashes bytea NOT NULL CHECK (octet_length(hashes) = 8192),
    PRIMARY KEY (origin, level, n)
);
CREATE TABLE former_checkpoint (
    origin    text NOT NULL,
    size      bigint NOT NULL,
    root      bytea NOT NULL,
    note      text NOT NULL,
    sealed_at timestamptz NOT NULL,
    PRIMARY KEY (origin, size)
);
CREATE TABLE former_answer_batch (
    origin      text NOT NULL,
    first_index bigint NOT NULL,
    size        bigint NOT NULL,
    message_id  uuid NOT NULL,
    PRIMARY KEY (origin, first_index)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON former_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON former_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON former_tile
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON former_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a restore lost and nobody could bring back by itself: a person says what became of it.
CREATE TABLE lost (
    lost_id        uuid PRIMARY KEY,
    cause          text NOT NULL CHECK (cause IN ('content', 'work', 'nowhere', 'unknown')),
    stream         text,
    generation     integer,
    first_sequence bigint,
    last_sequence  bigint,
    message_id     uuid,
    kind           text,
    notice_id      uuid,
    revision       integer,
    said_at        timestamptz,
    found_at       timestamptz NOT NULL,
    resolved_at    timestamptz
);
CREATE INDEX lost_open ON lost (found_at, lost_id) WHERE resolved_at IS NULL;

-- Files that messages about closed notices were moved to, and which messages each holds. Their
-- records stay in the log; content and exact bytes are in the file alone.
CREATE TABLE archive (
    archive_id uuid PRIMARY KEY,
    digest     bytea NOT NULL,
    made_at    timestamptz NOT NULL,
    before     timestamptz NOT NULL,
    origin     text NOT NULL,
    size       bigint NOT NULL,
    messages   bigint NOT NULL
);
CREATE TABLE archived (
    message_id uuid PRIMARY KEY,
    archive_id uuid NOT NULL
);
CREATE INDEX archived_archive ON archived (archive_id);
