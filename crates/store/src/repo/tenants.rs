//! Tenants. The one table whose key is the tenant itself.

use agentkeep_core::{Direction, Error, ListRequest, NewTenant, Page, Result, Tenant, TenantId, TenantPatch};

use super::{
    list::list,
    table::{Field, FieldKind, Table, params, record, write, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The tenants of the database.
pub struct Tenants<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, name, metadata, created_at, updated_at"
    };
}

record!(Tenant, &TABLE, { id, name, metadata, created_at, updated_at });

// Lists of tenants and changes of one run over the tenants themselves, so the tenant condition is one that
// always holds: `$1` is the default tenant there, and ids are positive.
static TABLE: Table = Table {
    entity: "tenant",
    name: "tenants",
    from: "tenants",
    tenant: "$1 > 0",
    columns: columns!(),
    key: "id",
    order: ("id", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Int).sortable(),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["name"]],
    references: &[],
};

// The first tenant's row counts the ids, so that the id of a deleted tenant is never given again.
static NEXT_ID: Sql =
    Sql::both("UPDATE tenants SET last_tenant_id = last_tenant_id + 1 WHERE id = 1 RETURNING last_tenant_id");
static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO tenants (id, name, metadata, created_at, updated_at) VALUES ($1, $2, $3, $4, $4) RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM tenants WHERE id = $1")).short();
static GET_BY_NAME: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM tenants WHERE name = $1")).short();
static DELETE: Sql = Sql::both("DELETE FROM tenants WHERE id = $1");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&NEXT_ID, &CREATE, &GET, &GET_BY_NAME, &DELETE]);

impl<'a> Tenants<'a> {
    /// The tenants of the database as part of the transaction that a view is in
    /// ([`Store::tenant_in`](crate::Store::tenant_in)). Which tenant the view is of does not matter.
    #[must_use]
    pub fn within(view: &'a TenantStore) -> Self {
        Self(view)
    }
}

impl Tenants<'_> {
    /// Creates a tenant with the next number.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty name, [`Error::AlreadyExists`] for one that is taken.
    pub async fn create(&self, new: NewTenant) -> Result<Tenant> {
        new.check()?;
        let (new, now) = (&new, self.0.now());
        let create = |executor: Executor| async move {
            let (id,) = executor.fetch_one::<(TenantId,)>(&NEXT_ID, &[]).await?;
            let held = [("name", Value::from(new.name.clone()))];
            let params = params![id, new.name.clone(), new.metadata.clone(), now];
            write_one(&executor, &TABLE, &CREATE, &params, &held).await
        };
        self.0.executor.transaction(create).await
    }

    /// The tenant with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: TenantId) -> Result<Option<Tenant>> {
        self.0.executor.fetch_optional(&GET, &params![id]).await
    }

    /// The tenant of that name; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_name(&self, name: &str) -> Result<Option<Tenant>> {
        self.0.executor.fetch_optional(&GET_BY_NAME, &params![name]).await
    }

    /// One page of the tenants. Filters: id, name, created_at, updated_at, metadata.PATH. Orders: id (the
    /// default), name, created_at, updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Tenant>> {
        list(&self.0.executor, TenantId::DEFAULT, request).await
    }

    /// Changes a tenant; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], or [`Error::AlreadyExists`] when the new name is taken.
    pub async fn update(&self, id: TenantId, patch: TenantPatch) -> Result<Tenant> {
        patch.check()?;
        let merged = self.0.executor.dialect().merge_patch("metadata", 3);
        let sql = Sql::assembled(format!(
            "UPDATE tenants SET name = COALESCE($2, name), metadata = {merged}, updated_at = $4 WHERE id = $1 RETURNING {}",
            columns!()
        ));
        let held = [("name", Value::from(patch.name.clone()))];
        let params = params![id, patch.name, patch.metadata.unwrap_or_default(), self.0.now()];
        let rows = write(&self.0.executor, &TABLE, &sql, &params, &held).await?;
        rows.into_iter().next().ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    /// Deletes a tenant and everything that belongs to it. The default tenant stays.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for the default tenant.
    pub async fn delete(&self, id: TenantId) -> Result<()> {
        if id == TenantId::DEFAULT {
            return Err(Error::invalid(
                "tenant_id",
                "the default tenant cannot be deleted; `db clear` empties the database",
            ));
        }
        match self.0.executor.execute(&DELETE, &params![id]).await? {
            0 => Err(Error::not_found(TABLE.entity, id)),
            _ => Ok(()),
        }
    }
}
