-- Ranges of a stream that will never carry a message: declared by us, because their bytes are not
-- here any more, or by the peer; the stream's name says which. `message_id` is the control message
-- that said so.
CREATE TABLE voided (
    message_id     uuid PRIMARY KEY,
    stream         text NOT NULL,
    generation     integer NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    code           text NOT NULL,
    declared_at    timestamptz NOT NULL
);
CREATE INDEX voided_stream ON voided (stream, generation, first_sequence);
