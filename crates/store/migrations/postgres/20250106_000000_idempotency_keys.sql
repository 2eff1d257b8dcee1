-- Requests that are done once however often they are sent. The SQLite file of the same name makes the same table.

-- status, headers and body are the answer: they are written in the transaction that claimed the key, so a committed
-- row has them. headers is a JSON array of pairs.
CREATE TABLE idempotency_keys (
    tenant_id int4 NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    status int4,
    headers text,
    body bytea,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX idempotency_keys_by_created_at ON idempotency_keys (tenant_id, created_at, key);
