//! Deployments and every step of them.

use agentkeep_core::{
    Deployment, DeploymentChange, DeploymentId, DeploymentStatus, Direction, Error, ListRequest, NewDeployment, Page,
    Result, limits,
};

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Table, params, record, write_one},
};
use crate::{
    engine::{FromRow, RowRef, Sql, Value},
    store::TenantStore,
};

/// The deployments of a tenant.
pub struct Deployments<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, git_sha, branch, status, report, metadata, created_at, updated_at"
    };
}

record!(Deployment, &TABLE, { id, git_sha, branch, status, report, metadata, created_at, updated_at });

impl FromRow for DeploymentChange {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self { number: row.get(0)?, status: row.get(1)?, report: row.get(2)?, created_at: row.get(3)? })
    }
}

static TABLE: Table = Table {
    entity: "deployment",
    name: "deployments",
    from: "deployments",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("git_sha", FieldKind::Text),
        Field::new("branch", FieldKind::Text),
        Field::new("status", FieldKind::Text),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO deployments (tenant_id, id, git_sha, branch, status, report, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, 'building', $5, $6, $7, $7)
     RETURNING ",
    columns!(),
));
// The deployment's row is locked by whoever changes it, so the numbers of its changes have no gap.
static RECORD: Sql = Sql::both(
    "INSERT INTO deployment_changes (tenant_id, deployment_id, number, status, report, created_at)
     SELECT $1, $2, COUNT(*) + 1, $3, $4, $5 FROM deployment_changes WHERE tenant_id = $1 AND deployment_id = $2",
);
static GET: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM deployments WHERE tenant_id = $1 AND id = $2")).short();
static HISTORY: Sql = Sql::both(
    "SELECT number, status, report, created_at FROM deployment_changes
     WHERE tenant_id = $1 AND deployment_id = $2 ORDER BY number",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&CREATE, &RECORD, &GET, &HISTORY]);

impl Deployments<'_> {
    /// Creates a deployment; its status is `building`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the id is taken.
    pub async fn create(&self, new: NewDeployment) -> Result<Deployment> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let (tenant, new) = (self.0.tenant, &new);
        let create = |executor: crate::engine::Executor| async move {
            let held = [("id", Value::from(id))];
            let params = params![
                tenant,
                id,
                new.git_sha.as_str(),
                new.branch.as_str(),
                new.report.clone(),
                new.metadata.clone(),
                now
            ];
            let created: Deployment = write_one(&executor, &TABLE, &CREATE, &params, &held).await?;
            executor.execute(&RECORD, &params![tenant, id, created.status, new.report.clone(), now]).await?;
            Ok(created)
        };
        self.0.executor.transaction(create).await
    }

    /// The deployment with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: DeploymentId) -> Result<Option<Deployment>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// One page of the deployments. Filters: id, git_sha, branch, status, created_at, updated_at, metadata.PATH.
    /// Orders: id, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Deployment>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Moves a deployment on to a legal next status, and keeps the change with its time. Without a report the
    /// one before stays on the deployment.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for a report over the limit, or [`Error::IllegalTransition`]; nothing
    /// was changed then.
    pub async fn update_status(
        &self,
        id: DeploymentId,
        next: DeploymentStatus,
        report: Option<String>,
    ) -> Result<Deployment> {
        limits::check_content("report", report.as_deref().unwrap_or(""))?;
        let (tenant, now, report) = (self.0.tenant, self.0.now(), &report);
        let change = |executor: crate::engine::Executor| async move {
            let mut changes = Changes::new(executor.dialect(), tenant, id);
            changes.set("status", Some(next));
            changes.set("report", report.clone());
            changes.only_if_in("status", DeploymentStatus::ALL.iter().copied().filter(|from| from.can_become(next)));
            let (sql, params) = changes.statement(&TABLE, now);
            let Some(changed) = executor.fetch_optional::<Deployment>(&sql, &params).await? else {
                let found: Option<Deployment> = executor.fetch_optional(&GET, &params![tenant, id]).await?;
                let from = found.ok_or_else(|| Error::not_found(TABLE.entity, id))?.status;
                return Err(Error::IllegalTransition {
                    entity: TABLE.entity,
                    key: id.to_string(),
                    from: from.to_string(),
                    to: next.to_string(),
                });
            };
            executor.execute(&RECORD, &params![tenant, id, next, report.clone(), now]).await?;
            Ok(changed)
        };
        self.0.executor.transaction(change).await
    }

    /// Every change of a deployment's status, the first one first; empty when there is no such deployment.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn history(&self, id: DeploymentId) -> Result<Vec<DeploymentChange>> {
        self.0.executor.fetch_all(&HISTORY, &params![self.0.tenant, id]).await
    }
}
