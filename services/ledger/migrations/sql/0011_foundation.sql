-- Anchors, forks and rollbacks.

-- One row: the newest checkpoint that is known to stand outside this database too. What rests on a
-- larger one does not leave yet. `anchored_at` is NULL for what a build signed that had no anchors.
CREATE TABLE anchored (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    origin      text NOT NULL,
    size        bigint NOT NULL,
    anchored_at timestamptz
);
INSERT INTO anchored (origin, size) SELECT origin, size FROM log_head;

-- The checkpoint that a waiting message rests on; it leaves once that one is anchored.
ALTER TABLE outbox ADD COLUMN checkpoint_size bigint;

-- A store may go back without our restoring it (a snapshot of its disk, an older copy). Its anchor
-- shows that; both notes are kept: the anchor's, and the newest that was found in the store.
ALTER TABLE restoration
    ALTER COLUMN backup_digest DROP NOT NULL,
    ADD COLUMN anchor text,
    ADD COLUMN found text;

-- What the peer signed and cannot both be true: both notes, until a person resolves it with a
-- reason, and after that too. From `size` records on nothing of that log is believed meanwhile.
CREATE TABLE conflict (
    conflict_id uuid PRIMARY KEY,
    code        text NOT NULL,
    origin      text NOT NULL,
    size        bigint NOT NULL,
    known_note  text NOT NULL,
    told_note   text NOT NULL,
    found_at    timestamptz NOT NULL,
    last_at     timestamptz NOT NULL,
    times       integer NOT NULL DEFAULT 1,
    resolved_at timestamptz
);
CREATE UNIQUE INDEX conflict_open ON conflict (origin, code) WHERE resolved_at IS NULL;
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON conflict
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();

-- The largest checkpoint that a head of the peer told, and the place of that head: a later head
-- that tells a smaller one is a log that went back.
CREATE TABLE peer_told (
    origin     text PRIMARY KEY,
    size       bigint NOT NULL,
    note       text NOT NULL,
    generation integer NOT NULL,
    sequence   bigint NOT NULL
);

-- The place of the message whose receipts rested on it; NULL for those of earlier builds.
ALTER TABLE peer_checkpoint
    ADD COLUMN generation integer,
    ADD COLUMN sequence bigint;

-- Logs of the peer that a restore ended, and where. What rested on more of it is void.
CREATE TABLE peer_ended (
    origin   text PRIMARY KEY,
    size     bigint NOT NULL,
    root     bytea NOT NULL,
    note     text NOT NULL,
    ended_at timestamptz NOT NULL
);

-- Receipts of ours that are void by restore: the peer lost the records that they proved.
CREATE TABLE voided_receipt (
    message_id     uuid NOT NULL,
    answer_message uuid NOT NULL,
    answer_index   bigint NOT NULL,
    origin         text NOT NULL,
    voided_at      timestamptz NOT NULL,
    PRIMARY KEY (message_id, answer_message)
);
