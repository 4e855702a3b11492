-- The key of a third witness, as its settings named it when it cosigned; without one it is the
-- other agency, whose keys are in its party file.
ALTER TABLE cosignature ADD COLUMN vkey text;
