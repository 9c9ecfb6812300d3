-- Who did what: a row an event. Events are chained batch by batch, so that one that is edited, removed or put elsewhere is found.
-- Both tables have a partition for each day (UTC) of the time of the commit, which never runs backwards, whatever clocks do.

CREATE TABLE audit_events (
    recorded_at timestamptz NOT NULL,
    -- Counts events without a gap.
    number bigint NOT NULL,
    id uuid NOT NULL,
    user_name text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    instance text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    -- Everything else, as JSON; text, because the chain is over its bytes.
    content text COMPRESSION lz4 NOT NULL,
    PRIMARY KEY (recorded_at, number)
) PARTITION BY RANGE (recorded_at);
-- Each in the order of the pages, so that the first page of a rare value is found without a sort.
CREATE INDEX ON audit_events (user_name, recorded_at, number);
CREATE INDEX ON audit_events (action, recorded_at, number);
CREATE INDEX ON audit_events (resource, recorded_at, number);
CREATE INDEX ON audit_events (namespace, recorded_at, number);
CREATE INDEX ON audit_events (name, recorded_at, number);
CREATE INDEX ON audit_events (instance, recorded_at, number);
CREATE INDEX ON audit_events (outcome, recorded_at, number);

CREATE TABLE audit_batches (
    recorded_at timestamptz NOT NULL,
    -- Counts batches without a gap.
    number bigint NOT NULL,
    -- Number of its first event.
    first bigint NOT NULL,
    -- SHA-256 of each of its events, one after the other.
    digests bytea NOT NULL,
    -- SHA-256 of the head before it and all of the above.
    head bytea NOT NULL,
    PRIMARY KEY (recorded_at, number)
) PARTITION BY RANGE (recorded_at);

CREATE TABLE audit_chain (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    -- The newest batch, the newest event, and where the chain ends.
    batch bigint NOT NULL DEFAULT 0,
    event bigint NOT NULL DEFAULT 0,
    head bytea NOT NULL DEFAULT sha256('gantry audit'),
    recorded_at timestamptz NOT NULL DEFAULT 'epoch',
    -- The newest batch and event that were dropped with their day, and the head that the rest goes on from.
    floor_batch bigint NOT NULL DEFAULT 0,
    floor_event bigint NOT NULL DEFAULT 0,
    floor_head bytea NOT NULL DEFAULT sha256('gantry audit')
) WITH (fillfactor = 20);
INSERT INTO audit_chain DEFAULT VALUES;

-- Days that have partitions.
CREATE TABLE audit_days (day date PRIMARY KEY);

-- Makes the partitions of a day, unless it has them. Only for who holds the chain's row lock.
CREATE FUNCTION open_audit_day(day_ date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    table_ text;
    name_ text;
BEGIN
    INSERT INTO audit_days VALUES (day_) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOREACH table_ IN ARRAY ARRAY['audit_events', 'audit_batches'] LOOP
        name_ := table_ || '_' || to_char(day_, 'YYYYMMDD');
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name_, table_);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', table_, name_,
            day_::timestamp AT TIME ZONE 'UTC', (day_ + 1)::timestamp AT TIME ZONE 'UTC');
    END LOOP;
END $$;

-- Adds a batch of events to the chain: those of them that are `wanted_`, in order.
CREATE FUNCTION record_audit(
    wanted_ boolean[], ids_ uuid[], users_ text[], actions_ text[], resources_ text[], namespaces_ text[], names_ text[],
    instances_ text[], outcomes_ text[], contents_ text[], digests_ bytea[]
) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '5s'
AS $$
DECLARE
    chain_ audit_chain;
    at_ timestamptz;
    day_ date;
    count_ bigint;
    all_ bytea;
BEGIN
    IF (true = ANY (wanted_)) IS NOT TRUE THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT chain_ FROM audit_chain FOR UPDATE;
    at_ := greatest(clock_timestamp(), chain_.recorded_at);
    day_ := (at_ AT TIME ZONE 'UTC')::date;
    IF NOT EXISTS (SELECT FROM audit_days WHERE day = day_ + 1) THEN
        PERFORM open_audit_day(day_), open_audit_day(day_ + 1);
    END IF;

    WITH kept AS MATERIALIZED (
        SELECT e.*, chain_.event + row_number() OVER (ORDER BY ordinal) AS number
        FROM unnest(wanted_, ids_, users_, actions_, resources_, namespaces_, names_, instances_, outcomes_, contents_, digests_)
            WITH ORDINALITY AS e(wanted, id, user_name, action, resource, namespace, name, instance, outcome, content, digest, ordinal)
        WHERE wanted
    ), stored AS (
        INSERT INTO audit_events
            (recorded_at, number, id, user_name, action, resource, namespace, name, instance, outcome, content)
        SELECT at_, number, id, user_name, action, resource, namespace, name, instance, outcome, content FROM kept
    )
    SELECT count(*), string_agg(digest, ''::bytea ORDER BY number) INTO STRICT count_, all_ FROM kept;

    UPDATE audit_chain SET batch = chain_.batch + 1, event = chain_.event + count_, recorded_at = at_, head = sha256(
        chain_.head || int8send(chain_.batch + 1) || int8send(chain_.event + 1)
        || int8send((extract(epoch FROM at_) * 1000000)::bigint) || all_)
    RETURNING * INTO chain_;
    INSERT INTO audit_batches VALUES (at_, chain_.batch, chain_.event - count_ + 1, all_, chain_.head);
END $$;

-- As `write_batch` without events; and adds to the chain, in the same transaction, the event of each write that was applied.
-- `of_` says for each event which write it belongs to, counted from 1.
CREATE FUNCTION write_batch(
    writer_ uuid, batch_ bigint, kinds_ text[], resources_ text[], namespaces_ text[], names_ text[], uids_ uuid[],
    expected_ bigint[], labels_ text[], data_ text[], of_ integer[],
    ids_ uuid[], users_ text[], actions_ text[], event_resources_ text[], event_namespaces_ text[], event_names_ text[],
    instances_ text[], outcomes_ text[], contents_ text[], digests_ bytea[]
) RETURNS bigint[] LANGUAGE plpgsql
SET lock_timeout = '5s'
AS $$
DECLARE
    is_answered_ boolean;
    versions_ bigint[];
    wanted_ boolean[];
BEGIN
    PERFORM FROM counter FOR UPDATE;
    -- What was committed before has its events already.
    is_answered_ := EXISTS (SELECT FROM writers WHERE writer = writer_ AND batch >= batch_);
    versions_ := write_batch(
        writer_, batch_, kinds_, resources_, namespaces_, names_, uids_, expected_, labels_, data_);
    IF NOT is_answered_ THEN
        SELECT array_agg(versions_[place] IS NOT NULL ORDER BY ordinal) INTO wanted_
        FROM unnest(of_) WITH ORDINALITY AS o(place, ordinal);
        PERFORM record_audit(wanted_, ids_, users_, actions_, event_resources_, event_namespaces_, event_names_,
            instances_, outcomes_, contents_, digests_);
    END IF;
    RETURN versions_;
END $$;

-- Events, the newest first: of the asked values, where one is asked for, recorded at `since_` or later and before `until_`, and after
-- the last one of a page in this order.
CREATE FUNCTION read_audit(
    user_ text, action_ text, resource_ text, namespace_ text, name_ text, instance_ text, outcome_ text,
    since_ timestamptz, until_ timestamptz, last_at_ timestamptz, last_number_ bigint, limit_ bigint
) RETURNS SETOF audit_events LANGUAGE plpgsql STABLE
-- Planned with the values, so that what is not asked for is no condition and the index of what is asked for can be used.
SET plan_cache_mode = force_custom_plan
-- Rows of one value lie in the order of the index. Else a rare value is looked for by walking through everybody's rows.
SET random_page_cost = 1
AS $$
BEGIN
    RETURN QUERY SELECT * FROM audit_events e
    WHERE (user_ IS NULL OR e.user_name = user_) AND (action_ IS NULL OR e.action = action_)
        AND (resource_ IS NULL OR e.resource = resource_) AND (namespace_ IS NULL OR e.namespace = namespace_)
        AND (name_ IS NULL OR e.name = name_) AND (instance_ IS NULL OR e.instance = instance_)
        AND (outcome_ IS NULL OR e.outcome = outcome_)
        AND (since_ IS NULL OR e.recorded_at >= since_) AND (until_ IS NULL OR e.recorded_at < until_)
        AND (last_at_ IS NULL OR (e.recorded_at <= last_at_ AND (e.recorded_at, e.number) < (last_at_, last_number_)))
    ORDER BY e.recorded_at DESC, e.number DESC LIMIT limit_;
END $$;

-- Drops the days of which everything is older than `keep_seconds_`; how many. The chain goes on from the head of the last of them.
-- Gives up, to be called again, where a long reader holds one.
CREATE FUNCTION trim_audit(keep_seconds_ double precision) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '500ms'
AS $$
DECLARE
    horizon_ date := ((clock_timestamp() - make_interval(secs => keep_seconds_)) AT TIME ZONE 'UTC')::date;
    chain_ audit_chain;
    day_ date;
    last_ record;
    dropped_ bigint := 0;
BEGIN
    -- First of all, as those do who record.
    SELECT * INTO STRICT chain_ FROM audit_chain FOR UPDATE;
    FOR day_ IN SELECT day FROM audit_days WHERE day < horizon_ ORDER BY day LOOP
        EXECUTE format('SELECT number, first + length(digests) / 32 - 1 AS event, head FROM %I ORDER BY recorded_at DESC, number DESC LIMIT 1',
            'audit_batches_' || to_char(day_, 'YYYYMMDD')) INTO last_;
        IF last_.number IS NOT NULL THEN
            UPDATE audit_chain SET floor_batch = last_.number, floor_event = last_.event, floor_head = last_.head;
        END IF;
        EXECUTE format('DROP TABLE %I', 'audit_events_' || to_char(day_, 'YYYYMMDD'));
        EXECUTE format('DROP TABLE %I', 'audit_batches_' || to_char(day_, 'YYYYMMDD'));
        DELETE FROM audit_days WHERE day = day_;
        dropped_ := dropped_ + 1;
    END LOOP;
    RETURN dropped_;
END $$;
