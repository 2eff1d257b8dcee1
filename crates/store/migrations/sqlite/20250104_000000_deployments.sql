-- Deployments and every step of them. The same tables as the PostgreSQL file of the same name.

CREATE TABLE deployments (
    tenant_id INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    git_sha TEXT NOT NULL,
    branch TEXT NOT NULL,
    status TEXT NOT NULL
        CHECK (status = 'building' OR status = 'testing' OR status = 'deploying' OR status = 'healthy'
            OR status = 'rolled_back' OR status = 'failed'),
    report TEXT,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX deployments_by_created_at ON deployments (tenant_id, created_at, id);

-- One row for every change of the status, numbered from 1.
CREATE TABLE deployment_changes (
    tenant_id INTEGER NOT NULL,
    deployment_id BLOB NOT NULL CHECK (length(deployment_id) = 16),
    number INTEGER NOT NULL,
    status TEXT NOT NULL,
    report TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, deployment_id, number),
    FOREIGN KEY (tenant_id, deployment_id) REFERENCES deployments (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TRIGGER deployments_stamp AFTER UPDATE ON deployments WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE deployments SET updated_at = max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), OLD.updated_at + 1)
    WHERE tenant_id = NEW.tenant_id AND id = NEW.id;
END;

-- The application refuses an illegal change with a better message; this is for direct SQL.
CREATE TRIGGER deployments_status BEFORE UPDATE OF status ON deployments
WHEN OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (VALUES
    ('building', 'testing'), ('building', 'failed'), ('testing', 'deploying'), ('testing', 'failed'),
    ('deploying', 'healthy'), ('deploying', 'failed'), ('deploying', 'rolled_back'), ('healthy', 'rolled_back'))
BEGIN
    SELECT RAISE(ABORT, 'a deployment cannot change its status this way');
END;
