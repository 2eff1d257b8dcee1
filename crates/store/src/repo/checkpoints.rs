//! Checkpoints of runs. Channel values and pending writes are kept as text, exactly as they were given.

use agentkeep_core::{
    Checkpoint, CheckpointId, Direction, Error, JsonArray, ListRequest, NewCheckpoint, Page, Result, SessionId, limits,
};

use super::{
    list::list,
    table::{Field, FieldKind, Reference, Table, check_reference, delete, delete_in_batches, params, record, write},
};
use crate::{
    engine::{Sql, Value},
    store::TenantStore,
};

/// The checkpoints of a tenant.
pub struct Checkpoints<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, session_id, namespace, parent_id, channel_values, pending_writes, metadata, created_at, updated_at"
    };
}

record!(Checkpoint, &TABLE, {
    id, session_id, namespace, parent_id, channel_values, pending_writes, metadata, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "checkpoint",
    name: "checkpoints",
    from: "checkpoints",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Descending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("namespace", FieldKind::Text),
        Field::new("parent_id", FieldKind::Uuid),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[Reference::new("session_id", "session", "sessions")],
};

// The id of a checkpoint elsewhere is taken: no row is written then.
static PUT: Sql = Sql::both(concat!(
    "INSERT INTO checkpoints (tenant_id, id, session_id, namespace, parent_id, channel_values, pending_writes,
         metadata, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
     ON CONFLICT (tenant_id, id) DO UPDATE SET
         parent_id = excluded.parent_id, channel_values = excluded.channel_values, metadata = excluded.metadata,
         updated_at = excluded.updated_at
     WHERE checkpoints.session_id = excluded.session_id AND checkpoints.namespace = excluded.namespace
     RETURNING ",
    columns!(),
));
static GET: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM checkpoints WHERE tenant_id = $1 AND id = $2")).short();
static LATEST: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM checkpoints WHERE tenant_id = $1 AND session_id = $2 AND namespace = $3
     ORDER BY created_at DESC, id DESC LIMIT 1"
))
.short();
// The texts of two arrays joined into one: the row's lock keeps racing writes apart, and nothing that is there
// has to travel. Both texts start and end with their brackets.
static ADD_WRITES: Sql = Sql::both(concat!(
    "UPDATE checkpoints SET
         pending_writes = CASE
             WHEN pending_writes = '[]' THEN $3
             WHEN $3 = '[]' THEN pending_writes
             ELSE substr(pending_writes, 1, length(pending_writes) - 1) || ',' || substr($3, 2)
         END,
         updated_at = $4
     WHERE tenant_id = $1 AND id = $2
     RETURNING ",
    columns!(),
));
static DELETE: Sql = Sql::both("DELETE FROM checkpoints WHERE tenant_id = $1 AND id = $2");
static DELETE_OLDER: Sql = Sql::both(
    "DELETE FROM checkpoints WHERE tenant_id = $1 AND id IN (
         SELECT id FROM checkpoints WHERE tenant_id = $1 AND session_id = $2 AND namespace = $3
         ORDER BY created_at DESC, id DESC LIMIT $5 OFFSET $4
     )",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&PUT, &GET, &LATEST, &ADD_WRITES, &DELETE, &DELETE_OLDER]);

impl Checkpoints<'_> {
    /// Puts a checkpoint. One that is there already under this id, in the same session and namespace, gets
    /// the parent, channel values and metadata given here and keeps its pending writes: putting is safe to
    /// repeat.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the id is taken by a
    /// checkpoint of another session or namespace, [`Error::MissingReference`] when session or parent do not
    /// exist in this tenant.
    pub async fn put(&self, new: NewCheckpoint) -> Result<Checkpoint> {
        new.check()?;
        let (executor, tenant) = (&self.0.executor, self.0.tenant);
        // A soft reference: the parent must exist when it is set, and may go afterwards.
        check_reference(executor, tenant, "parent_id", TABLE.entity, TABLE.name, new.parent_id).await?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let held = [("id", Value::from(id)), ("session_id", Value::from(new.session_id))];
        let params = params![
            tenant,
            id,
            new.session_id,
            new.namespace,
            new.parent_id,
            new.channel_values,
            trimmed(&new.pending_writes),
            new.metadata,
            now,
        ];
        let written = write(executor, &TABLE, &PUT, &params, &held).await?.into_iter().next();
        written.ok_or_else(|| Error::AlreadyExists {
            entity: TABLE.entity,
            field: "id".to_owned(),
            value: id.to_string(),
        })
    }

    /// The checkpoint with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: CheckpointId) -> Result<Option<Checkpoint>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The newest checkpoint of a session in a namespace; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn latest(&self, session: SessionId, namespace: &str) -> Result<Option<Checkpoint>> {
        self.0.executor.fetch_optional(&LATEST, &params![self.0.tenant, session, namespace]).await
    }

    /// One page of the checkpoints, newest first. Filters: id, session_id, namespace, parent_id, created_at,
    /// updated_at, metadata.PATH. Orders: id, created_at (the default, descending), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Checkpoint>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Adds writes behind the pending writes of a checkpoint. Of writes that are added at the same time none
    /// is lost, and those of one call stay together.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] for writes over the limit.
    pub async fn add_writes(&self, id: CheckpointId, writes: &JsonArray) -> Result<Checkpoint> {
        limits::check_content("pending_writes", writes.as_str())?;
        let params = params![self.0.tenant, id, trimmed(writes), self.0.now()];
        let changed = write(&self.0.executor, &TABLE, &ADD_WRITES, &params, &[]).await?.into_iter().next();
        changed.ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    /// Deletes a checkpoint. Those that name it as their parent stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: CheckpointId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }

    /// Deletes all checkpoints of a session in a namespace but the newest `keep`, in bounded batches; how many
    /// it were.
    ///
    /// # Errors
    /// What the database reports; the batches before it are done.
    pub async fn keep_newest(&self, session: SessionId, namespace: &str, keep: u32) -> Result<u64> {
        let params = params![self.0.tenant, session, namespace, keep];
        delete_in_batches(&self.0.executor, &DELETE_OLDER, &params).await
    }
}

/// The array without white space around it, `[]` when it is empty: what [`ADD_WRITES`] relies on.
fn trimmed(array: &JsonArray) -> JsonArray {
    let text = array.as_str().trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if inner.is_some_and(|inner| inner.trim().is_empty()) {
        return JsonArray::default();
    }
    JsonArray::from_stored(text)
}
