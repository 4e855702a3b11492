-- Heads and cosignatures, beside the log: nothing here is a record, so two idle sides stay idle.

-- The newest checkpoint of each log of the peer that was shown to be a growth of the one before,
-- with our cosignature; `owed` until a head of ours has carried it.
CREATE TABLE peer_head (
    origin      text PRIMARY KEY,
    size        bigint NOT NULL,
    root        bytea NOT NULL,
    note        text NOT NULL,
    line        text NOT NULL,
    cosigned_at timestamptz NOT NULL,
    owed        boolean NOT NULL
);

-- Cosignatures of our own checkpoints: the peer's, and those of further witnesses.
CREATE TABLE cosignature (
    origin      text NOT NULL,
    size        bigint NOT NULL,
    name        text NOT NULL,
    line        text NOT NULL,
    cosigned_at timestamptz NOT NULL,
    PRIMARY KEY (origin, size, name)
);

-- How far the peer says that it read our streams, without a gap.
CREATE TABLE peer_read (
    stream     text NOT NULL,
    generation integer NOT NULL,
    highest    bigint NOT NULL,
    told_at    timestamptz NOT NULL,
    PRIMARY KEY (stream, generation)
);

-- One row: the head that we told last, and the size that its proof began at.
CREATE TABLE head_told (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    origin    text NOT NULL,
    size      bigint NOT NULL,
    since     bigint NOT NULL,
    told_at   timestamptz NOT NULL
);
