-- Every object, every change, and the counter that orders them. The previous binary must live with the next schema: add, never
-- rename or drop what it reads.

-- Versions are claimed here, under a row lock that is held until commit, so they become visible in order. Within an incarnation
-- each change has the version after the one before it, so that a reader of the log can tell that it has them all.
CREATE TABLE counter (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version bigint NOT NULL DEFAULT 0,
    -- Counts histories: rises whenever the database is found to be another, or an earlier state of itself.
    incarnation bigint NOT NULL DEFAULT 1,
    system_identifier bigint,
    timeline text
) WITH (fillfactor = 20);
INSERT INTO counter DEFAULT VALUES;

CREATE TABLE resources (
    resource text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    uid uuid NOT NULL,
    version bigint NOT NULL,
    labels jsonb NOT NULL,
    data text COMPRESSION lz4 NOT NULL,
    PRIMARY KEY (resource, namespace, name)
);

CREATE TABLE changes (
    version bigint PRIMARY KEY,
    -- A added, M modified, D deleted
    kind text NOT NULL CHECK (kind IN ('A', 'M', 'D')),
    resource text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    uid uuid NOT NULL,
    labels jsonb NOT NULL,
    data text COMPRESSION lz4 NOT NULL,
    committed_at timestamptz NOT NULL
) PARTITION BY RANGE (version);

CREATE TABLE change_log (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    -- The newest version that was compacted away.
    floor bigint NOT NULL DEFAULT 0,
    -- Versions in a new partition.
    width bigint NOT NULL DEFAULT 50000 CHECK (width > 0),
    -- The first version that has no partition yet.
    log_end bigint NOT NULL DEFAULT 0
);
INSERT INTO change_log DEFAULT VALUES;

CREATE TABLE change_log_partitions (
    first bigint PRIMARY KEY,
    past bigint NOT NULL
);

-- The last batch of each writer and its answer, so that one whose answer was lost can be sent again.
CREATE TABLE writers (
    writer uuid PRIMARY KEY,
    batch bigint NOT NULL,
    versions bigint[] NOT NULL,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    holder uuid NOT NULL,
    -- Grows at each takeover; the second half of a fencing token.
    epoch bigint NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 20);

-- Makes partitions for the versions `first_` to `through_` and one beyond. Only for who holds the counter's row lock.
-- CREATE and ATTACH instead of PARTITION OF, which would lock out readers of the log, and wait for a backup of it.
-- Made long before they are needed: a reader whose query was planned without a new partition would not see what is in it.
CREATE FUNCTION extend_change_log(first_ bigint, through_ bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    width_ bigint;
    at_ bigint;
    name_ text;
BEGIN
    SELECT width, greatest(log_end, first_ - first_ % width) INTO STRICT width_, at_ FROM change_log;
    WHILE at_ <= through_ + width_ LOOP
        name_ := 'changes_' || at_;
        EXECUTE format('CREATE TABLE %I (LIKE changes INCLUDING ALL)', name_);
        EXECUTE format('ALTER TABLE changes ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', name_, at_, at_ + width_);
        INSERT INTO change_log_partitions VALUES (at_, at_ + width_);
        at_ := at_ + width_;
    END LOOP;
    UPDATE change_log SET log_end = at_;
END $$;
SELECT extend_change_log(0, 0);

-- Commits a batch: each element whose expectation holds is applied, gets a version, and enters the log. Answers with the versions
-- in the order of the elements; those of refused elements are null.
--
-- A (writer, batch) that was committed before is answered from its record and changes nothing.
-- The lock and the writes are separate statements, so that the writes' snapshot is taken under the lock.
CREATE FUNCTION write_batch(
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
        SELECT w.*, CASE w.kind WHEN 'A' THEN r.uid IS NULL ELSE (r.version, r.uid) = (w.expected, w.uid) END AS holds
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

-- Ends a history: the incarnation becomes `incarnation_`, and the counter jumps far past `version_`, so that no version is ever
-- used for two states. Nothing happens if that incarnation was reached already.
CREATE FUNCTION begin_incarnation(incarnation_ bigint, version_ bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    began_ bigint;
BEGIN
    UPDATE counter SET incarnation = incarnation_, version = greatest(version, version_) + 1000000000
    WHERE incarnation < incarnation_ RETURNING version INTO began_;
    IF FOUND THEN
        PERFORM extend_change_log(began_ + 1, began_ + 1);
        PERFORM pg_notify('gantry_changes', '');
    END IF;
END $$;

-- Begins a new incarnation if this is not the cluster, or not the timeline, that the counter was last used on.
CREATE FUNCTION recognize_cluster() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    system_ bigint := (SELECT system_identifier FROM pg_control_system());
    timeline_ text := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    known_ record;
BEGIN
    IF EXISTS (SELECT FROM counter WHERE system_identifier = system_ AND timeline = timeline_) THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT known_ FROM counter FOR UPDATE;
    IF (known_.system_identifier, known_.timeline) IS NOT DISTINCT FROM (system_, timeline_) THEN
        RETURN;
    END IF;
    UPDATE counter SET system_identifier = system_, timeline = timeline_;
    IF known_.system_identifier IS NOT NULL THEN
        PERFORM begin_incarnation(known_.incarnation + 1, known_.version);
    END IF;
END $$;

-- Drops the partitions whose every version is more than `keep_versions_` behind and more than `keep_seconds_` old. Returns the
-- floor. Gives up, to be called again, where a long reader holds the log.
CREATE FUNCTION compact_change_log(keep_versions_ bigint, keep_seconds_ double precision) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '500ms'
AS $$
DECLARE
    newest_ bigint;
    partition_ change_log_partitions;
    last_ timestamptz;
    floor_ bigint;
BEGIN
    SELECT floor INTO STRICT floor_ FROM change_log;
    IF NOT pg_try_advisory_xact_lock(hashtext('gantry compaction')) THEN
        RETURN floor_;
    END IF;
    SELECT version INTO STRICT newest_ FROM counter;
    FOR partition_ IN SELECT * FROM change_log_partitions ORDER BY first LOOP
        EXIT WHEN partition_.past > newest_ - keep_versions_;
        EXECUTE format('SELECT committed_at FROM %I ORDER BY version DESC LIMIT 1', 'changes_' || partition_.first) INTO last_;
        EXIT WHEN last_ > clock_timestamp() - make_interval(secs => keep_seconds_);
        EXECUTE format('DROP TABLE %I', 'changes_' || partition_.first);
        DELETE FROM change_log_partitions WHERE first = partition_.first;
        floor_ := partition_.past - 1;
    END LOOP;
    UPDATE change_log SET floor = floor_ WHERE floor < floor_;
    RETURN floor_;
END $$;
