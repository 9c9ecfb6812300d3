-- What each rewind has lost, so that agents can tell of results that were recorded in it.

CREATE TABLE incarnations (
    incarnation bigint PRIMARY KEY,
    -- The newest version of the earlier incarnations that was left when this one began.
    kept bigint NOT NULL
);

-- Ends a history: the incarnation becomes `incarnation_`, and the counter jumps far past `version_`, so that no version is ever
-- used for two states. Nothing happens if that incarnation was reached already.
CREATE OR REPLACE FUNCTION begin_incarnation(incarnation_ bigint, version_ bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept_ bigint;
    began_ bigint;
BEGIN
    SELECT version INTO STRICT kept_ FROM counter FOR UPDATE;
    UPDATE counter SET incarnation = incarnation_, version = greatest(version, version_) + 1000000000
    WHERE incarnation < incarnation_ RETURNING version INTO began_;
    IF FOUND THEN
        INSERT INTO incarnations VALUES (incarnation_, kept_);
        DELETE FROM incarnations WHERE incarnation <= (SELECT incarnation FROM incarnations ORDER BY incarnation DESC OFFSET 100 LIMIT 1);
        PERFORM extend_change_log(began_ + 1, began_ + 1);
        PERFORM pg_notify('gantry_changes', '');
    END IF;
END $$;
