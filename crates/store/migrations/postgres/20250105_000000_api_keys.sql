-- API keys. The SQLite file of the same name makes the same tables.

-- Of the text of a key only its prefix and its SHA-256 are kept. The text holds 256 bits of randomness: nothing
-- slower than SHA-256 is needed to keep it from being guessed.
CREATE TABLE api_keys (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    prefix text COLLATE "C" NOT NULL,
    hash bytea NOT NULL CHECK (length(hash) = 32),
    scopes jsonb NOT NULL,
    metadata jsonb NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, prefix),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX api_keys_by_created_at ON api_keys (tenant_id, created_at, id);

-- To be used is no change of a key.
CREATE TRIGGER api_keys_stamp BEFORE UPDATE OF name, prefix, hash, scopes, metadata, expires_at, revoked_at ON api_keys FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();
