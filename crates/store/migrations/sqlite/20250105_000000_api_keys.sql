-- API keys. The same tables as the PostgreSQL file of the same name.

-- Of the text of a key only its prefix and its SHA-256 are kept. The text holds 256 bits of randomness: nothing
-- slower than SHA-256 is needed to keep it from being guessed.
CREATE TABLE api_keys (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    scopes TEXT NOT NULL CHECK (json_valid(scopes)),
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    expires_at INTEGER,
    last_used_at INTEGER,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, prefix),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX api_keys_by_created_at ON api_keys (tenant_id, created_at, id);

-- To be used is no change of a key.
CREATE TRIGGER api_keys_stamp AFTER UPDATE OF name, prefix, hash, scopes, metadata, expires_at, revoked_at ON api_keys
WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE api_keys SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;
