-- What happens in a session while it is watched: messages that are streamed in, and the runs of agents that bring
-- them. The SQLite file of the same name makes the same tables.

-- Numbered from 1 in each session, without gaps until the oldest are pruned. They hang from the head of their session,
-- whose row gives the number. A seq is the one of the message, or of the newest message at that time.
CREATE TABLE session_events (
    tenant_id int4 NOT NULL,
    session_id uuid NOT NULL,
    number int8 NOT NULL,
    seq int8 NOT NULL,
    created_at timestamptz NOT NULL,
    message_id uuid,
    run_id uuid,
    type text COLLATE "C" NOT NULL
        CHECK (type IN ('message.started', 'message.delta', 'message.completed', 'message.incomplete',
            'message.updated', 'message.deleted', 'run.started', 'run.completed', 'run.failed', 'run.resumed',
            'tool_calls.requested')),
    data text NOT NULL,
    PRIMARY KEY (tenant_id, session_id, number),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session_heads (tenant_id, session_id) ON DELETE CASCADE
);
-- Which messages were streamed in.
CREATE INDEX session_events_started ON session_events (tenant_id, session_id, seq) WHERE type = 'message.started';
-- What is old enough to be pruned.
CREATE INDEX session_events_by_created_at ON session_events (tenant_id, created_at, session_id, number);

-- One answer of an agent in a session, written by whoever holds its lease.
CREATE TABLE runs (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    agent_id int8,
    status text COLLATE "C" NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'waiting')),
    owner text COLLATE "C" NOT NULL,
    lease_until timestamptz NOT NULL,
    first_seq int8 NOT NULL,
    first_event int8 NOT NULL,
    error text,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session_heads (tenant_id, session_id) ON DELETE CASCADE
);
CREATE INDEX runs_by_session ON runs (tenant_id, session_id, created_at, id);
CREATE INDEX runs_by_created_at ON runs (tenant_id, created_at, id);
-- Whose lease may be over.
CREATE INDEX runs_by_lease ON runs (tenant_id, lease_until, id) WHERE status = 'running';

CREATE TRIGGER runs_stamp BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
