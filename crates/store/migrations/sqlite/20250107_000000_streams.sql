-- What happens in a session while it is watched: messages that are streamed in, and the runs of agents that bring
-- them. The same tables as the PostgreSQL file of the same name.

-- Numbered from 1 in each session, without gaps until the oldest are pruned. They hang from the head of their session,
-- whose row gives the number. A seq is the one of the message, or of the newest message at that time.
CREATE TABLE session_events (
    tenant_id INTEGER NOT NULL,
    session_id BLOB NOT NULL CHECK (length(session_id) = 16),
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    message_id BLOB CHECK (length(message_id) = 16),
    run_id BLOB CHECK (length(run_id) = 16),
    type TEXT NOT NULL
        CHECK (type = 'message.started' OR type = 'message.delta' OR type = 'message.completed'
            OR type = 'message.incomplete' OR type = 'message.updated' OR type = 'message.deleted'
            OR type = 'run.started' OR type = 'run.completed' OR type = 'run.failed' OR type = 'run.resumed'
            OR type = 'tool_calls.requested'),
    data TEXT NOT NULL,
    PRIMARY KEY (tenant_id, session_id, number),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session_heads (tenant_id, session_id) ON DELETE CASCADE
) STRICT;
-- Which messages were streamed in.
CREATE INDEX session_events_started ON session_events (tenant_id, session_id, seq) WHERE type = 'message.started';
-- What is old enough to be pruned.
CREATE INDEX session_events_by_created_at ON session_events (tenant_id, created_at, session_id, number);

-- One answer of an agent in a session, written by whoever holds its lease.
CREATE TABLE runs (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    session_id BLOB NOT NULL CHECK (length(session_id) = 16),
    agent_id INTEGER,
    status TEXT NOT NULL
        CHECK (status = 'running' OR status = 'completed' OR status = 'failed' OR status = 'waiting'),
    owner TEXT NOT NULL,
    lease_until INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    error TEXT,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    finished_at INTEGER,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session_heads (tenant_id, session_id) ON DELETE CASCADE
) STRICT;
CREATE INDEX runs_by_session ON runs (tenant_id, session_id, created_at, id);
CREATE INDEX runs_by_created_at ON runs (tenant_id, created_at, id);
-- Whose lease may be over.
CREATE INDEX runs_by_lease ON runs (tenant_id, lease_until, id) WHERE status = 'running';

CREATE TRIGGER runs_stamp AFTER UPDATE ON runs WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE runs SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
