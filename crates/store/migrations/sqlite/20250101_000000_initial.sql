-- The store: tenants, users, agents, teams, sessions with their messages, and what belongs to them.
--
-- The same tables as the PostgreSQL file of the same name. UUIDs are 16 bytes, times are microseconds since 1970,
-- truth values 0 or 1, JSON is text. Words are checked one by one: for an IN with more than two of them SQLite builds a
-- table each time a row is written.

-- Isolation units. Tenant 1 is the default one.
CREATE TABLE tenants (
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    last_agent_id INTEGER NOT NULL DEFAULT 0,
    last_tenant_id INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name)
) STRICT, WITHOUT ROWID;

-- People and systems that talk to agents.
CREATE TABLE users (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    email TEXT,
    phone_number TEXT,
    name TEXT,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, email),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX users_by_phone_number ON users (tenant_id, phone_number);
CREATE INDEX users_by_created_at ON users (tenant_id, created_at, id);

-- Agents as they are now; every change is also kept in agent_versions.
CREATE TABLE agents (
    tenant_id INTEGER NOT NULL,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    model TEXT,
    description TEXT,
    config TEXT NOT NULL CHECK (json_valid(config)),
    version INTEGER NOT NULL,
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    run_id INTEGER NOT NULL,
    persona TEXT NOT NULL CHECK (json_valid(persona)),
    tools TEXT NOT NULL CHECK (json_valid(tools)),
    sub_agents TEXT NOT NULL CHECK (json_valid(sub_agents)),
    planner TEXT,
    usage_count INTEGER NOT NULL,
    last_used_at INTEGER,
    deleted_at INTEGER,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX agents_by_name ON agents (tenant_id, name) WHERE deleted_at IS NULL;
CREATE INDEX agents_by_created_at ON agents (tenant_id, created_at, id);

-- One row for every change of an agent: the whole agent as it was after it.
CREATE TABLE agent_versions (
    tenant_id INTEGER NOT NULL,
    agent_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    snapshot TEXT NOT NULL CHECK (json_valid(snapshot)),
    author TEXT,
    note TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, number),
    UNIQUE (tenant_id, id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
) STRICT;

-- Teams of agents.
CREATE TABLE teams (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    name TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode = 'route' OR mode = 'coordinate' OR mode = 'collaborate'),
    routing TEXT NOT NULL CHECK (json_valid(routing)),
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX teams_by_created_at ON teams (tenant_id, created_at, id);

-- Who is in a team, at which place.
CREATE TABLE team_members (
    tenant_id INTEGER NOT NULL,
    team_id BLOB NOT NULL CHECK (length(team_id) = 16),
    position INTEGER NOT NULL,
    agent_id INTEGER NOT NULL,
    role TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, team_id, position),
    UNIQUE (tenant_id, team_id, agent_id),
    FOREIGN KEY (tenant_id, team_id) REFERENCES teams (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX team_members_by_agent ON team_members (tenant_id, agent_id);

-- Conversations. agent_id and team_id are soft references: a conversation outlives both.
CREATE TABLE sessions (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    user_id BLOB CHECK (length(user_id) = 16),
    agent_id INTEGER,
    team_id BLOB CHECK (length(team_id) = 16),
    kind TEXT NOT NULL CHECK (kind = 'agent' OR kind = 'team' OR kind = 'workflow'),
    name TEXT,
    platform TEXT,
    chat_id TEXT,
    status TEXT NOT NULL CHECK (status = 'active' OR status = 'finished' OR status = 'archived' OR status = 'deleted'),
    state TEXT NOT NULL CHECK (json_valid(state)),
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    finished_at INTEGER,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX sessions_by_chat ON sessions (tenant_id, platform, chat_id) WHERE chat_id IS NOT NULL;
CREATE INDEX sessions_by_created_at ON sessions (tenant_id, created_at, id);
CREATE INDEX sessions_by_user ON sessions (tenant_id, user_id, created_at, id);
CREATE INDEX sessions_by_agent ON sessions (tenant_id, agent_id, created_at, id);

-- What every append moves: the counter that gives a session's messages their seq. Narrow and apart from
-- sessions, so that an append touches as few pages as possible. Beside it the counter of the session's events, and
-- how often one of its messages was changed or deleted.
CREATE TABLE session_heads (
    tenant_id INTEGER NOT NULL,
    session_id BLOB NOT NULL CHECK (length(session_id) = 16),
    last_seq INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    last_event INTEGER NOT NULL DEFAULT 0,
    edits INTEGER NOT NULL DEFAULT 0,
    last_message_at INTEGER,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The entries of a session. They hang from its head, whose row an append has locked already. JSON that is never
-- searched is kept as text, exactly as it came.
CREATE TABLE messages (
    tenant_id INTEGER NOT NULL,
    session_id BLOB NOT NULL CHECK (length(session_id) = 16),
    seq INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    role TEXT NOT NULL CHECK (role = 'user' OR role = 'assistant' OR role = 'system' OR role = 'tool'),
    type TEXT NOT NULL
        CHECK (type = 'text' OR type = 'tool_call' OR type = 'tool_response' OR type = 'thinking' OR type = 'error'),
    is_streaming INTEGER NOT NULL CHECK (is_streaming IN (0, 1)),
    is_complete INTEGER NOT NULL CHECK (is_complete IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    content TEXT,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    parts TEXT,
    tool_calls TEXT,
    tool_name TEXT,
    tool_args TEXT,
    tool_call_id TEXT,
    channel_payload TEXT,
    author_user_id BLOB CHECK (length(author_user_id) = 16),
    agent_id INTEGER,
    platform_message_id TEXT,
    usage TEXT,
    extra TEXT,
    PRIMARY KEY (tenant_id, session_id, seq),
    UNIQUE (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES session_heads (tenant_id, session_id) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX messages_by_platform_message_id ON messages (tenant_id, session_id, platform_message_id) WHERE platform_message_id IS NOT NULL;

-- What belongs to a message beside its text: transcripts, images, files, tool results.
CREATE TABLE artifacts (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    session_id BLOB NOT NULL CHECK (length(session_id) = 16),
    message_id BLOB NOT NULL CHECK (length(message_id) = 16),
    kind TEXT NOT NULL
        CHECK (kind = 'voice_transcript' OR kind = 'image_json' OR kind = 'ocr_text' OR kind = 'file_meta'
            OR kind = 'tool_result'),
    content TEXT NOT NULL CHECK (json_valid(content)),
    uri TEXT,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX artifacts_by_message ON artifacts (tenant_id, message_id, id);
CREATE INDEX artifacts_by_session ON artifacts (tenant_id, session_id, id);

-- What agents remember. agent_key and user_key repeat agent_id and user_id with 0 and the nil UUID for none, so
-- that the unique key takes absent values as equal.
CREATE TABLE memories (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    agent_id INTEGER,
    user_id BLOB CHECK (length(user_id) = 16),
    session_id BLOB CHECK (length(session_id) = 16),
    agent_key INTEGER NOT NULL,
    user_key BLOB NOT NULL CHECK (length(user_key) = 16),
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    read_mode TEXT,
    access TEXT,
    expires_at INTEGER,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, agent_key, user_key, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX memories_by_agent ON memories (tenant_id, agent_id, created_at, id);
CREATE INDEX memories_by_user ON memories (tenant_id, user_id, created_at, id);
CREATE INDEX memories_by_session ON memories (tenant_id, session_id);
CREATE INDEX memories_by_created_at ON memories (tenant_id, created_at, id);
CREATE INDEX memories_by_expires_at ON memories (tenant_id, expires_at) WHERE expires_at IS NOT NULL;

-- Versions of prompts; at most one is active for an agent and name. agent_key repeats agent_id with 0 for none.
CREATE TABLE prompts (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    agent_id INTEGER,
    agent_key INTEGER NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    text TEXT NOT NULL,
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, agent_key, name, version),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX prompts_active ON prompts (tenant_id, agent_key, name) WHERE active;
CREATE INDEX prompts_by_agent ON prompts (tenant_id, agent_id);
CREATE INDEX prompts_by_created_at ON prompts (tenant_id, created_at, id);

-- The row that a new version or an activation of a prompt locks, and the number given last.
CREATE TABLE prompt_heads (
    tenant_id INTEGER NOT NULL,
    agent_id INTEGER,
    agent_key INTEGER NOT NULL,
    name TEXT NOT NULL,
    last_version INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, agent_key, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Preferences of users by category.
CREATE TABLE preferences (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    user_id BLOB NOT NULL CHECK (length(user_id) = 16),
    category TEXT NOT NULL,
    preferences TEXT NOT NULL CHECK (json_valid(preferences)),
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, user_id, category),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX preferences_by_category ON preferences (tenant_id, category, created_at, id);
CREATE INDEX preferences_by_created_at ON preferences (tenant_id, created_at, id);

-- MCP servers. env and headers hold secrets.
CREATE TABLE mcp_servers (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    name TEXT NOT NULL,
    transport TEXT NOT NULL CHECK (transport = 'stdio' OR transport = 'http' OR transport = 'sse'),
    command TEXT NOT NULL CHECK (json_valid(command)),
    url TEXT,
    env TEXT NOT NULL CHECK (json_valid(env)),
    headers TEXT NOT NULL CHECK (json_valid(headers)),
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    status TEXT NOT NULL
        CHECK (status = 'stopped' OR status = 'starting' OR status = 'running' OR status = 'stopping'
            OR status = 'error'),
    last_error TEXT,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX mcp_servers_by_created_at ON mcp_servers (tenant_id, created_at, id);

-- Which agent uses which MCP server, with which of its tools.
CREATE TABLE agent_mcp_servers (
    tenant_id INTEGER NOT NULL,
    agent_id INTEGER NOT NULL,
    mcp_server_id BLOB NOT NULL CHECK (length(mcp_server_id) = 16),
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    tools TEXT CHECK (json_valid(tools)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, mcp_server_id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, mcp_server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_mcp_servers_by_server ON agent_mcp_servers (tenant_id, mcp_server_id);

-- Samples of named measures.
CREATE TABLE metrics (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    name TEXT NOT NULL,
    value REAL NOT NULL,
    labels TEXT NOT NULL CHECK (json_valid(labels)),
    recorded_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX metrics_by_name ON metrics (tenant_id, name, recorded_at, id);
CREATE INDEX metrics_by_recorded_at ON metrics (tenant_id, recorded_at, id);

-- Which agent a team chose for a message, and why.
CREATE TABLE routing_decisions (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    team_id BLOB NOT NULL CHECK (length(team_id) = 16),
    session_id BLOB CHECK (length(session_id) = 16),
    message_id BLOB CHECK (length(message_id) = 16),
    agent_id INTEGER,
    candidates TEXT NOT NULL CHECK (json_valid(candidates)),
    reason TEXT,
    latency_ms REAL,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, team_id) REFERENCES teams (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX routing_decisions_by_team ON routing_decisions (tenant_id, team_id, created_at, id);
CREATE INDEX routing_decisions_by_session ON routing_decisions (tenant_id, session_id, created_at, id);
CREATE INDEX routing_decisions_by_message ON routing_decisions (tenant_id, message_id);
CREATE INDEX routing_decisions_by_created_at ON routing_decisions (tenant_id, created_at, id);

-- What a resumable run of an agent needs to go on.
CREATE TABLE checkpoints (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    session_id BLOB NOT NULL CHECK (length(session_id) = 16),
    namespace TEXT NOT NULL,
    parent_id BLOB CHECK (length(parent_id) = 16),
    channel_values TEXT NOT NULL,
    pending_writes TEXT NOT NULL,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX checkpoints_by_session ON checkpoints (tenant_id, session_id, namespace, created_at, id);

-- Stamps a row that direct SQL changed without saying when. The one place where the database's clock is read:
-- the application always says when.
-- Counting ids is no change of a tenant.
CREATE TRIGGER tenants_stamp AFTER UPDATE OF name, metadata ON tenants WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE tenants SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE id = NEW.id;
END;
CREATE TRIGGER users_stamp AFTER UPDATE ON users WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE users SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER agents_stamp AFTER UPDATE ON agents WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE agents SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER teams_stamp AFTER UPDATE ON teams WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE teams SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER sessions_stamp AFTER UPDATE ON sessions WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE sessions SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER messages_stamp AFTER UPDATE ON messages WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE messages SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER artifacts_stamp AFTER UPDATE ON artifacts WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE artifacts SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER memories_stamp AFTER UPDATE ON memories WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE memories SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER prompts_stamp AFTER UPDATE ON prompts WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE prompts SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER preferences_stamp AFTER UPDATE ON preferences WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE preferences SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER mcp_servers_stamp AFTER UPDATE ON mcp_servers WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE mcp_servers SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER agent_mcp_servers_stamp AFTER UPDATE ON agent_mcp_servers WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE agent_mcp_servers SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND agent_id = NEW.agent_id AND mcp_server_id = NEW.mcp_server_id;
END;
CREATE TRIGGER checkpoints_stamp AFTER UPDATE ON checkpoints WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE checkpoints SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;

-- The tenant that needs no mention.
INSERT INTO tenants (id, name, metadata, last_tenant_id, created_at, updated_at) VALUES (1, 'default', '{}', 1, 0, 0);
