-- Deployments and every step of them. The SQLite file of the same name makes the same tables.

CREATE TABLE deployments (
    tenant_id int4 NOT NULL,
    id uuid NOT NULL,
    git_sha text COLLATE "C" NOT NULL,
    branch text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL
        CHECK (status IN ('building', 'testing', 'deploying', 'healthy', 'rolled_back', 'failed')),
    report text COLLATE "C",
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE
);
CREATE INDEX deployments_by_created_at ON deployments (tenant_id, created_at, id);

-- One row for every change of the status, numbered from 1.
CREATE TABLE deployment_changes (
    tenant_id int4 NOT NULL,
    deployment_id uuid NOT NULL,
    number int8 NOT NULL,
    status text COLLATE "C" NOT NULL,
    report text COLLATE "C",
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, deployment_id, number),
    FOREIGN KEY (tenant_id, deployment_id) REFERENCES deployments (tenant_id, id) ON DELETE CASCADE
);

CREATE TRIGGER deployments_stamp BEFORE UPDATE ON deployments FOR EACH ROW EXECUTE FUNCTION agentkeep_stamp();

-- The application refuses an illegal change with a better message; this is for direct SQL.
CREATE FUNCTION agentkeep_deployment_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.status, NEW.status) IN (
        ('building', 'testing'), ('building', 'failed'), ('testing', 'deploying'), ('testing', 'failed'),
        ('deploying', 'healthy'), ('deploying', 'failed'), ('deploying', 'rolled_back'), ('healthy', 'rolled_back')
    ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a deployment that is % cannot become %', OLD.status, NEW.status USING ERRCODE = '23514';
END
$$;
CREATE TRIGGER deployments_status BEFORE UPDATE ON deployments FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION agentkeep_deployment_status();
