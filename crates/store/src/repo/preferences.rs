//! Preferences of users, by category.

use agentkeep_core::{
    Direction, Error, JsonObject, ListRequest, NewPreference, Page, Preference, PreferenceId, PreferencePatch, Result,
    UserId,
};

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Reference, Table, delete, params, record, write, write_one},
};
use crate::{
    engine::{Sql, Value},
    store::TenantStore,
};

/// The preferences of the users of a tenant.
pub struct Preferences<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, user_id, category, preferences, metadata, created_at, updated_at"
    };
}

record!(Preference, &TABLE, { id, user_id, category, preferences, metadata, created_at, updated_at });

static TABLE: Table = Table {
    entity: "preference",
    name: "preferences",
    from: "preferences",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("user_id", FieldKind::Uuid),
        Field::new("category", FieldKind::Text).sortable(),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("preferences", FieldKind::Json),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["user_id", "category"]],
    references: &[Reference::new("user_id", "user", "users")],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO preferences (tenant_id, id, user_id, category, preferences, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
     RETURNING ",
    columns!(),
));
static UPSERT: Sql = Sql::both(concat!(
    "INSERT INTO preferences (tenant_id, id, user_id, category, preferences, metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
     ON CONFLICT (tenant_id, user_id, category) DO UPDATE SET
         preferences = excluded.preferences, metadata = excluded.metadata, updated_at = excluded.updated_at
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM preferences WHERE tenant_id = $1 AND user_id = $2 AND category = $3"
))
.short();
static GET_BY_ID: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM preferences WHERE tenant_id = $1 AND id = $2")).short();
// SQLite has a function for a merge patch, PostgreSQL has none: the first migration makes one.
static PATCH: Sql = Sql::per_engine(
    concat!(
        "UPDATE preferences SET preferences = agentkeep_merge_patch(preferences, $4), updated_at = $5
         WHERE tenant_id = $1 AND user_id = $2 AND category = $3
         RETURNING ",
        columns!(),
    ),
    concat!(
        "UPDATE preferences SET preferences = json_patch(preferences, $4), updated_at = $5
         WHERE tenant_id = $1 AND user_id = $2 AND category = $3
         RETURNING ",
        columns!(),
    ),
);
static DELETE: Sql = Sql::both("DELETE FROM preferences WHERE tenant_id = $1 AND user_id = $2 AND category = $3");
static DELETE_BY_ID: Sql = Sql::both("DELETE FROM preferences WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &UPSERT, &GET, &GET_BY_ID, &PATCH, &DELETE, &DELETE_BY_ID]);

impl Preferences<'_> {
    /// Creates the preferences of a user in a category.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the user has
    /// preferences in this category or the id is taken, [`Error::MissingReference`] when the user does not
    /// exist in this tenant.
    pub async fn create(&self, new: NewPreference) -> Result<Preference> {
        self.insert(&CREATE, new).await
    }

    /// Creates the preferences of a user in a category, or changes those that are there to what is given here.
    ///
    /// # Errors
    /// As [`Preferences::create`], the taken category excepted.
    pub async fn upsert(&self, new: NewPreference) -> Result<Preference> {
        self.insert(&UPSERT, new).await
    }

    async fn insert(&self, sql: &Sql, new: NewPreference) -> Result<Preference> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let held = [
            ("id", Value::from(id)),
            ("user_id", Value::from(new.user_id)),
            ("category", Value::from(new.category.as_str())),
        ];
        let params = params![self.0.tenant, id, new.user_id, new.category, new.preferences, new.metadata, now];
        write_one(&self.0.executor, &TABLE, sql, &params, &held).await
    }

    /// The preferences of a user in a category; `None` when there are none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, user: UserId, category: &str) -> Result<Option<Preference>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, user, category]).await
    }

    /// The preferences with that id; `None` when there are none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_id(&self, id: PreferenceId) -> Result<Option<Preference>> {
        self.0.executor.fetch_optional(&GET_BY_ID, &params![self.0.tenant, id]).await
    }

    /// One page of the preferences. Who likes it dark: the filter `preferences.theme=dark`. Filters: id,
    /// user_id, category, created_at, updated_at, preferences.PATH, metadata.PATH. Orders: id, created_at (the
    /// default), updated_at, category.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Preference>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Applies a merge patch (RFC 7396) to the preferences of a user in a category, in one statement: of two
    /// patches at once none is lost.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] for a patch over the limit.
    pub async fn patch(&self, user: UserId, category: &str, patch: JsonObject) -> Result<Preference> {
        let patch = PreferencePatch { preferences: Some(patch), ..PreferencePatch::default() };
        patch.check()?;
        let params = params![self.0.tenant, user, category, patch.preferences, self.0.now()];
        let changed = write(&self.0.executor, &TABLE, &PATCH, &params, &[]).await?.into_iter().next();
        changed.ok_or_else(|| not_found(user, category))
    }

    /// Changes preferences; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], or [`Error::AlreadyExists`] when the user has preferences in
    /// the new category.
    pub async fn update(&self, id: PreferenceId, patch: PreferencePatch) -> Result<Preference> {
        patch.check()?;
        let not_found = || Error::not_found(TABLE.entity, id);
        let mut held = Vec::new();
        if let Some(category) = &patch.category {
            let current = self.get_by_id(id).await?.ok_or_else(not_found)?;
            held = vec![("user_id", Value::from(current.user_id)), ("category", Value::from(category.as_str()))];
        }
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.set("category", patch.category);
        changes.merge("preferences", patch.preferences);
        changes.merge("metadata", patch.metadata);
        changes.apply(&self.0.executor, &TABLE, &GET_BY_ID, self.0.now(), &held).await
    }

    /// Deletes the preferences of a user in a category.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, user: UserId, category: &str) -> Result<()> {
        match self.0.executor.execute(&DELETE, &params![self.0.tenant, user, category]).await? {
            0 => Err(not_found(user, category)),
            _ => Ok(()),
        }
    }

    /// Deletes the preferences with that id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_by_id(&self, id: PreferenceId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE_BY_ID, self.0.tenant, id).await
    }
}

fn not_found(user: UserId, category: &str) -> Error {
    Error::not_found(TABLE.entity, format!("{category:?} of user {user}"))
}
