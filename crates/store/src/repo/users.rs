//! Users.

#[cfg(doc)]
use agentkeep_core::Error;
use agentkeep_core::{Direction, ListRequest, NewUser, Page, Result, User, UserId, UserPatch, parse_uuid};

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Table, delete, params, record, write_one},
};
use crate::{
    engine::{Sql, Value},
    store::TenantStore,
};

/// The users of a tenant.
pub struct Users<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, email, phone_number, name, metadata, created_at, updated_at"
    };
}

record!(User, &TABLE, { id, email, phone_number, name, metadata, created_at, updated_at });

static TABLE: Table = Table {
    entity: "user",
    name: "users",
    from: "users",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("email", FieldKind::Text),
        Field::new("phone_number", FieldKind::Text),
        Field::new("name", FieldKind::Text),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["email"]],
    references: &[],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO users (tenant_id, id, email, phone_number, name, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
     RETURNING ",
    columns!(),
));
static UPSERT: Sql = Sql::both(concat!(
    "INSERT INTO users (tenant_id, id, email, phone_number, name, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
     ON CONFLICT (tenant_id, email) DO UPDATE SET
         phone_number = excluded.phone_number, name = excluded.name, metadata = excluded.metadata,
         updated_at = excluded.updated_at
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM users WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_EMAIL: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM users WHERE tenant_id = $1 AND email = $2")).short();
// A phone number is not unique; the user who had it first is meant.
static GET_BY_PHONE_NUMBER: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM users WHERE tenant_id = $1 AND phone_number = $2 ORDER BY created_at, id LIMIT 1"
))
.short();
static DELETE: Sql = Sql::both("DELETE FROM users WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &UPSERT, &GET, &GET_BY_EMAIL, &GET_BY_PHONE_NUMBER, &DELETE]);

impl Users<'_> {
    /// Creates a user.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the e-mail or the id
    /// is taken.
    pub async fn create(&self, new: NewUser) -> Result<User> {
        self.insert(&CREATE, new).await
    }

    /// Creates a user, or changes the one that has this e-mail to what is given here. Without an e-mail a
    /// user is always created.
    ///
    /// # Errors
    /// As [`Users::create`], the taken e-mail excepted.
    pub async fn upsert(&self, new: NewUser) -> Result<User> {
        self.insert(&UPSERT, new).await
    }

    async fn insert(&self, sql: &Sql, new: NewUser) -> Result<User> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let held = [("id", Value::from(id)), ("email", Value::from(new.email.clone()))];
        let params = params![self.0.tenant, id, new.email, new.phone_number, new.name, new.metadata, now];
        write_one(&self.0.executor, &TABLE, sql, &params, &held).await
    }

    /// The user with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: UserId) -> Result<Option<User>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The user with that e-mail; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_email(&self, email: &str) -> Result<Option<User>> {
        self.0.executor.fetch_optional(&GET_BY_EMAIL, &params![self.0.tenant, email]).await
    }

    /// The user whose id, e-mail or phone number is `identifier`, looked for in that order; `None` when
    /// there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_identifier(&self, identifier: &str) -> Result<Option<User>> {
        if let Ok(id) = parse_uuid("identifier", identifier)
            && let Some(user) = self.get(UserId(id)).await?
        {
            return Ok(Some(user));
        }
        if let Some(user) = self.get_by_email(identifier).await? {
            return Ok(Some(user));
        }
        self.0.executor.fetch_optional(&GET_BY_PHONE_NUMBER, &params![self.0.tenant, identifier]).await
    }

    /// One page of the users. Filters: id, email, phone_number, name, created_at, updated_at, metadata.PATH.
    /// Orders: id, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<User>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes a user; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], or [`Error::AlreadyExists`] when the new e-mail is taken.
    pub async fn update(&self, id: UserId, patch: UserPatch) -> Result<User> {
        patch.check()?;
        let held = [("email", Value::from(patch.email.clone().flatten()))];
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.set("email", patch.email);
        changes.set("phone_number", patch.phone_number);
        changes.set("name", patch.name);
        changes.merge("metadata", patch.metadata);
        changes.apply(&self.0.executor, &TABLE, &GET, self.0.now(), &held).await
    }

    /// Deletes a user with their sessions, memories and preferences.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: UserId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}
