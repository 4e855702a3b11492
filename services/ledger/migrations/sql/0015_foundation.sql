-- Which messages a run that began is of, in its order, from the first at `position` on: live traffic,
-- erasure and archives go on meanwhile, and a run that goes on must not become another one.
CREATE TABLE replay_planned (
    plan_id     uuid NOT NULL REFERENCES replay_plan,
    position    bigint NOT NULL,
    message_ids uuid[] NOT NULL,
    PRIMARY KEY (plan_id, position)
);
-- What a person asks of a run is its state at once.
UPDATE replay_plan SET state = CASE asked WHEN 'cancel' THEN 'cancelled' ELSE 'paused' END
WHERE asked IS NOT NULL AND state = 'running';
ALTER TABLE replay_plan DROP COLUMN asked;
-- Bytes that were taken after all had been vouched for then.
UPDATE dead_letter SET authentic = true WHERE state = 'redriven' AND NOT authentic;
