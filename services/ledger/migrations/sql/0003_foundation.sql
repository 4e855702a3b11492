-- Dead letters in bulk: redrives with their history, discards, and what a later revision corrected.

-- `corrected`: a later revision, signed by the same side, was applied in its place (`resolved_by`).
-- `office` is the area of responsibility that the content names, where it could be read.
ALTER TABLE dead_letter
    DROP CONSTRAINT dead_letter_state_check,
    ADD CONSTRAINT dead_letter_state_check
        CHECK (state IN ('open', 'redriven', 'discarded', 'refused', 'corrected')),
    ADD COLUMN office text,
    ADD COLUMN resolved_by uuid;
CREATE INDEX dead_letter_message ON dead_letter (message_id) WHERE message_id IS NOT NULL;

-- `superseded`: refused here, and its sender said in a later revision what is to be taken instead.
ALTER TABLE inbox
    DROP CONSTRAINT inbox_state_check,
    ADD CONSTRAINT inbox_state_check
        CHECK (state IN ('applied', 'held', 'refused', 'control', 'superseded'));
CREATE INDEX inbox_superseded ON inbox (notice_id, revision) WHERE state = 'superseded';

-- Refusals of our own messages, the newest of each: what is wrong with it, and which receipt it
-- took back, where the message had been receipted as held.
CREATE TABLE refusal (
    message_id      uuid PRIMARY KEY,
    code            text NOT NULL,
    field           text,
    final           boolean NOT NULL,
    refused_at      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    answer_message  uuid NOT NULL,
    receipt_message uuid,
    receipt_index   bigint
);

INSERT INTO refusal (message_id, code, final, refused_at, received_at, answer_message)
SELECT message_id, coalesce(answer_code, 'NB-2110'), false, answered_at, answered_at, answer_message
FROM sent WHERE answer = 'refusal';

-- A person's order to try dead letters again, and what came of each. An item without an outcome is
-- still to be tried, so that an interrupted redrive goes on where it stopped.
CREATE TABLE redrive (
    redrive_id  uuid PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('running', 'done')),
    actor       text NOT NULL,
    reason      text NOT NULL,
    rate        integer,
    asked       integer NOT NULL,
    begun_at    timestamptz NOT NULL,
    ended_at    timestamptz
);
CREATE TABLE redrive_item (
    redrive_id uuid NOT NULL REFERENCES redrive,
    position   integer NOT NULL,
    dead_id    uuid NOT NULL REFERENCES dead_letter,
    outcome    text CHECK (outcome IN ('taken', 'held', 'failed', 'passed')),
    cause      text,
    tried_at   timestamptz,
    PRIMARY KEY (redrive_id, position)
);
CREATE INDEX redrive_item_letter ON redrive_item (dead_id);
CREATE INDEX redrive_item_left ON redrive_item (redrive_id, position) WHERE outcome IS NULL;

-- What a person decided never to take. Nothing is deleted: the letter's bytes stay.
CREATE TABLE discard (
    discard_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dead_id      uuid NOT NULL REFERENCES dead_letter,
    code         text NOT NULL,
    reason       text NOT NULL,
    actor        text NOT NULL,
    discarded_at timestamptz NOT NULL
);
CREATE INDEX discard_letter ON discard (dead_id);

CREATE FUNCTION refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% keeps every row', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON dead_letter
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();

-- The exact bytes of a dead letter never change, whatever becomes of it.
CREATE FUNCTION refuse_other_bytes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the bytes of a dead letter stay' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER same_bytes BEFORE UPDATE OF bytes, bytes_hash ON dead_letter
    FOR EACH ROW EXECUTE FUNCTION refuse_other_bytes();
