//! Teams.

#[cfg(doc)]
use agentkeep_core::Error;
use agentkeep_core::{Direction, ListRequest, NewTeam, Page, Result, Team, TeamId, TeamPatch};

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Table, delete, params, record, write_one},
};
use crate::{
    engine::{Sql, Value},
    store::TenantStore,
};

/// The teams of a tenant.
pub struct Teams<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, name, mode, routing, active, metadata, created_at, updated_at"
    };
}

record!(Team, &TABLE, { id, name, mode, routing, active, metadata, created_at, updated_at });

static TABLE: Table = Table {
    entity: "team",
    name: "teams",
    from: "teams",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("mode", FieldKind::Text),
        Field::new("active", FieldKind::Bool),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("routing", FieldKind::Json),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["name"]],
    references: &[],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO teams (tenant_id, id, name, mode, routing, active, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
     RETURNING ",
    columns!(),
));
static UPSERT: Sql = Sql::both(concat!(
    "INSERT INTO teams (tenant_id, id, name, mode, routing, active, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
     ON CONFLICT (tenant_id, name) DO UPDATE SET
         mode = excluded.mode, routing = excluded.routing, active = excluded.active, metadata = excluded.metadata,
         updated_at = excluded.updated_at
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM teams WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_NAME: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM teams WHERE tenant_id = $1 AND name = $2")).short();
static DELETE: Sql = Sql::both("DELETE FROM teams WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&CREATE, &UPSERT, &GET, &GET_BY_NAME, &DELETE]);

impl Teams<'_> {
    /// Creates a team. Its members join through [`crate::TeamMembers`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the name or the id is
    /// taken.
    pub async fn create(&self, new: NewTeam) -> Result<Team> {
        self.insert(&CREATE, new).await
    }

    /// Creates a team, or changes the one of that name to what is given here. Its members stay.
    ///
    /// # Errors
    /// As [`Teams::create`], the taken name excepted.
    pub async fn upsert(&self, new: NewTeam) -> Result<Team> {
        self.insert(&UPSERT, new).await
    }

    async fn insert(&self, sql: &Sql, new: NewTeam) -> Result<Team> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let held = [("id", Value::from(id)), ("name", Value::from(new.name.as_str()))];
        let (mode, active) = (new.mode(), new.active.unwrap_or(true));
        let params = params![self.0.tenant, id, new.name, mode, new.routing, active, new.metadata, now];
        write_one(&self.0.executor, &TABLE, sql, &params, &held).await
    }

    /// The team with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: TeamId) -> Result<Option<Team>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The team of that name; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_name(&self, name: &str) -> Result<Option<Team>> {
        self.0.executor.fetch_optional(&GET_BY_NAME, &params![self.0.tenant, name]).await
    }

    /// One page of the teams. Filters: id, name, mode, active, created_at, updated_at, routing.PATH,
    /// metadata.PATH. Orders: id, name, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Team>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes a team; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], or [`Error::AlreadyExists`] when the new name is taken.
    pub async fn update(&self, id: TeamId, patch: TeamPatch) -> Result<Team> {
        patch.check()?;
        let held = [("name", Value::from(patch.name.clone()))];
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.set("name", patch.name);
        changes.set("mode", patch.mode);
        changes.set("active", patch.active);
        changes.merge("routing", patch.routing);
        changes.merge("metadata", patch.metadata);
        changes.apply(&self.0.executor, &TABLE, &GET, self.0.now(), &held).await
    }

    /// Deletes a team with its memberships and routing decisions. Its agents and sessions stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: TeamId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}
