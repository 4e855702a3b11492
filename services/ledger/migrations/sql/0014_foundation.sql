-- Records of closed notices move to archive files. What stays of one is its row: place, act, time,
-- ids, and the leaf hash that its bytes had, so that the tree can be built again without them.
ALTER TABLE record
    ALTER COLUMN record DROP NOT NULL,
    ADD COLUMN leaf bytea,
    ADD COLUMN archive_id uuid,
    ADD CONSTRAINT record_bytes_or_leaf CHECK (
        (record IS NOT NULL AND leaf IS NULL AND archive_id IS NULL)
        OR (record IS NULL AND leaf IS NOT NULL AND octet_length(leaf) = 32
            AND archive_id IS NOT NULL)
    );
CREATE INDEX record_archived ON record (archive_id) WHERE archive_id IS NOT NULL;
-- How many moved to a file, and the record that tells of it; `ledger verify` compares them.
ALTER TABLE archive
    ADD COLUMN records bigint NOT NULL DEFAULT 0,
    ADD COLUMN record_id bigint;

-- The one change that a record can see: its bytes leave, or come back, under the same leaf hash.
CREATE FUNCTION refuse_other_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND NEW.record_id = OLD.record_id AND NEW.action = OLD.action
       AND NEW.notice_id IS NOT DISTINCT FROM OLD.notice_id
       AND NEW.message_id IS NOT DISTINCT FROM OLD.message_id
       AND NEW.recorded_at = OLD.recorded_at
       AND ((NEW.record IS NULL AND NEW.leaf = sha256('\x00'::bytea || OLD.record)
             AND NOT EXISTS (SELECT FROM unsealed AS u WHERE u.record_id = OLD.record_id))
            OR (OLD.record IS NULL AND OLD.leaf = sha256('\x00'::bytea || NEW.record))) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
DROP TRIGGER append_only ON record;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON record
    FOR EACH ROW EXECUTE FUNCTION refuse_other_record();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
