-- Money: prices of tokens, the ledger with its roll-ups, budgets and their reservations.
--
-- Amounts are whole numbers of 10^-12 US dollars. The same tables as the PostgreSQL file of the same
-- name. UUIDs are 16 bytes, times are microseconds since 1970, truth values 0 or 1, JSON is text.

-- One row for each model that has prices: locked while they change, so that no two of them overlap.
CREATE TABLE price_models (
    tenant_id INTEGER NOT NULL,
    model TEXT NOT NULL,
    changes INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, model),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What one token of a kind costs, from a time on and before another.
CREATE TABLE prices (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    provider TEXT,
    model TEXT NOT NULL,
    kind TEXT NOT NULL
        CHECK (kind = 'input' OR kind = 'output' OR kind = 'cache_read' OR kind = 'cache_write' OR kind = 'reasoning'),
    per_token INTEGER NOT NULL CHECK (per_token >= 0),
    valid_from INTEGER NOT NULL,
    valid_to INTEGER CHECK (valid_to > valid_from),
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, model) REFERENCES price_models (tenant_id, model) ON DELETE CASCADE
) STRICT;
CREATE INDEX prices_by_model ON prices (tenant_id, model, kind, valid_from);
CREATE INDEX prices_by_created_at ON prices (tenant_id, created_at, id);

-- One row for each tenant that has a ledger. Whoever moves the roll-ups locks it and counts the version up, so that
-- a reader notices a move between two of its statements.
CREATE TABLE ledger_heads (
    tenant_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    last_series_id INTEGER NOT NULL,
    PRIMARY KEY (tenant_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What each call of a model used and cost. Agent, user, session, message, job and reservation are soft references:
-- the history of cost outlives what it was spent on. Entries go with the head, by the trigger below.
CREATE TABLE ledger (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    created_at INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    total INTEGER NOT NULL,
    cost INTEGER,
    agent_id INTEGER,
    user_id BLOB CHECK (length(user_id) = 16),
    session_id BLOB CHECK (length(session_id) = 16),
    message_id BLOB CHECK (length(message_id) = 16),
    job_id BLOB CHECK (length(job_id) = 16),
    reservation_id BLOB CHECK (length(reservation_id) = 16),
    scope TEXT NOT NULL CHECK (scope = 'proactive' OR scope = 'reactive'),
    provider TEXT NOT NULL,
    model TEXT,
    request_id TEXT,
    tags TEXT NOT NULL CHECK (json_valid(tags)),
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    -- Whole hours from 1970 to created_at.
    hour INTEGER NOT NULL GENERATED ALWAYS AS (created_at / 3600000000) VIRTUAL,
    PRIMARY KEY (tenant_id, id),
    CHECK (
        input >= 0 AND output >= 0 AND cache_read >= 0 AND cache_write >= 0 AND reasoning >= 0 AND (cost IS NULL OR cost >= 0)
        AND total = input + output + cache_read + cache_write + reasoning
    )
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_by_created_at ON ledger (tenant_id, created_at, id);
CREATE UNIQUE INDEX ledger_by_request ON ledger (tenant_id, request_id) WHERE request_id IS NOT NULL;
-- By hour first: the entries of an hour come together, whoever they belong to, so that a batch changes the few pages
-- of its hours. With the user first it would change a page for each.
CREATE INDEX ledger_by_user ON ledger (tenant_id, hour, user_id) WHERE user_id IS NOT NULL;
CREATE INDEX ledger_by_session ON ledger (tenant_id, hour, session_id) WHERE session_id IS NOT NULL;
CREATE INDEX ledger_by_job ON ledger (tenant_id, job_id) WHERE job_id IS NOT NULL;

-- What was logged and is not in the roll-ups yet: the sums of each batch, written with it. Moving them into the
-- roll-ups deletes them in the same transaction.
CREATE TABLE ledger_tail (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    entries INTEGER NOT NULL,
    sums BLOB NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES ledger_heads (tenant_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What roll-ups are apart by. A model of '' and an agent of 0 stand for none.
CREATE TABLE ledger_series (
    tenant_id INTEGER NOT NULL,
    id INTEGER NOT NULL,
    scope TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    agent_id INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, scope, provider, model, agent_id),
    FOREIGN KEY (tenant_id) REFERENCES ledger_heads (tenant_id) ON DELETE CASCADE
) STRICT;

-- Sums of the entries of a block of series (128 of them: id / 128) in an hour, a day (24 hours) or a week (168 hours,
-- from Monday). start counts hours since 1970; sums holds nine numbers for each series, see ledger_sums.rs. With a
-- rowid, since a row of a table without one has no room for so long a value.
CREATE TABLE ledger_rollups (
    tenant_id INTEGER NOT NULL,
    hours INTEGER NOT NULL,
    start INTEGER NOT NULL,
    block INTEGER NOT NULL,
    sums BLOB NOT NULL,
    PRIMARY KEY (tenant_id, hours, start, block),
    FOREIGN KEY (tenant_id) REFERENCES ledger_heads (tenant_id) ON DELETE CASCADE
) STRICT;

-- What may be spent in a period.
CREATE TABLE budgets (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    name TEXT,
    scope TEXT NOT NULL CHECK (scope = 'tenant' OR scope = 'user' OR scope = 'agent' OR scope = 'model'),
    user_id BLOB CHECK (length(user_id) = 16),
    agent_id INTEGER,
    model TEXT,
    period TEXT NOT NULL
        CHECK (period = 'hour' OR period = 'day' OR period = 'week' OR period = 'month' OR period = 'total'),
    amount INTEGER NOT NULL CHECK (amount > 0),
    hard INTEGER NOT NULL CHECK (hard IN (0, 1)),
    counts_from INTEGER NOT NULL,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CHECK ((scope = 'user') = (user_id IS NOT NULL)),
    CHECK ((scope = 'agent') = (agent_id IS NOT NULL)),
    CHECK ((scope = 'model') = (model IS NOT NULL)),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX budgets_by_created_at ON budgets (tenant_id, created_at, id);
CREATE INDEX budgets_by_user ON budgets (tenant_id, user_id);
CREATE INDEX budgets_by_agent ON budgets (tenant_id, agent_id);

-- What was spent of a budget in a period. Its row is locked while something of the budget is reserved.
CREATE TABLE budget_periods (
    tenant_id INTEGER NOT NULL,
    budget_id BLOB NOT NULL CHECK (length(budget_id) = 16),
    starts_at INTEGER NOT NULL,
    spent INTEGER NOT NULL CHECK (spent >= 0),
    PRIMARY KEY (tenant_id, budget_id, starts_at),
    FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Amounts reserved for work that is about to cost.
CREATE TABLE budget_reservations (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    key TEXT,
    user_id BLOB CHECK (length(user_id) = 16),
    agent_id INTEGER,
    model TEXT,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    status TEXT NOT NULL CHECK (status = 'held' OR status = 'settled' OR status = 'released'),
    cost INTEGER NOT NULL CHECK (cost >= 0),
    -- NULL for a reservation of a job: that ends with the attempt. The job is a soft reference.
    expires_at INTEGER,
    job_id BLOB CHECK (length(job_id) = 16),
    job_attempt INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, key),
    CHECK ((expires_at IS NULL) = (job_id IS NOT NULL AND job_attempt IS NOT NULL)),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX budget_reservations_by_created_at ON budget_reservations (tenant_id, created_at, id);
CREATE INDEX budget_reservations_held_by_job ON budget_reservations (tenant_id, job_id)
WHERE status = 'held' AND job_id IS NOT NULL;

-- What a reservation holds of each budget, until it is settled, released or expired.
CREATE TABLE budget_holds (
    tenant_id INTEGER NOT NULL,
    budget_id BLOB NOT NULL CHECK (length(budget_id) = 16),
    starts_at INTEGER NOT NULL,
    reservation_id BLOB NOT NULL CHECK (length(reservation_id) = 16),
    amount INTEGER NOT NULL CHECK (amount >= 0),
    expires_at INTEGER,
    PRIMARY KEY (tenant_id, budget_id, starts_at, reservation_id),
    FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, reservation_id) REFERENCES budget_reservations (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX budget_holds_by_reservation ON budget_holds (tenant_id, reservation_id);

CREATE TRIGGER prices_stamp AFTER UPDATE ON prices WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE prices SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER budgets_stamp AFTER UPDATE ON budgets WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE budgets SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
CREATE TRIGGER budget_reservations_stamp AFTER UPDATE ON budget_reservations WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE budget_reservations SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;

-- See ledger.
CREATE TRIGGER ledger_heads_delete AFTER DELETE ON ledger_heads
BEGIN
    DELETE FROM ledger WHERE tenant_id = OLD.tenant_id;
END;
