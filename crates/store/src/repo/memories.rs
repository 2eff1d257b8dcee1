//! Memories. `agent_key` and `user_key` repeat agent and user with a stand-in for none, so that two memories
//! without a user are of the same user for the unique key.

use agentkeep_core::{
    AgentId, Direction, Error, ListRequest, Memory, MemoryId, MemoryPatch, NewMemory, Page, Result, Timestamp, UserId,
};
use uuid::Uuid;

use super::{
    list::{Condition, list, list_where},
    table::{Changes, Field, FieldKind, Reference, Table, delete, delete_in_batches, params, record, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The memories of a tenant.
pub struct Memories<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, agent_id, user_id, session_id, name, content, read_mode, access, expires_at, metadata, created_at, \
         updated_at"
    };
}

record!(Memory, &TABLE, {
    id, agent_id, user_id, session_id, name, content, read_mode, access, expires_at, metadata, created_at, updated_at,
});

static TABLE: Table = Table {
    entity: "memory",
    name: "memories",
    from: "memories",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("agent_id", FieldKind::Int),
        Field::new("user_id", FieldKind::Uuid),
        Field::new("session_id", FieldKind::Uuid),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("read_mode", FieldKind::Text),
        Field::new("access", FieldKind::Text),
        Field::new("expires_at", FieldKind::Time),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["agent_key", "user_key", "name"]],
    references: &[
        Reference::new("agent_id", "agent", "agents"),
        Reference::new("user_id", "user", "users"),
        Reference::new("session_id", "session", "sessions"),
    ],
};

macro_rules! insert {
    () => {
        "INSERT INTO memories (tenant_id, id, agent_id, user_id, session_id, agent_key, user_key, name, content,
             read_mode, access, expires_at, metadata, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)"
    };
}

static CREATE: Sql = Sql::both(concat!(insert!(), " RETURNING ", columns!()));
static UPSERT: Sql = Sql::both(concat!(
    insert!(),
    " ON CONFLICT (tenant_id, agent_key, user_key, name) DO UPDATE SET
         session_id = excluded.session_id, content = excluded.content, read_mode = excluded.read_mode,
         access = excluded.access, expires_at = excluded.expires_at, metadata = excluded.metadata,
         updated_at = excluded.updated_at
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM memories WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_NAME: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM memories
     WHERE tenant_id = $1 AND agent_key = $2 AND user_key = $3 AND name = $4
       AND (expires_at IS NULL OR expires_at > $5)"
))
.short();
static DELETE: Sql = Sql::both("DELETE FROM memories WHERE tenant_id = $1 AND id = $2");
static DELETE_IF_EXPIRED: Sql = Sql::both(
    "DELETE FROM memories
     WHERE tenant_id = $1 AND agent_key = $2 AND user_key = $3 AND name = $4 AND expires_at <= $5",
);
// The outer condition is looked at again on a row that somebody changed in the meantime, the inner is not.
static DELETE_EXPIRED: Sql = Sql::both(
    "DELETE FROM memories
     WHERE tenant_id = $1 AND expires_at <= $2 AND id IN (
         SELECT id FROM memories WHERE tenant_id = $1 AND expires_at <= $2 ORDER BY expires_at LIMIT $3
     )",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&CREATE, &UPSERT, &GET, &GET_BY_NAME, &DELETE, &DELETE_IF_EXPIRED, &DELETE_EXPIRED]);

/// What lists show unless asked for more.
const UNEXPIRED: &str = "(expires_at IS NULL OR expires_at > $2)";

impl Memories<'_> {
    /// Creates a memory. One of the same name that has expired makes room for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when agent and user have a
    /// memory of that name or the id is taken, [`Error::MissingReference`] when agent, user or session do not
    /// exist in this tenant.
    pub async fn create(&self, new: NewMemory) -> Result<Memory> {
        let row = self.row(new)?;
        match row.write(&self.0.executor, &CREATE).await {
            Err(error @ Error::AlreadyExists { .. }) => self.replace_expired(&row, error).await,
            outcome => outcome,
        }
    }

    /// Creates a memory, or changes the one that agent and user have of that name to what is given here.
    ///
    /// # Errors
    /// As [`Memories::create`], the taken name excepted.
    pub async fn upsert(&self, new: NewMemory) -> Result<Memory> {
        self.row(new)?.write(&self.0.executor, &UPSERT).await
    }

    fn row(&self, new: NewMemory) -> Result<NewRow> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let held = [
            ("id", Value::from(id)),
            ("agent_key", agent_key(new.agent_id)),
            ("user_key", user_key(new.user_id)),
            ("name", Value::from(new.name.as_str())),
            ("agent_id", Value::from(new.agent_id)),
            ("user_id", Value::from(new.user_id)),
            ("session_id", Value::from(new.session_id)),
        ];
        let params = params![
            self.0.tenant,
            id,
            new.agent_id,
            new.user_id,
            new.session_id,
            agent_key(new.agent_id),
            user_key(new.user_id),
            new.name,
            new.content,
            new.read_mode,
            new.access,
            new.expires_at,
            new.metadata,
            now,
        ];
        Ok(NewRow { params: params.into(), held })
    }

    /// Puts a memory in the place of an expired one, or tells the error that its name is taken.
    async fn replace_expired(&self, row: &NewRow, taken: Error) -> Result<Memory> {
        let now = self.0.now();
        let replace = |executor: Executor| async move {
            let [_, agent, user, name, ..] = row.held.clone().map(|(_, value)| value);
            let expired = params![self.0.tenant, agent, user, name, now];
            executor.execute(&DELETE_IF_EXPIRED, &expired).await?;
            row.write(&executor, &CREATE).await
        };
        match self.0.executor.transaction(replace).await {
            Err(Error::AlreadyExists { .. }) => Err(taken),
            outcome => outcome,
        }
    }

    /// The memory with that id, expired or not; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: MemoryId) -> Result<Option<Memory>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The memory of that name that an agent has about a user; without a user its global memory. `None` when
    /// there is none or it has expired.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_name(
        &self,
        agent: Option<AgentId>,
        user: Option<UserId>,
        name: &str,
    ) -> Result<Option<Memory>> {
        self.get_by_name_at(self.0.now(), agent, user, name).await
    }

    /// As [`Memories::get_by_name`], an expired memory included.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_name_with_expired(
        &self,
        agent: Option<AgentId>,
        user: Option<UserId>,
        name: &str,
    ) -> Result<Option<Memory>> {
        self.get_by_name_at(Timestamp::MIN, agent, user, name).await
    }

    async fn get_by_name_at(
        &self,
        now: Timestamp,
        agent: Option<AgentId>,
        user: Option<UserId>,
        name: &str,
    ) -> Result<Option<Memory>> {
        let params = params![self.0.tenant, agent_key(agent), user_key(user), name, now];
        self.0.executor.fetch_optional(&GET_BY_NAME, &params).await
    }

    /// One page of the memories. Those that have expired are left out, unless a filter asks about
    /// `expires_at`. A `user_id` of null finds the global ones. Filters: id, agent_id, user_id, session_id,
    /// name, read_mode, access, expires_at, created_at, updated_at, metadata.PATH. Orders: id, created_at (the
    /// default), updated_at, name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Memory>> {
        if request.filters.iter().any(|filter| filter.field == "expires_at") {
            return self.list_with_expired(request).await;
        }
        let unexpired: Condition = (UNEXPIRED, self.0.now().into());
        list_where(unexpired, &self.0.executor, self.0.tenant, request).await
    }

    /// As [`Memories::list`], the expired ones included.
    ///
    /// # Errors
    /// As [`Memories::list`].
    pub async fn list_with_expired(&self, request: &ListRequest) -> Result<Page<Memory>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes a memory; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::MissingReference`], or [`Error::AlreadyExists`] when
    /// agent and user have another memory of the new name.
    pub async fn update(&self, id: MemoryId, patch: MemoryPatch) -> Result<Memory> {
        patch.check()?;
        let not_found = || Error::not_found(TABLE.entity, id);
        let held = self.held_after(id, &patch).await?.ok_or_else(not_found)?;
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.set("agent_key", patch.agent_id.map(agent_key));
        changes.set("agent_id", patch.agent_id);
        changes.set("user_key", patch.user_id.map(user_key));
        changes.set("user_id", patch.user_id);
        changes.set("session_id", patch.session_id);
        changes.set("name", patch.name);
        changes.set("content", patch.content);
        changes.set("read_mode", patch.read_mode);
        changes.set("access", patch.access);
        changes.set("expires_at", patch.expires_at);
        changes.merge("metadata", patch.metadata);
        changes.apply(&self.0.executor, &TABLE, &GET, self.0.now(), &held).await
    }

    /// What the memory will hold in its unique and referring columns; `None` when there is no such memory. It
    /// is read only when the patch touches some of them: an error is told with the values of all.
    async fn held_after(&self, id: MemoryId, patch: &MemoryPatch) -> Result<Option<Vec<(&'static str, Value)>>> {
        if patch.agent_id.is_none() && patch.user_id.is_none() && patch.session_id.is_none() && patch.name.is_none() {
            return Ok(Some(Vec::new()));
        }
        let Some(memory) = self.get(id).await? else { return Ok(None) };
        let agent = patch.agent_id.unwrap_or(memory.agent_id);
        let user = patch.user_id.unwrap_or(memory.user_id);
        Ok(Some(vec![
            ("agent_key", agent_key(agent)),
            ("user_key", user_key(user)),
            ("name", Value::from(patch.name.clone().unwrap_or(memory.name))),
            ("agent_id", Value::from(agent)),
            ("user_id", Value::from(user)),
            ("session_id", Value::from(patch.session_id.unwrap_or(memory.session_id))),
        ]))
    }

    /// Deletes a memory.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: MemoryId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }

    /// Deletes the memories that have expired by `now`, in bounded batches; how many it were.
    ///
    /// # Errors
    /// What the database reports; the batches before it are done.
    pub async fn delete_expired(&self, now: Timestamp) -> Result<u64> {
        delete_in_batches(&self.0.executor, &DELETE_EXPIRED, &params![self.0.tenant, now]).await
    }
}

/// A memory on its way in.
struct NewRow {
    params: Vec<Value>,
    held: [(&'static str, Value); 7],
}

impl NewRow {
    async fn write(&self, executor: &Executor, sql: &Sql) -> Result<Memory> {
        write_one(executor, &TABLE, sql, &self.params, &self.held).await
    }
}

/// Agents are numbered from 1.
fn agent_key(agent: Option<AgentId>) -> Value {
    Value::from(agent.unwrap_or(AgentId(0)))
}

fn user_key(user: Option<UserId>) -> Value {
    Value::from(user.map_or(Uuid::nil(), Uuid::from))
}
