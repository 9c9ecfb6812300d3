-- Recorded terminals. What was shown in one lies in pieces, sealed with the recording's own key, which is itself sealed with a key of the ring.

CREATE TABLE recordings (
    id uuid PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    instance text COLLATE "C" NOT NULL,
    user_name text COLLATE "C" NOT NULL,
    -- Who else, from where, in which container: JSON.
    content text COMPRESSION lz4 NOT NULL,
    -- Sealed.
    key text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When its controller last said that it goes on.
    heard_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    -- Why it ended, in one word.
    reason text COLLATE "C" NOT NULL DEFAULT '',
    pieces integer NOT NULL DEFAULT 0,
    -- Of the recording in clear.
    bytes bigint NOT NULL DEFAULT 0,
    -- SHA-256 of the recording in clear, once it has ended.
    digest bytea
);
CREATE INDEX ON recordings (started_at, id);
CREATE INDEX ON recordings (namespace, started_at, id);

CREATE TABLE recording_pieces (
    recording uuid NOT NULL REFERENCES recordings ON DELETE CASCADE,
    -- Counted from 0.
    number integer NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (recording, number)
);
-- Nothing sealed can be packed.
ALTER TABLE recording_pieces ALTER COLUMN sealed SET STORAGE EXTERNAL;
