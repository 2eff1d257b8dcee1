//! Agents. Every change of one is made under its row lock and kept as a version of it.

use std::collections::HashMap;

use agentkeep_core::{
    Agent, AgentId, AgentPatch, AgentSnapshot, AgentStamp, Direction, Error, ListRequest, NewAgent, Page, PromptId,
    Result, Session, SessionId, SessionPatch, TenantId, Timestamp, VersionNote,
};

use super::{
    Sessions, TeamMembers, agent_versions,
    list::{list, list_from},
    table::{Field, FieldKind, Table, id_list, params, record, write, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The agents of a tenant.
pub struct Agents<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, name, type, model, description, config, version, active, run_id, persona, tools, sub_agents, planner, \
         usage_count, last_used_at, deleted_at, metadata, created_at, updated_at"
    };
}

macro_rules! select {
    ($condition:literal) => {
        concat!("SELECT ", columns!(), " FROM agents WHERE tenant_id = $1 AND ", $condition)
    };
}

macro_rules! insert {
    ($conflict:literal) => {
        concat!(
            "INSERT INTO agents (tenant_id, id, name, type, model, description, config, version, active, run_id, \
             persona, tools, sub_agents, planner, usage_count, last_used_at, metadata, created_at, updated_at, \
             deleted_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, 0, $9, $10, $11, $12, 0, NULL, $13, $14, $14, $15) ",
            $conflict,
            " RETURNING ",
            columns!()
        )
    };
}

record!(Agent, &TABLE, {
    id, name, kind, model, description, config, version, active, run_id, persona, tools, sub_agents, planner,
    usage_count, last_used_at, deleted_at, metadata, created_at, updated_at,
});

pub(super) static TABLE: Table = Table {
    entity: "agent",
    name: "agents",
    from: "agents",
    tenant: "tenant_id = $1 AND deleted_at IS NULL",
    columns: columns!(),
    key: "id",
    order: ("id", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Int).sortable(),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("type", FieldKind::Text).sortable(),
        Field::new("model", FieldKind::Text),
        Field::new("planner", FieldKind::Text),
        Field::new("active", FieldKind::Bool),
        Field::new("version", FieldKind::Int).sortable(),
        Field::new("run_id", FieldKind::Int).sortable(),
        Field::new("usage_count", FieldKind::Int).sortable(),
        Field::new("last_used_at", FieldKind::Time),
        Field::new("deleted_at", FieldKind::Time),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("config", FieldKind::Json),
        Field::new("persona", FieldKind::Json),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["name"]],
    references: &[],
};

/// The table with the soft-deleted agents in it.
static WITH_DELETED: Table = Table { tenant: "tenant_id = $1", ..TABLE };

// The tenant's row counts the ids, so that the id of a deleted agent is never given again. Its lock does not
// hold up what else is created in the tenant.
static NEXT_ID: Sql =
    Sql::both("UPDATE tenants SET last_agent_id = last_agent_id + 1 WHERE id = $1 RETURNING last_agent_id");
static CREATE: Sql = Sql::both(insert!(""));
static CREATE_UNLESS_NAME_EXISTS: Sql =
    Sql::both(insert!("ON CONFLICT (tenant_id, name) WHERE deleted_at IS NULL DO NOTHING"));
static GET: Sql = Sql::both(select!("id = $2")).short();
static GET_BY_NAME: Sql = Sql::both(select!("name = $2 AND deleted_at IS NULL")).short();
// SQLite has no row locks: a transaction that may write is the only one.
static LOCK: Sql = Sql::per_engine(select!("id = $2 FOR NO KEY UPDATE"), select!("id = $2"));
static LOCK_BY_NAME: Sql = Sql::per_engine(
    select!("name = $2 AND deleted_at IS NULL FOR NO KEY UPDATE"),
    select!("name = $2 AND deleted_at IS NULL"),
);
static LOCK_TO_DELETE: Sql = Sql::per_engine(
    "SELECT id FROM agents WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
    "SELECT id FROM agents WHERE tenant_id = $1 AND id = $2",
);
static CHANGE: Sql = Sql::both(concat!(
    "UPDATE agents SET
         name = $3, type = $4, model = $5, description = $6, config = $7, active = $8, persona = $9, tools = $10,
         sub_agents = $11, planner = $12, metadata = $13, updated_at = $14, deleted_at = $15, version = version + 1
     WHERE tenant_id = $1 AND id = $2
     RETURNING ",
    columns!(),
));
static INCREMENT_RUN_ID: Sql = Sql::both(
    "UPDATE agents SET run_id = run_id + 1, updated_at = $3
     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
     RETURNING run_id",
);
// Uses that race may arrive in another order than they happened: the latest stays.
static RECORD_USE: Sql = Sql::both(
    "UPDATE agents SET
         usage_count = usage_count + 1, updated_at = $3,
         last_used_at = CASE WHEN last_used_at > $3 THEN last_used_at ELSE $3 END
     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
     RETURNING usage_count",
);
// A list of ids is one text on both engines: PostgreSQL splits it, SQLite has no arrays and reads it as JSON.
static STAMPS: Sql = Sql::per_engine(
    "SELECT a.id, a.version, p.id
     FROM agents a
     LEFT JOIN prompts p ON p.tenant_id = $1 AND p.agent_key = a.id AND p.name = $3 AND p.active
     WHERE a.tenant_id = $1 AND a.id = ANY(CAST(string_to_array($2, ',') AS int8[]))",
    "SELECT a.id, a.version, p.id
     FROM json_each('[' || $2 || ']') AS wanted
     CROSS JOIN agents a ON a.tenant_id = $1 AND a.id = wanted.value
     LEFT JOIN prompts p ON p.tenant_id = $1 AND p.agent_key = a.id AND p.name = $3 AND p.active",
)
.short();
static DELETE: Sql = Sql::both("DELETE FROM agents WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (
    &TABLE,
    &[
        &NEXT_ID,
        &CREATE,
        &CREATE_UNLESS_NAME_EXISTS,
        &GET,
        &GET_BY_NAME,
        &LOCK,
        &LOCK_BY_NAME,
        &LOCK_TO_DELETE,
        &CHANGE,
        &INCREMENT_RUN_ID,
        &RECORD_USE,
        &STAMPS,
        &DELETE,
    ],
);

impl Agents<'_> {
    /// Creates an agent with the tenant's next number, and its version 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the name is taken.
    pub async fn create(&self, new: NewAgent) -> Result<Agent> {
        let (content, note) = new.into_snapshot()?;
        let (content, note) = (&content, &note);
        let create = |executor: Executor| async move {
            let created = self.insert(&executor, &CREATE, content, note).await?;
            created.ok_or_else(|| Error::database("the agent that was written did not come back"))
        };
        self.0.executor.transaction(create).await
    }

    /// Creates an agent, or changes the one of that name to what is given here. Its counters stay; a version
    /// is made only when something differs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule.
    pub async fn upsert(&self, new: NewAgent) -> Result<Agent> {
        let (content, note) = new.into_snapshot()?;
        let (content, note) = (&content, &note);
        let upsert = |executor: Executor| async move {
            let name = params![self.0.tenant, content.name.as_str()];
            loop {
                if let Some(current) = executor.fetch_optional::<Agent>(&LOCK_BY_NAME, &name).await? {
                    return self.save(&executor, current, content, note).await;
                }
                // A racing upsert may have made it by now; then it is there to be locked.
                if let Some(created) = self.insert(&executor, &CREATE_UNLESS_NAME_EXISTS, content, note).await? {
                    return Ok(created);
                }
            }
        };
        self.0.executor.transaction(upsert).await
    }

    /// Writes a new agent and its first version; `None` when the statement found the name taken.
    async fn insert(
        &self,
        executor: &Executor,
        sql: &Sql,
        content: &AgentSnapshot,
        note: &VersionNote,
    ) -> Result<Option<Agent>> {
        let tenant = self.0.tenant;
        let id: Option<(AgentId,)> = executor.fetch_optional(&NEXT_ID, &params![tenant]).await?;
        let (id,) = id.ok_or_else(|| no_tenant(tenant))?;
        let now = self.0.now();
        let params = content_params(tenant, id, content, now)?;
        let created: Option<Agent> = write(executor, &TABLE, sql, &params, &held(content)).await?.into_iter().next();
        if let Some(created) = &created {
            agent_versions::keep(executor, self.0, created, note, now).await?;
        }
        Ok(created)
    }

    /// The agent with that id, also when it is soft-deleted (`deleted_at` says so); `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: AgentId) -> Result<Option<Agent>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The agent of that name; `None` when there is none, or only a soft-deleted one.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_name(&self, name: &str) -> Result<Option<Agent>> {
        self.0.executor.fetch_optional(&GET_BY_NAME, &params![self.0.tenant, name]).await
    }

    /// What tells whether what a reader made of these agents, and of their prompts of one name, still holds, in the
    /// order of the ids; `None` for those that are not there. One short statement.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than 1,000 ids.
    pub async fn stamps(&self, ids: &[AgentId], prompt: &str) -> Result<Vec<Option<AgentStamp>>> {
        let list = id_list("ids", ids.iter().map(|id| id.0.to_string()))?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let params = params![self.0.tenant, list, prompt];
        let found: Vec<(AgentId, i64, Option<PromptId>)> = self.0.executor.fetch_all(&STAMPS, &params).await?;
        let stamp = |(id, version, active_prompt)| (id, AgentStamp { id, version, active_prompt });
        let found: HashMap<AgentId, AgentStamp> = found.into_iter().map(stamp).collect();
        Ok(ids.iter().map(|id| found.get(id).copied()).collect())
    }

    /// One page of the agents. Soft-deleted ones are left out, unless the request filters by deleted_at.
    /// Filters: id, name, type, model, planner, active, version, run_id, usage_count, last_used_at,
    /// deleted_at, created_at, updated_at, config.PATH, persona.PATH, metadata.PATH. Orders: id (the default),
    /// name, type, version, run_id, usage_count, created_at, updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Agent>> {
        if request.filters.iter().any(|filter| filter.field == "deleted_at") {
            return self.list_with_deleted(request).await;
        }
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// As [`Agents::list`], the soft-deleted ones included.
    ///
    /// # Errors
    /// As [`Agents::list`].
    pub async fn list_with_deleted(&self, request: &ListRequest) -> Result<Page<Agent>> {
        list_from(&WITH_DELETED, &self.0.executor, self.0.tenant, request).await
    }

    /// Changes an agent; what the patch leaves out stays, and no change of somebody else is lost: JSON is
    /// merged, and with a `version` nothing is changed unless it is still the newest. What differs then makes
    /// the next version.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a soft-deleted agent; [`Error::Invalid`]; [`Error::AlreadyExists`] when
    /// the new name is taken; [`Error::StaleRevision`] with the newest version.
    pub async fn update(&self, id: AgentId, patch: AgentPatch) -> Result<Agent> {
        self.change(id, &patch.version_note(), |agent, _| {
            not_deleted(agent)?;
            patch.apply(agent)
        })
        .await
    }

    /// Takes an agent out of use but keeps it: it is inactive, no longer found by name or listed, and a new
    /// agent may take its name. Its conversations stay readable. This makes a version of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when it is soft-deleted already.
    pub async fn soft_delete(&self, id: AgentId, note: &VersionNote) -> Result<Agent> {
        self.change(id, note, |agent, now| {
            not_deleted(agent)?;
            Ok(AgentSnapshot { active: false, deleted_at: Some(now), ..agent.snapshot() })
        })
        .await
    }

    /// Brings a soft-deleted agent back into use, active. This makes a version of it. An agent that is not
    /// deleted stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::AlreadyExists`] when another agent has taken its name.
    pub async fn restore(&self, id: AgentId, note: &VersionNote) -> Result<Agent> {
        self.change(id, note, |agent, _| {
            let content = agent.snapshot();
            let active = content.active || content.deleted_at.is_some();
            Ok(AgentSnapshot { active, deleted_at: None, ..content })
        })
        .await
    }

    /// Deletes an agent with its versions, memories, prompts, MCP server links and memberships in teams. Its
    /// sessions stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: AgentId) -> Result<()> {
        let delete = |executor: Executor| async move {
            let params = params![self.0.tenant, id];
            let locked: Option<(AgentId,)> = executor.fetch_optional(&LOCK_TO_DELETE, &params).await?;
            locked.ok_or_else(|| not_found(id))?;
            TeamMembers(self.0).leave_all(&executor, id).await?;
            executor.execute(&DELETE, &params).await.map(|_| ())
        };
        self.0.executor.transaction(delete).await
    }

    /// Counts a run of the agent; its number. Callers at the same time get different numbers.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a soft-deleted agent.
    pub async fn increment_run_id(&self, id: AgentId) -> Result<i64> {
        self.count(&INCREMENT_RUN_ID, id).await
    }

    /// Counts a use of the agent and keeps its time; how often it was used by now.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a soft-deleted agent.
    pub async fn record_use(&self, id: AgentId) -> Result<i64> {
        self.count(&RECORD_USE, id).await
    }

    async fn count(&self, sql: &Sql, id: AgentId) -> Result<i64> {
        let counted: Vec<(i64,)> =
            write(&self.0.executor, &TABLE, sql, &params![self.0.tenant, id, self.0.now()], &[]).await?;
        counted.first().map(|(number,)| *number).ok_or_else(|| not_found(id))
    }

    /// Makes the agent the one that leads the session.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session, [`Error::MissingReference`] when there is no such
    /// agent.
    pub async fn link_session(&self, id: AgentId, session: SessionId) -> Result<Session> {
        let patch = SessionPatch { agent_id: Some(Some(id)), ..SessionPatch::default() };
        Sessions(self.0).update(session, patch).await
    }

    /// Replaces what the agent is by what `next` makes of it and of the time, under its row lock.
    pub(super) async fn change(
        &self,
        id: AgentId,
        note: &VersionNote,
        next: impl Fn(&Agent, Timestamp) -> Result<AgentSnapshot>,
    ) -> Result<Agent> {
        note.check()?;
        let next = &next;
        let change = |executor: Executor| async move {
            let current: Option<Agent> = executor.fetch_optional(&LOCK, &params![self.0.tenant, id]).await?;
            let current = current.ok_or_else(|| not_found(id))?;
            let content = next(&current, self.0.now())?;
            self.save(&executor, current, &content, note).await
        };
        self.0.executor.transaction(change).await
    }

    /// Writes what differs as the next version of an agent that is locked; nothing when nothing differs.
    async fn save(
        &self,
        executor: &Executor,
        current: Agent,
        content: &AgentSnapshot,
        note: &VersionNote,
    ) -> Result<Agent> {
        if current.snapshot() == *content {
            return Ok(current);
        }
        let now = self.0.now();
        let params = content_params(self.0.tenant, current.id, content, now)?;
        let changed: Agent = write_one(executor, &TABLE, &CHANGE, &params, &held(content)).await?;
        agent_versions::keep(executor, self.0, &changed, note, now).await?;
        Ok(changed)
    }
}

fn not_found(id: AgentId) -> Error {
    Error::not_found(TABLE.entity, id)
}

fn not_deleted(agent: &Agent) -> Result<()> {
    if agent.deleted_at.is_some() { Err(not_found(agent.id)) } else { Ok(()) }
}

fn no_tenant(tenant: TenantId) -> Error {
    Error::MissingReference { field: "tenant_id".into(), entity: "tenant", value: tenant.to_string() }
}

/// What is unique about an agent.
fn held(content: &AgentSnapshot) -> [(&'static str, Value); 1] {
    [("name", Value::from(content.name.as_str()))]
}

/// The parameters of [`CREATE`] and [`CHANGE`].
fn content_params(tenant: TenantId, id: AgentId, content: &AgentSnapshot, now: Timestamp) -> Result<Vec<Value>> {
    let content = content.clone();
    let persona = content.persona.to_json()?;
    Ok(params![
        tenant,
        id,
        content.name,
        content.kind,
        content.model,
        content.description,
        content.config,
        content.active,
        persona,
        content.tools,
        content.sub_agents,
        content.planner,
        content.metadata,
        now,
        content.deleted_at,
    ]
    .into())
}
