-- One batch of a run that erased contents past their retention. What it counts is what its record
-- says; `ledger verify` compares both with what is gone.
CREATE TABLE erasure (
    erasure_id uuid PRIMARY KEY,
    run_id     uuid NOT NULL,
    record_id  bigint NOT NULL,
    policy     text NOT NULL,
    erased_at  timestamptz NOT NULL,
    notices    integer NOT NULL,
    payloads   integer NOT NULL,
    envelopes  integer NOT NULL,
    letters    integer NOT NULL,
    openings   integer NOT NULL
);
ALTER TABLE payload ADD COLUMN erasure_id uuid;
CREATE INDEX payload_erased ON payload (erasure_id) WHERE erasure_id IS NOT NULL;

-- What is left of an envelope whose content was erased: header, attributes and signature, with
-- empty data. It cannot be sent, and its signature holds over the recorded hash alone.
CREATE TABLE erased_envelope (
    message_id uuid PRIMARY KEY,
    erasure_id uuid NOT NULL,
    envelope   bytea NOT NULL
);

-- A dead letter that came to its end keeps its hash, its cause and its history; its bytes go with
-- the contents of its notice, and never otherwise.
ALTER TABLE dead_letter ADD COLUMN erasure_id uuid;
CREATE OR REPLACE FUNCTION refuse_other_bytes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.bytes_hash = OLD.bytes_hash AND OLD.erasure_id IS NULL AND NEW.erasure_id IS NOT NULL
       AND OLD.state <> 'open' AND octet_length(NEW.bytes) < octet_length(OLD.bytes) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the bytes of a dead letter stay' USING ERRCODE = 'restrict_violation';
END $$;
