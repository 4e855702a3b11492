-- Who may read the records over HTTP. A token is shown once; its SHA-256 is kept.
CREATE TABLE access_token (
    name       text PRIMARY KEY,
    role       text NOT NULL CHECK (role IN ('inspector')),
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
