-- Our own signing keys that ended. The row is written while every stream is held, so a relay that
-- holds a stream sees whether its key may still number there; `statement` is what the party file
-- says of it, from which a key ring that was cut off is brought up to date.
CREATE TABLE key_end (
    kid       text NOT NULL,
    ended     text NOT NULL CHECK (ended IN ('retired', 'revoked')),
    ended_at  timestamptz NOT NULL,
    statement bytea NOT NULL,
    PRIMARY KEY (kid, ended)
);

-- Messages of ours whose key was revoked before they were answered, and the message that says the
-- same under a new id. A message that was renewed twice names the newest.
CREATE TABLE renewed (
    message_id uuid PRIMARY KEY,
    renewed_as uuid NOT NULL,
    renewed_at timestamptz NOT NULL
);
CREATE INDEX renewed_as ON renewed (renewed_as);
