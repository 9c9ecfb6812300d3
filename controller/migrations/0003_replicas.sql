-- Who serves, and who holds which agent's session. A replica that does not renew its row for a while holds nothing any more.

CREATE TABLE replicas (
    replica uuid PRIMARY KEY,
    -- Where other replicas reach it, `host:port`.
    address text NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE sessions (
    instance uuid PRIMARY KEY,
    replica uuid NOT NULL,
    key text NOT NULL,
    -- Grows with each claim, so that a late release does not end a newer session.
    epoch bigint NOT NULL
) WITH (fillfactor = 50);
