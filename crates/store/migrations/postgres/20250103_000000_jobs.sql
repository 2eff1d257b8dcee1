-- Jobs and approvals. A job is one wide row that is written three times in its life: when it is enqueued, when it is
-- claimed and when it ends. Nothing that changes is indexed, and each page keeps room for the two later versions, which
-- are larger, so that both changes stay on their page. What comes and goes lies in narrow tables beside it.

-- Work to be done, being done, and done.
CREATE TABLE jobs (
    tenant_id int4 NOT NULL,
    attempt int4 NOT NULL,
    max_attempts int4 NOT NULL,
    priority int4 NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    run_at timestamptz NOT NULL,
    -- Since when it can be claimed: the place of its run in job_ready. NULL while something holds it back, and when
    -- it was canceled.
    ready_at timestamptz,
    -- Whether its end concerns more than itself: a session, a unique key, a reserved cost.
    tied bool NOT NULL,
    status text COLLATE "C" NOT NULL
        CONSTRAINT jobs_status CHECK (status IN ('queued', 'running', 'done', 'failed', 'canceled')),
    queue text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    payload text NOT NULL,
    metadata jsonb NOT NULL,
    session_id uuid,
    trigger_message_id uuid,
    agent_id int8,
    unique_key text COLLATE "C",
    retry_of uuid,
    schedule_id uuid,
    estimated_cost int8,
    model text COLLATE "C",
    claim_id uuid,
    started_at timestamptz,
    finished_at timestamptz,
    cancel_requested_at timestamptz,
    checkpoint text,
    result text,
    error text,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 27);
CREATE INDEX jobs_by_session ON jobs (tenant_id, session_id, id) WHERE session_id IS NOT NULL;

-- Jobs that can be claimed, in the order in which they are: runs of jobs that were enqueued together. Only an index into
-- jobs: a run stands for those with an id from low to high that are queued and have its queue, priority and ready_at.
-- One that stands for none is dropped by the claim that meets it.
CREATE TABLE job_ready (
    tenant_id int4 NOT NULL,
    rank int4 NOT NULL,
    queue text COLLATE "C" NOT NULL,
    ready_at timestamptz NOT NULL,
    low uuid NOT NULL,
    high uuid NOT NULL,
    PRIMARY KEY (tenant_id, queue, rank, ready_at, low),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);

-- What holds a queued job back; without any of it the row goes. Written under the lock of the job's row.
CREATE TABLE job_gates (
    tenant_id int4 NOT NULL,
    job_id uuid NOT NULL,
    -- A time to wait for, and what for: schedule, back_off or snooze.
    wake_at timestamptz,
    wake_kind text COLLATE "C",
    -- An earlier job of the session is unfinished: its place in the line.
    session_id uuid,
    position int8,
    -- Somebody has to approve it.
    approval bool NOT NULL,
    -- It does not fit the budget: which one, for people.
    budget text COLLATE "C",
    PRIMARY KEY (tenant_id, job_id)
);
CREATE INDEX job_gates_by_wake_at ON job_gates (tenant_id, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX job_gates_by_session ON job_gates (tenant_id, session_id, position) WHERE session_id IS NOT NULL;
CREATE INDEX job_gates_by_budget ON job_gates (tenant_id, job_id) WHERE budget IS NOT NULL;

-- The line of a session: the one job of it that may run, and the last place given to those behind it.
CREATE TABLE job_lanes (
    tenant_id int4 NOT NULL,
    session_id uuid NOT NULL,
    head uuid NOT NULL,
    last_position int8 NOT NULL,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50);

-- Unique keys of unfinished jobs.
CREATE TABLE job_keys (
    tenant_id int4 NOT NULL,
    unique_key text COLLATE "C" NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, unique_key)
);

-- Who works, and until when that is believed. One row for a worker, however many jobs it runs.
CREATE TABLE job_workers (
    tenant_id int4 NOT NULL,
    name text COLLATE "C" NOT NULL,
    deadline timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

-- What a worker took at once: the ids of the jobs, 16 bytes each, and how many of them are still running.
CREATE TABLE job_claims (
    tenant_id int4 NOT NULL,
    open int4 NOT NULL,
    id uuid NOT NULL,
    worker text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    jobs bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) WITH (fillfactor = 50);
-- Ids do not get any smaller by trying.
ALTER TABLE job_claims ALTER COLUMN jobs SET STORAGE EXTERNAL;
CREATE INDEX job_claims_by_worker ON job_claims (tenant_id, worker);

-- Queues that are paused or limited; the others need no row.
CREATE TABLE job_queues (
    tenant_id int4 NOT NULL,
    name text COLLATE "C" NOT NULL,
    concurrency int4,
    paused bool NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);

-- Jobs that are enqueued again and again.
CREATE TABLE job_schedules (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    cron text COLLATE "C" NOT NULL,
    time_zone text COLLATE "C" NOT NULL,
    catch_up_seconds int8 NOT NULL,
    active bool NOT NULL,
    job text NOT NULL,
    next_run_at timestamptz NOT NULL,
    last_run_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX job_schedules_by_next_run_at ON job_schedules (tenant_id, next_run_at);

-- What somebody has to agree to.
CREATE TABLE approvals (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    job_id uuid,
    session_id uuid,
    proposal text NOT NULL,
    proposal_hash text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL
        CONSTRAINT approvals_status CHECK (status IN ('pending', 'approved', 'rejected', 'superseded')),
    requested_by text COLLATE "C",
    resolved_by text COLLATE "C",
    resolved_at timestamptz,
    reason text,
    expires_at timestamptz,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX approvals_pending_of_job ON approvals (tenant_id, job_id) WHERE status = 'pending' AND job_id IS NOT NULL;
CREATE INDEX approvals_by_job ON approvals (tenant_id, job_id, id);
CREATE INDEX approvals_by_session ON approvals (tenant_id, session_id, id);
CREATE INDEX approvals_pending ON approvals (tenant_id, expires_at, id) WHERE status = 'pending';

-- Refuses a change of an approval's status that is not legal. Behind the change, not before it: a trigger that runs
-- before locks each row once more.
CREATE FUNCTION agentkeep_refuse_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation',
        MESSAGE = format('%s %s is %s and cannot become %s', TG_ARGV[0], OLD.id, OLD.status, NEW.status);
END
$$;
CREATE TRIGGER approvals_legal_status AFTER UPDATE OF status ON approvals FOR EACH ROW
WHEN (OLD.status <> NEW.status AND NOT (
    OLD.status = 'pending' AND NEW.status IN ('approved', 'rejected', 'superseded')
))
EXECUTE FUNCTION agentkeep_refuse_status('approval');

-- Takes the narrow rows of a job along that direct SQL canceled or deleted. A run that a claim holds at this moment is
-- left to it, and so is one of several jobs: claims pass over those that changed.
CREATE FUNCTION agentkeep_forget_job(
    tenant int4, job uuid, job_queue text, job_priority int4, job_ready_at timestamptz, job_key text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM job_ready q WHERE q.tenant_id = tenant AND q.ctid IN (
        SELECT r.ctid FROM job_ready r
        WHERE r.tenant_id = tenant AND r.queue = job_queue AND r.rank = -job_priority
            AND r.ready_at = job_ready_at AND r.low = job AND r.high = job
        FOR UPDATE SKIP LOCKED
    );
    DELETE FROM job_gates WHERE tenant_id = tenant AND job_id = job;
    DELETE FROM job_keys WHERE tenant_id = tenant AND unique_key = job_key AND job_id = job;
END
$$;
CREATE FUNCTION agentkeep_job_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentkeep_forget_job(OLD.tenant_id, OLD.id, OLD.queue, OLD.priority, OLD.ready_at, OLD.unique_key);
    RETURN NULL;
END
$$;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs FOR EACH ROW
WHEN (OLD.status IN ('queued', 'running')) EXECUTE FUNCTION agentkeep_job_deleted();

-- Refuses a change of a job's status that is not legal, takes its narrow rows along when it is canceled, and stamps it
-- as agentkeep_stamp does. One trigger for all of it: each has its price for every row of a claim and a completion.
CREATE FUNCTION agentkeep_job_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> NEW.status AND NOT (
        (OLD.status = 'queued' AND NEW.status IN ('running', 'canceled'))
        OR (OLD.status = 'running' AND NEW.status IN ('done', 'failed', 'canceled', 'queued'))
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation',
            MESSAGE = format('job %s is %s and cannot become %s', OLD.id, OLD.status, NEW.status);
    END IF;
    IF OLD.status = 'queued' AND NEW.status = 'canceled' THEN
        PERFORM agentkeep_forget_job(OLD.tenant_id, OLD.id, OLD.queue, OLD.priority, OLD.ready_at, OLD.unique_key);
    END IF;
    IF NEW.updated_at = OLD.updated_at THEN
        UPDATE jobs SET updated_at = clock_timestamp() WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER jobs_changed AFTER UPDATE ON jobs FOR EACH ROW
WHEN (NEW.updated_at = OLD.updated_at OR (OLD.status <> NEW.status AND NOT (
    (OLD.status = 'queued' AND NEW.status = 'running')
    OR (OLD.status = 'running' AND NEW.status IN ('done', 'failed', 'canceled', 'queued'))
)))
EXECUTE FUNCTION agentkeep_job_changed();
CREATE TRIGGER approvals_stamp BEFORE UPDATE ON approvals FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER job_queues_stamp BEFORE UPDATE ON job_queues FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER job_schedules_stamp BEFORE UPDATE ON job_schedules FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
