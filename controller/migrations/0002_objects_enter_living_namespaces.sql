-- Commits a batch: each element whose expectation holds is applied, gets a version, and enters the log. Answers with the versions
-- in the order of the elements; those of refused elements are null.
--
-- A new object may name the version of its Namespace, and enters only while that is its version: a replica that has not seen the
-- Namespace's end must not put anything into it. What expects 0 names none.
--
-- A (writer, batch) that was committed before is answered from its record and changes nothing.
-- The lock and the writes are separate statements, so that the writes' snapshot is taken under the lock.
CREATE OR REPLACE FUNCTION write_batch(
    writer_ uuid, batch_ bigint, kinds_ text[], resources_ text[], namespaces_ text[], names_ text[], uids_ uuid[],
    expected_ bigint[], labels_ text[], data_ text[]
) RETURNS bigint[] LANGUAGE plpgsql
SET lock_timeout = '5s'
-- A plan made while the table was small would read all of it once it has grown.
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    base_ bigint;
    newest_ bigint;
    recorded_ record;
    versions_ bigint[];
BEGIN
    SELECT version INTO STRICT base_ FROM counter FOR UPDATE;

    SELECT batch, versions INTO recorded_ FROM writers WHERE writer = writer_;
    IF recorded_.batch = batch_ THEN
        RETURN recorded_.versions;
    ELSIF recorded_.batch > batch_ THEN
        RAISE EXCEPTION 'batch % of writer % was given up', batch_, writer_;
    END IF;

    newest_ := base_ + cardinality(names_);
    IF (SELECT log_end - width <= newest_ FROM change_log) THEN
        PERFORM extend_change_log(base_ + 1, newest_);
    END IF;

    WITH asked AS (
        SELECT w.*, CASE w.kind
            WHEN 'A' THEN r.uid IS NULL AND (w.expected = 0 OR EXISTS (
                SELECT FROM resources p
                WHERE (p.resource, p.namespace, p.name) = ('namespaces', '', w.namespace) AND p.version = w.expected))
            ELSE (r.version, r.uid) = (w.expected, w.uid) END AS holds
        FROM unnest(kinds_, resources_, namespaces_, names_, uids_, expected_, labels_, data_)
            WITH ORDINALITY AS w(kind, resource, namespace, name, uid, expected, labels, data, ordinal)
        LEFT JOIN resources r ON (r.resource, r.namespace, r.name) = (w.resource, w.namespace, w.name)
    ), numbered AS MATERIALIZED (
        SELECT *, CASE WHEN holds THEN base_ + count(*) FILTER (WHERE holds) OVER (ORDER BY ordinal) END AS version FROM asked
    ), applied AS (
        SELECT kind, resource, namespace, name, uid, version, labels::jsonb, data FROM numbered WHERE holds
    ), added AS (
        INSERT INTO resources (resource, namespace, name, uid, version, labels, data)
        SELECT resource, namespace, name, uid, version, labels, data FROM applied WHERE kind = 'A'
    ), modified AS (
        UPDATE resources r SET version = a.version, labels = a.labels, data = a.data FROM applied a
        WHERE a.kind = 'M' AND (r.resource, r.namespace, r.name) = (a.resource, a.namespace, a.name)
    ), deleted AS (
        DELETE FROM resources r USING applied a
        WHERE a.kind = 'D' AND (r.resource, r.namespace, r.name) = (a.resource, a.namespace, a.name)
    ), logged AS (
        INSERT INTO changes (kind, resource, namespace, name, uid, version, labels, data, committed_at)
        SELECT *, clock_timestamp() FROM applied
    )
    SELECT array_agg(version ORDER BY ordinal), coalesce(max(version), base_) INTO versions_, newest_ FROM numbered;

    INSERT INTO writers VALUES (writer_, batch_, versions_, clock_timestamp())
    ON CONFLICT (writer) DO UPDATE
    SET batch = excluded.batch, versions = excluded.versions, seen_at = excluded.seen_at;

    IF newest_ > base_ THEN
        UPDATE counter SET version = newest_;
        -- Nothing else may notify: it takes a lock over the whole database until commit. Here the counter's lock is held anyway.
        PERFORM pg_notify('gantry_changes', '');
    END IF;
    RETURN versions_;
END $$;
