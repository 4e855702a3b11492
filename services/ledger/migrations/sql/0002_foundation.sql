-- Replay as people run it: sources, selections, approval, pause and progress of each run.

-- `store_id` names the database that a plan was made in: a copy of it elsewhere is another store.
-- `selection` has no content and no names of children. `written` counts entries put on a stream.
-- `asked` is what a person asked a run for that goes on in another process.
ALTER TABLE replay_plan
    DROP CONSTRAINT replay_plan_state_check,
    ADD CONSTRAINT replay_plan_state_check
        CHECK (state IN ('planned', 'running', 'paused', 'cancelled', 'done')),
    ADD COLUMN source text NOT NULL DEFAULT 'store',
    ADD COLUMN selection jsonb,
    ADD COLUMN store_id text NOT NULL DEFAULT '',
    ADD COLUMN offices jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN written bigint NOT NULL DEFAULT 0,
    ADD COLUMN asked text CHECK (asked IN ('pause', 'cancel')),
    ADD COLUMN approval_above integer NOT NULL DEFAULT 0,
    ADD COLUMN approved_by text,
    ADD COLUMN approved_at timestamptz;
UPDATE replay_plan
SET selection = jsonb_build_object('since', since, 'until', until, 'notices',
                                   to_jsonb(array_remove(ARRAY[notice_id], NULL)));
ALTER TABLE replay_plan
    ALTER COLUMN selection SET NOT NULL,
    DROP COLUMN since,
    DROP COLUMN until,
    DROP COLUMN notice_id;

-- Selections that people keep under a name.
CREATE TABLE replay_query (
    name      text PRIMARY KEY,
    source    text NOT NULL,
    selection jsonb NOT NULL,
    saved_at  timestamptz NOT NULL,
    saved_by  text NOT NULL
);
