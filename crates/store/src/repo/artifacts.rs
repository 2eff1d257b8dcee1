//! Artifacts of messages. Their session is that of their message, taken from it as they are written.

use agentkeep_core::{Artifact, ArtifactId, Direction, Error, ListRequest, MessageId, NewArtifact, Page, Result};

use super::{
    list::list,
    table::{Field, FieldKind, Reference, Table, delete, params, record, write},
};
use crate::{
    engine::{Sql, Value},
    store::TenantStore,
};

/// The artifacts of a tenant.
pub struct Artifacts<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, session_id, message_id, kind, content, uri, metadata, created_at, updated_at"
    };
}

record!(Artifact, &TABLE, { id, session_id, message_id, kind, content, uri, metadata, created_at, updated_at });

static TABLE: Table = Table {
    entity: "artifact",
    name: "artifacts",
    from: "artifacts",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    // Ids grow with time, and every index of artifacts ends with them.
    order: ("id", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("message_id", FieldKind::Uuid),
        Field::new("kind", FieldKind::Text),
        Field::new("uri", FieldKind::Text),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("content", FieldKind::Json),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[Reference::new("message_id", "message", "messages")],
};

static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO artifacts (tenant_id, id, session_id, message_id, kind, content, uri, metadata, created_at,
         updated_at)
     SELECT m.tenant_id, $2, m.session_id, m.id, $4, $5, $6, $7, $8, $8
     FROM messages m WHERE m.tenant_id = $1 AND m.id = $3
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM artifacts WHERE tenant_id = $1 AND id = $2")).short();
static LIST_BY_MESSAGE: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM artifacts WHERE tenant_id = $1 AND message_id = $2 ORDER BY id"))
        .short();
static DELETE: Sql = Sql::both("DELETE FROM artifacts WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&CREATE, &GET, &LIST_BY_MESSAGE, &DELETE]);

impl Artifacts<'_> {
    /// Creates an artifact of a message.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the id is taken,
    /// [`Error::MissingReference`] when the message does not exist in this tenant.
    pub async fn create(&self, new: NewArtifact) -> Result<Artifact> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let message = new.message_id;
        let held = [("id", Value::from(id)), ("message_id", Value::from(message))];
        let params = params![self.0.tenant, id, message, new.kind, new.content, new.uri, new.metadata, now];
        let written = write(&self.0.executor, &TABLE, &CREATE, &params, &held).await?.into_iter().next();
        written.ok_or_else(|| Error::MissingReference {
            field: "message_id".to_owned(),
            entity: "message",
            value: message.to_string(),
        })
    }

    /// The artifact with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: ArtifactId) -> Result<Option<Artifact>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// All artifacts of a message, oldest first; empty when it has none or does not exist.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn list_by_message(&self, message: MessageId) -> Result<Vec<Artifact>> {
        self.0.executor.fetch_all(&LIST_BY_MESSAGE, &params![self.0.tenant, message]).await
    }

    /// One page of the artifacts. Filters: id, session_id, message_id, kind, uri, created_at, updated_at,
    /// content.PATH, metadata.PATH. Orders: id (the default), created_at, updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Artifact>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Deletes an artifact.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: ArtifactId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}
