-- Requests that are done once however often they are sent. The same table as the PostgreSQL file of the same name.

-- status, headers and body are the answer: they are written in the transaction that claimed the key, so a committed
-- row has them. headers is a JSON array of pairs.
CREATE TABLE idempotency_keys (
    tenant_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    status INTEGER,
    headers TEXT,
    body BLOB,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX idempotency_keys_by_created_at ON idempotency_keys (tenant_id, created_at, key);
