-- The store: tenants, users, agents, teams, sessions with their messages, and what belongs to them.
--
-- Every key starts with tenant_id; foreign keys stay inside the tenant. Times, ids and randomness come from the
-- application. The SQLite file of the same name makes the same tables.

-- Isolation units. Tenant 1 is the default one.
CREATE TABLE tenants (
    id int4 NOT NULL,
    name text COLLATE "C" NOT NULL,
    metadata jsonb NOT NULL,
    last_agent_id int8 NOT NULL DEFAULT 0,
    last_tenant_id int8 NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name)
);

-- People and systems that talk to agents.
CREATE TABLE users (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    email text COLLATE "C",
    phone_number text COLLATE "C",
    name text COLLATE "C",
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, email),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX users_by_phone_number ON users (tenant_id, phone_number);
CREATE INDEX users_by_created_at ON users (tenant_id, created_at, id);

-- Agents as they are now; every change is also kept in agent_versions.
CREATE TABLE agents (
    tenant_id int4 NOT NULL,
    id int8 NOT NULL,
    name text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    model text COLLATE "C",
    description text COLLATE "C",
    config jsonb NOT NULL,
    version int8 NOT NULL,
    active bool NOT NULL,
    run_id int8 NOT NULL,
    persona jsonb NOT NULL,
    tools jsonb NOT NULL,
    sub_agents jsonb NOT NULL,
    planner text COLLATE "C",
    usage_count int8 NOT NULL,
    last_used_at timestamptz,
    deleted_at timestamptz,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX agents_by_name ON agents (tenant_id, name) WHERE deleted_at IS NULL;
CREATE INDEX agents_by_created_at ON agents (tenant_id, created_at, id);

-- One row for every change of an agent: the whole agent as it was after it.
CREATE TABLE agent_versions (
    tenant_id int4 NOT NULL,
    agent_id int8 NOT NULL,
    number int8 NOT NULL,
    id uuid NOT NULL,
    snapshot jsonb NOT NULL,
    author text COLLATE "C",
    note text COLLATE "C",
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, number),
    UNIQUE (tenant_id, id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
);

-- Teams of agents.
CREATE TABLE teams (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('route', 'coordinate', 'collaborate')),
    routing jsonb NOT NULL,
    active bool NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX teams_by_created_at ON teams (tenant_id, created_at, id);

-- Who is in a team, at which place.
CREATE TABLE team_members (
    tenant_id int4 NOT NULL,
    team_id uuid NOT NULL,
    position int8 NOT NULL,
    agent_id int8 NOT NULL,
    role text COLLATE "C",
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, team_id, position),
    UNIQUE (tenant_id, team_id, agent_id),
    FOREIGN KEY (tenant_id, team_id) REFERENCES teams (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX team_members_by_agent ON team_members (tenant_id, agent_id);

-- Conversations. agent_id and team_id are soft references: a conversation outlives both.
CREATE TABLE sessions (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    user_id uuid,
    agent_id int8,
    team_id uuid,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('agent', 'team', 'workflow')),
    name text COLLATE "C",
    platform text COLLATE "C",
    chat_id text COLLATE "C",
    status text COLLATE "C" NOT NULL CHECK (status IN ('active', 'finished', 'archived', 'deleted')),
    state jsonb NOT NULL,
    metadata jsonb NOT NULL,
    finished_at timestamptz,
    revision int8 NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX sessions_by_chat ON sessions (tenant_id, platform, chat_id) WHERE chat_id IS NOT NULL;
CREATE INDEX sessions_by_created_at ON sessions (tenant_id, created_at, id);
CREATE INDEX sessions_by_user ON sessions (tenant_id, user_id, created_at, id);
CREATE INDEX sessions_by_agent ON sessions (tenant_id, agent_id, created_at, id);
CREATE INDEX sessions_by_metadata ON sessions USING gin (metadata jsonb_path_ops);

-- What every append moves: the counter that gives a session's messages their seq. Narrow and apart from
-- sessions, so that an append touches as few pages as possible. Beside it the counter of the session's events, and
-- how often one of its messages was changed or deleted.
CREATE TABLE session_heads (
    tenant_id int4 NOT NULL,
    session_id uuid NOT NULL,
    last_seq int8 NOT NULL,
    message_count int8 NOT NULL,
    last_event int8 NOT NULL DEFAULT 0,
    edits int8 NOT NULL DEFAULT 0,
    last_message_at timestamptz,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50);

-- The entries of a session. They hang from its head, whose row an append has locked already: by triggers, not by a
-- foreign key, see below. JSON that is never searched is kept as text, exactly as it came.
CREATE TABLE messages (
    tenant_id int4 NOT NULL,
    session_id uuid NOT NULL,
    seq int8 NOT NULL,
    id uuid NOT NULL,
    role text COLLATE "C" NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    type text COLLATE "C" NOT NULL CHECK (type IN ('text', 'tool_call', 'tool_response', 'thinking', 'error')),
    is_streaming bool NOT NULL,
    is_complete bool NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    content text COLLATE "C",
    metadata jsonb NOT NULL,
    parts text,
    tool_calls text,
    tool_name text COLLATE "C",
    tool_args text,
    tool_call_id text COLLATE "C",
    channel_payload text,
    author_user_id uuid,
    agent_id int8,
    platform_message_id text COLLATE "C",
    usage text,
    extra text,
    PRIMARY KEY (tenant_id, session_id, seq),
    UNIQUE (tenant_id, id)
);
CREATE UNIQUE INDEX messages_by_platform_message_id ON messages (tenant_id, session_id, platform_message_id) WHERE platform_message_id IS NOT NULL;

-- What belongs to a message beside its text: transcripts, images, files, tool results.
CREATE TABLE artifacts (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    message_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('voice_transcript', 'image_json', 'ocr_text', 'file_meta', 'tool_result')),
    content jsonb NOT NULL,
    uri text COLLATE "C",
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX artifacts_by_message ON artifacts (tenant_id, message_id, id);
CREATE INDEX artifacts_by_session ON artifacts (tenant_id, session_id, id);

-- What agents remember. agent_key and user_key repeat agent_id and user_id with 0 and the nil UUID for none, so
-- that the unique key takes absent values as equal.
CREATE TABLE memories (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    agent_id int8,
    user_id uuid,
    session_id uuid,
    agent_key int8 NOT NULL,
    user_key uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    content text COLLATE "C" NOT NULL,
    read_mode text COLLATE "C",
    access text COLLATE "C",
    expires_at timestamptz,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, agent_key, user_key, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX memories_by_agent ON memories (tenant_id, agent_id, created_at, id);
CREATE INDEX memories_by_user ON memories (tenant_id, user_id, created_at, id);
CREATE INDEX memories_by_session ON memories (tenant_id, session_id);
CREATE INDEX memories_by_created_at ON memories (tenant_id, created_at, id);
CREATE INDEX memories_by_expires_at ON memories (tenant_id, expires_at) WHERE expires_at IS NOT NULL;

-- Versions of prompts; at most one is active for an agent and name. agent_key repeats agent_id with 0 for none.
CREATE TABLE prompts (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    agent_id int8,
    agent_key int8 NOT NULL,
    name text COLLATE "C" NOT NULL,
    version int8 NOT NULL,
    text text COLLATE "C" NOT NULL,
    active bool NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, agent_key, name, version),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX prompts_active ON prompts (tenant_id, agent_key, name) WHERE active;
CREATE INDEX prompts_by_agent ON prompts (tenant_id, agent_id);
CREATE INDEX prompts_by_created_at ON prompts (tenant_id, created_at, id);

-- The row that a new version or an activation of a prompt locks, and the number given last.
CREATE TABLE prompt_heads (
    tenant_id int4 NOT NULL,
    agent_id int8,
    agent_key int8 NOT NULL,
    name text COLLATE "C" NOT NULL,
    last_version int8 NOT NULL,
    PRIMARY KEY (tenant_id, agent_key, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
);

-- Preferences of users by category.
CREATE TABLE preferences (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    category text COLLATE "C" NOT NULL,
    preferences jsonb NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, user_id, category),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX preferences_by_value ON preferences USING gin (preferences jsonb_path_ops);
CREATE INDEX preferences_by_category ON preferences (tenant_id, category, created_at, id);
CREATE INDEX preferences_by_created_at ON preferences (tenant_id, created_at, id);

-- MCP servers. env and headers hold secrets.
CREATE TABLE mcp_servers (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    transport text COLLATE "C" NOT NULL CHECK (transport IN ('stdio', 'http', 'sse')),
    command jsonb NOT NULL,
    url text COLLATE "C",
    env jsonb NOT NULL,
    headers jsonb NOT NULL,
    enabled bool NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('stopped', 'starting', 'running', 'stopping', 'error')),
    last_error text COLLATE "C",
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX mcp_servers_by_created_at ON mcp_servers (tenant_id, created_at, id);

-- Which agent uses which MCP server, with which of its tools.
CREATE TABLE agent_mcp_servers (
    tenant_id int4 NOT NULL,
    agent_id int8 NOT NULL,
    mcp_server_id uuid NOT NULL,
    enabled bool NOT NULL,
    tools jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, mcp_server_id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, mcp_server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX agent_mcp_servers_by_server ON agent_mcp_servers (tenant_id, mcp_server_id);

-- Samples of named measures.
CREATE TABLE metrics (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    value float8 NOT NULL,
    labels jsonb NOT NULL,
    recorded_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX metrics_by_name ON metrics (tenant_id, name, recorded_at, id);
CREATE INDEX metrics_by_recorded_at ON metrics (tenant_id, recorded_at, id);

-- Which agent a team chose for a message, and why.
CREATE TABLE routing_decisions (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    team_id uuid NOT NULL,
    session_id uuid,
    message_id uuid,
    agent_id int8,
    candidates jsonb NOT NULL,
    reason text COLLATE "C",
    latency_ms float8,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, team_id) REFERENCES teams (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX routing_decisions_by_team ON routing_decisions (tenant_id, team_id, created_at, id);
CREATE INDEX routing_decisions_by_session ON routing_decisions (tenant_id, session_id, created_at, id);
CREATE INDEX routing_decisions_by_message ON routing_decisions (tenant_id, message_id);
CREATE INDEX routing_decisions_by_created_at ON routing_decisions (tenant_id, created_at, id);

-- What a resumable run of an agent needs to go on.
CREATE TABLE checkpoints (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    parent_id uuid,
    channel_values text NOT NULL,
    pending_writes text NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX checkpoints_by_session ON checkpoints (tenant_id, session_id, namespace, created_at, id);

-- Stamps a row that direct SQL changed without saying when. The one place where the database's clock is read:
-- the application always says when.
CREATE FUNCTION agentkeep_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at AND NEW IS DISTINCT FROM OLD THEN
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;
-- Counting ids is no change of a tenant.
CREATE TRIGGER tenants_stamp BEFORE UPDATE OF name, metadata ON tenants FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER users_stamp BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER agents_stamp BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER teams_stamp BEFORE UPDATE ON teams FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER sessions_stamp BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER messages_stamp BEFORE UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER artifacts_stamp BEFORE UPDATE ON artifacts FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER memories_stamp BEFORE UPDATE ON memories FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER prompts_stamp BEFORE UPDATE ON prompts FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER preferences_stamp BEFORE UPDATE ON preferences FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER mcp_servers_stamp BEFORE UPDATE ON mcp_servers FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER agent_mcp_servers_stamp BEFORE UPDATE ON agent_mcp_servers FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER checkpoints_stamp BEFORE UPDATE ON checkpoints FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();

-- What a foreign key from messages to session_heads would do, but for the rows of an append: its statement has just
-- changed the head, and a foreign key would look for that head and lock it once more for every row. Connections that
-- run nothing but appends say so (agentkeep.appends); on all others each row is checked.
CREATE FUNCTION agentkeep_message_needs_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM session_heads h
    WHERE h.tenant_id = NEW.tenant_id AND h.session_id = NEW.session_id AND h.xmin = pg_current_xact_id()::xid;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    -- Changed, not only locked: whoever deletes the head with an older snapshot would not see this message.
    UPDATE session_heads SET edits = edits WHERE tenant_id = NEW.tenant_id AND session_id = NEW.session_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', TABLE = 'messages',
            MESSAGE = format('message %s belongs to session %s, which does not exist', NEW.id, NEW.session_id);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER messages_need_head AFTER INSERT ON messages FOR EACH ROW
WHEN (current_setting('agentkeep.appends', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION agentkeep_message_needs_head();
CREATE TRIGGER messages_move AFTER UPDATE OF tenant_id, session_id ON messages FOR EACH ROW
WHEN (OLD.tenant_id <> NEW.tenant_id OR OLD.session_id <> NEW.session_id)
EXECUTE FUNCTION agentkeep_message_needs_head();

CREATE FUNCTION agentkeep_head_goes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM messages WHERE tenant_id = OLD.tenant_id AND session_id = OLD.session_id;
    ELSIF EXISTS (SELECT 1 FROM messages WHERE tenant_id = OLD.tenant_id AND session_id = OLD.session_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', TABLE = 'session_heads',
            MESSAGE = format('session %s has messages; its head cannot become that of another', OLD.session_id);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER session_heads_delete AFTER DELETE ON session_heads FOR EACH ROW
EXECUTE FUNCTION agentkeep_head_goes();
CREATE TRIGGER session_heads_move AFTER UPDATE OF tenant_id, session_id ON session_heads FOR EACH ROW
WHEN (OLD.tenant_id <> NEW.tenant_id OR OLD.session_id <> NEW.session_id)
EXECUTE FUNCTION agentkeep_head_goes();

CREATE FUNCTION agentkeep_heads_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM messages) THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', TABLE = 'session_heads',
            MESSAGE = 'sessions cannot be truncated without their messages',
            HINT = 'Truncate messages in the same statement.';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER session_heads_truncate AFTER TRUNCATE ON session_heads FOR EACH STATEMENT
EXECUTE FUNCTION agentkeep_heads_truncated();

-- JSON merge patch, RFC 7396.
CREATE FUNCTION agentkeep_merge_patch(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    result jsonb;
    field record;
BEGIN
    IF jsonb_typeof(patch) IS DISTINCT FROM 'object' THEN
        RETURN patch;
    END IF;
    result := CASE WHEN jsonb_typeof(target) = 'object' THEN target ELSE '{}'::jsonb END;
    FOR field IN SELECT key, value FROM jsonb_each(patch) LOOP
        IF jsonb_typeof(field.value) = 'null' THEN
            result := result - field.key;
        ELSIF jsonb_typeof(field.value) = 'object' THEN
            result := jsonb_set(result, ARRAY[field.key], agentkeep_merge_patch(result -> field.key, field.value), true);
        ELSE
            result := jsonb_set(result, ARRAY[field.key], field.value, true);
        END IF;
    END LOOP;
    RETURN result;
END
$$;

-- The tenant that needs no mention.
INSERT INTO tenants (id, name, metadata, last_tenant_id, created_at, updated_at)
VALUES (1, 'default', '{}', 1, '1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z');
