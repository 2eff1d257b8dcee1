-- Jobs and approvals: the same tables as the PostgreSQL file of the same name. A job is one wide row that is written
-- three times in its life: when it is enqueued, when it is claimed and when it ends. Nothing that changes is indexed.
-- What comes and goes lies in narrow tables beside it.

-- Work to be done, being done, and done.
CREATE TABLE jobs (
    tenant_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    -- Since when it can be claimed: the place of its run in job_ready. NULL while something holds it back, and when
    -- it was canceled.
    ready_at INTEGER,
    -- Whether its end concerns more than itself: a session, a unique key, a reserved cost.
    tied INTEGER NOT NULL CHECK (tied IN (0, 1)),
    status TEXT NOT NULL
        CONSTRAINT jobs_status
            CHECK (status = 'queued' OR status = 'running' OR status = 'done' OR status = 'failed'
                OR status = 'canceled'),
    queue TEXT NOT NULL,
    mode TEXT NOT NULL,
    payload TEXT NOT NULL,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    session_id BLOB CHECK (length(session_id) = 16),
    trigger_message_id BLOB CHECK (length(trigger_message_id) = 16),
    agent_id INTEGER,
    unique_key TEXT,
    retry_of BLOB CHECK (length(retry_of) = 16),
    schedule_id BLOB CHECK (length(schedule_id) = 16),
    estimated_cost INTEGER,
    model TEXT,
    claim_id BLOB CHECK (length(claim_id) = 16),
    started_at INTEGER,
    finished_at INTEGER,
    cancel_requested_at INTEGER,
    checkpoint TEXT,
    result TEXT,
    error TEXT,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX jobs_by_session ON jobs (tenant_id, session_id, id) WHERE session_id IS NOT NULL;

-- Jobs that can be claimed, in the order in which they are: runs of jobs that were enqueued together. Only an index into
-- jobs: a run stands for those with an id from low to high that are queued and have its queue, priority and ready_at.
-- One that stands for none is dropped by the claim that meets it.
CREATE TABLE job_ready (
    tenant_id INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    queue TEXT NOT NULL,
    ready_at INTEGER NOT NULL,
    low BLOB NOT NULL CHECK (length(low) = 16),
    high BLOB NOT NULL CHECK (length(high) = 16),
    PRIMARY KEY (tenant_id, queue, rank, ready_at, low),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What holds a queued job back; without any of it the row goes. Written under the lock of the job's row.
CREATE TABLE job_gates (
    tenant_id INTEGER NOT NULL,
    job_id BLOB NOT NULL CHECK (length(job_id) = 16),
    -- A time to wait for, and what for: schedule, back_off or snooze.
    wake_at INTEGER,
    wake_kind TEXT,
    -- An earlier job of the session is unfinished: its place in the line.
    session_id BLOB CHECK (length(session_id) = 16),
    position INTEGER,
    -- Somebody has to approve it.
    approval INTEGER NOT NULL CHECK (approval IN (0, 1)),
    -- It does not fit the budget: which one, for people.
    budget TEXT,
    PRIMARY KEY (tenant_id, job_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_gates_by_wake_at ON job_gates (tenant_id, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX job_gates_by_session ON job_gates (tenant_id, session_id, position) WHERE session_id IS NOT NULL;
CREATE INDEX job_gates_by_budget ON job_gates (tenant_id, job_id) WHERE budget IS NOT NULL;

-- The line of a session: the one job of it that may run, and the last place given to those behind it.
CREATE TABLE job_lanes (
    tenant_id INTEGER NOT NULL,
    session_id BLOB NOT NULL CHECK (length(session_id) = 16),
    head BLOB NOT NULL CHECK (length(head) = 16),
    last_position INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Unique keys of unfinished jobs.
CREATE TABLE job_keys (
    tenant_id INTEGER NOT NULL,
    unique_key TEXT NOT NULL,
    job_id BLOB NOT NULL CHECK (length(job_id) = 16),
    PRIMARY KEY (tenant_id, unique_key)
) STRICT, WITHOUT ROWID;

-- Who works, and until when that is believed. One row for a worker, however many jobs it runs.
CREATE TABLE job_workers (
    tenant_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    deadline INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What a worker took at once: the ids of the jobs, 16 bytes each, and how many of them are still running.
CREATE TABLE job_claims (
    tenant_id INTEGER NOT NULL,
    open INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    worker TEXT NOT NULL,
    queue TEXT NOT NULL,
    jobs BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX job_claims_by_worker ON job_claims (tenant_id, worker);

-- Queues that are paused or limited; the others need no row.
CREATE TABLE job_queues (
    tenant_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    concurrency INTEGER,
    paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Jobs that are enqueued again and again.
CREATE TABLE job_schedules (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    name TEXT NOT NULL,
    cron TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    catch_up_seconds INTEGER NOT NULL,
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    job TEXT NOT NULL,
    next_run_at INTEGER NOT NULL,
    last_run_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX job_schedules_by_next_run_at ON job_schedules (tenant_id, next_run_at);

-- What somebody has to agree to.
CREATE TABLE approvals (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    job_id BLOB CHECK (length(job_id) = 16),
    session_id BLOB CHECK (length(session_id) = 16),
    proposal TEXT NOT NULL,
    proposal_hash TEXT NOT NULL,
    status TEXT NOT NULL
        CONSTRAINT approvals_status
            CHECK (status = 'pending' OR status = 'approved' OR status = 'rejected' OR status = 'superseded'),
    requested_by TEXT,
    resolved_by TEXT,
    resolved_at INTEGER,
    reason TEXT,
    expires_at INTEGER,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX approvals_pending_of_job ON approvals (tenant_id, job_id) WHERE status = 'pending' AND job_id IS NOT NULL;
CREATE INDEX approvals_by_job ON approvals (tenant_id, job_id, id);
CREATE INDEX approvals_by_session ON approvals (tenant_id, session_id, id);
CREATE INDEX approvals_pending ON approvals (tenant_id, expires_at, id) WHERE status = 'pending';

-- Refuses a change of status that is not legal.
CREATE TRIGGER approvals_legal_status AFTER UPDATE OF status ON approvals
WHEN OLD.status <> NEW.status AND NOT (
    OLD.status = 'pending' AND NEW.status IN ('approved', 'rejected', 'superseded')
)
BEGIN
    SELECT RAISE(ABORT, 'this approval cannot change its status like that');
END;

-- The same for jobs; takes the narrow rows of a job along that direct SQL canceled; and stamps. One trigger, since each
-- of them costs every claim and completion; those two have nothing to do for it.
CREATE TRIGGER jobs_changed AFTER UPDATE ON jobs
WHEN NEW.updated_at = OLD.updated_at OR (
    OLD.status <> NEW.status
    AND NOT (OLD.status = 'queued' AND NEW.status = 'running') AND NOT (OLD.status = 'running' AND NEW.status = 'done')
)
BEGIN
    SELECT RAISE(ABORT, 'this job cannot change its status like that')
    WHERE OLD.status <> NEW.status AND NOT (
        (OLD.status = 'queued' AND NEW.status IN ('running', 'canceled'))
        OR (OLD.status = 'running' AND NEW.status IN ('done', 'failed', 'canceled', 'queued'))
    );
    DELETE FROM job_ready WHERE OLD.status = 'queued' AND NEW.status = 'canceled' AND tenant_id = OLD.tenant_id
        AND queue = OLD.queue AND rank = -OLD.priority AND ready_at = OLD.ready_at AND low = OLD.id AND high = OLD.id;
    DELETE FROM job_gates WHERE OLD.status = 'queued' AND NEW.status = 'canceled' AND tenant_id = OLD.tenant_id
        AND job_id = OLD.id;
    DELETE FROM job_keys WHERE OLD.status = 'queued' AND NEW.status = 'canceled' AND tenant_id = OLD.tenant_id
        AND unique_key = OLD.unique_key AND job_id = OLD.id;
    UPDATE jobs SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE NEW.updated_at = OLD.updated_at AND tenant_id = NEW.tenant_id AND id = NEW.id;
END;

-- Takes the narrow rows of a job along that direct SQL deleted.
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs
WHEN OLD.status IN ('queued', 'running')
BEGIN
    DELETE FROM job_ready WHERE tenant_id = OLD.tenant_id AND queue = OLD.queue AND rank = -OLD.priority
        AND ready_at = OLD.ready_at AND low = OLD.id AND high = OLD.id;
    DELETE FROM job_gates WHERE tenant_id = OLD.tenant_id AND job_id = OLD.id;
    DELETE FROM job_keys WHERE tenant_id = OLD.tenant_id AND unique_key = OLD.unique_key AND job_id = OLD.id;
END;

CREATE TRIGGER approvals_stamp AFTER UPDATE ON approvals WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE approvals SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER job_queues_stamp AFTER UPDATE ON job_queues WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE job_queues SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND name = NEW.name;
END;
CREATE TRIGGER job_schedules_stamp AFTER UPDATE ON job_schedules WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE job_schedules SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
