-- Acts that are few and that proofs look for: which keys were published and trusted, and what was
-- erased. Records that are none of these never touch the index.
CREATE INDEX record_few ON record (record_id)
    WHERE action IN ('party.published', 'party.trusted', 'content.erased');
