-- Money: prices of tokens, the ledger with its roll-ups, budgets and their reservations.
--
-- Amounts are whole numbers of 10^-12 US dollars. The SQLite file of the same name makes the same tables.

-- One row for each model that has prices: locked while they change, so that no two of them overlap.
CREATE TABLE price_models (
    tenant_id int4 NOT NULL,
    model text COLLATE "C" NOT NULL,
    changes int8 NOT NULL,
    PRIMARY KEY (tenant_id, model),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);

-- What one token of a kind costs, from a time on and before another.
CREATE TABLE prices (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    provider text COLLATE "C",
    model text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('input', 'output', 'cache_read', 'cache_write', 'reasoning')),
    per_token int8 NOT NULL CHECK (per_token >= 0),
    valid_from timestamptz NOT NULL,
    valid_to timestamptz CHECK (valid_to > valid_from),
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, model) REFERENCES price_models (tenant_id, model) ON DELETE CASCADE
);
CREATE INDEX prices_by_model ON prices (tenant_id, model, kind, valid_from);
CREATE INDEX prices_by_created_at ON prices (tenant_id, created_at, id);

-- One row for each tenant that has a ledger. Whoever moves the roll-ups locks it and counts the version up, so that
-- a reader notices a move between two of its statements.
CREATE TABLE ledger_heads (
    tenant_id int4 NOT NULL,
    version int8 NOT NULL,
    last_series_id int8 NOT NULL,
    PRIMARY KEY (tenant_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);

-- What each call of a model used and cost. Agent, user, session, message, job and reservation are soft references:
-- the history of cost outlives what it was spent on. Entries go with the head, by the trigger below: a foreign key
-- would look for it once for each of them. Whoever logs holds the head by the row of ledger_tail.
CREATE TABLE ledger (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    input int8 NOT NULL,
    output int8 NOT NULL,
    cache_read int8 NOT NULL,
    cache_write int8 NOT NULL,
    reasoning int8 NOT NULL,
    total int8 NOT NULL,
    cost int8,
    agent_id int8,
    user_id uuid,
    session_id uuid,
    message_id uuid,
    job_id uuid,
    reservation_id uuid,
    scope text COLLATE "C" NOT NULL CHECK (scope = 'proactive' OR scope = 'reactive'),
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C",
    request_id text COLLATE "C",
    tags jsonb NOT NULL,
    metadata jsonb NOT NULL,
    -- Whole hours from 1970 to created_at.
    hour int4 NOT NULL GENERATED ALWAYS AS (
        ((created_at AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') * 24
        + CAST(date_part('hour', created_at AT TIME ZONE INTERVAL '0') AS int4)
    ) STORED,
    PRIMARY KEY (tenant_id, id),
    -- One check: each costs something with every row.
    CHECK (
        input >= 0 AND output >= 0 AND cache_read >= 0 AND cache_write >= 0 AND reasoning >= 0 AND (cost IS NULL OR cost >= 0)
        AND total = input + output + cache_read + cache_write + reasoning
    )
);
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
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    entries int8 NOT NULL,
    sums bytea NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES ledger_heads (tenant_id) ON DELETE CASCADE
);

-- What roll-ups are apart by. A model of '' and an agent of 0 stand for none.
CREATE TABLE ledger_series (
    tenant_id int4 NOT NULL,
    id int8 NOT NULL,
    scope text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    agent_id int8 NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, scope, provider, model, agent_id),
    FOREIGN KEY (tenant_id) REFERENCES ledger_heads (tenant_id) ON DELETE CASCADE
);

-- Sums of the entries of a block of series (128 of them: id / 128) in an hour, a day (24 hours) or a week (168 hours,
-- from Monday). start counts hours since 1970; sums holds nine numbers for each series, see ledger_sums.rs.
CREATE TABLE ledger_rollups (
    tenant_id int4 NOT NULL,
    hours int4 NOT NULL,
    start int8 NOT NULL,
    block int8 NOT NULL,
    sums bytea NOT NULL,
    PRIMARY KEY (tenant_id, hours, start, block),
    FOREIGN KEY (tenant_id) REFERENCES ledger_heads (tenant_id) ON DELETE CASCADE
) WITH (fillfactor = 80);
-- Packed already: to compress them costs more time than it saves room.
ALTER TABLE ledger_tail ALTER COLUMN sums SET STORAGE EXTERNAL;
ALTER TABLE ledger_rollups ALTER COLUMN sums SET STORAGE EXTERNAL;

-- What may be spent in a period.
CREATE TABLE budgets (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    name text COLLATE "C",
    scope text COLLATE "C" NOT NULL CHECK (scope IN ('tenant', 'user', 'agent', 'model')),
    user_id uuid,
    agent_id int8,
    model text COLLATE "C",
    period text COLLATE "C" NOT NULL CHECK (period IN ('hour', 'day', 'week', 'month', 'total')),
    amount int8 NOT NULL CHECK (amount > 0),
    hard bool NOT NULL,
    counts_from timestamptz NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CHECK ((scope = 'user') = (user_id IS NOT NULL)),
    CHECK ((scope = 'agent') = (agent_id IS NOT NULL)),
    CHECK ((scope = 'model') = (model IS NOT NULL)),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX budgets_by_created_at ON budgets (tenant_id, created_at, id);
CREATE INDEX budgets_by_user ON budgets (tenant_id, user_id);
CREATE INDEX budgets_by_agent ON budgets (tenant_id, agent_id);

-- What was spent of a budget in a period. Its row is locked while something of the budget is reserved.
CREATE TABLE budget_periods (
    tenant_id int4 NOT NULL,
    budget_id uuid NOT NULL,
    starts_at timestamptz NOT NULL,
    spent int8 NOT NULL CHECK (spent >= 0),
    PRIMARY KEY (tenant_id, budget_id, starts_at),
    FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id) ON DELETE CASCADE
);

-- Amounts reserved for work that is about to cost.
CREATE TABLE budget_reservations (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    key text COLLATE "C",
    user_id uuid,
    agent_id int8,
    model text COLLATE "C",
    amount int8 NOT NULL CHECK (amount >= 0),
    status text COLLATE "C" NOT NULL CHECK (status IN ('held', 'settled', 'released')),
    cost int8 NOT NULL CHECK (cost >= 0),
    -- NULL for a reservation of a job: that ends with the attempt. The job is a soft reference.
    expires_at timestamptz,
    job_id uuid,
    job_attempt int4,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, key),
    CHECK ((expires_at IS NULL) = (job_id IS NOT NULL AND job_attempt IS NOT NULL)),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX budget_reservations_by_created_at ON budget_reservations (tenant_id, created_at, id);
CREATE INDEX budget_reservations_held_by_job ON budget_reservations (tenant_id, job_id)
WHERE status = 'held' AND job_id IS NOT NULL;

-- What a reservation holds of each budget, until it is settled, released or expired.
CREATE TABLE budget_holds (
    tenant_id int4 NOT NULL,
    budget_id uuid NOT NULL,
    starts_at timestamptz NOT NULL,
    reservation_id uuid NOT NULL,
    amount int8 NOT NULL CHECK (amount >= 0),
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, budget_id, starts_at, reservation_id),
    FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, reservation_id) REFERENCES budget_reservations (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX budget_holds_by_reservation ON budget_holds (tenant_id, reservation_id);

CREATE TRIGGER prices_stamp BEFORE UPDATE ON prices FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER budgets_stamp BEFORE UPDATE ON budgets FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
CREATE TRIGGER budget_reservations_stamp BEFORE UPDATE ON budget_reservations FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();

-- See ledger.
CREATE FUNCTION agentkeep_delete_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM ledger WHERE tenant_id = OLD.tenant_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER ledger_heads_delete AFTER DELETE ON ledger_heads
FOR EACH ROW EXECUTE FUNCTION agentkeep_delete_ledger();
