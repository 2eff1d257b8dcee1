//! Versions of prompts. Whoever adds or activates a version locks the row of the prompt's head first, so that
//! numbers are distinct and at most one version is active whatever races.

use agentkeep_core::{
    AgentId, Direction, Error, ListRequest, NewPrompt, Page, Prompt, PromptId, PromptPatch, Result, TenantId, Timestamp,
};

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Reference, Table, delete, params, record, write, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The prompts of a tenant.
pub struct Prompts<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, agent_id, name, version, text, active, metadata, created_at, updated_at"
    };
}

record!(Prompt, &TABLE, { id, agent_id, name, version, text, active, metadata, created_at, updated_at });

static TABLE: Table = Table {
    entity: "prompt",
    name: "prompts",
    from: "prompts",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("agent_id", FieldKind::Int),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("version", FieldKind::Int).sortable(),
        Field::new("active", FieldKind::Bool),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[],
    references: &[Reference::new("agent_id", "agent", "agents")],
};

// Takes the next number and the lock.
static NEXT_VERSION: Sql = Sql::both(
    "INSERT INTO prompt_heads (tenant_id, agent_key, agent_id, name, last_version) VALUES ($1, $2, $3, $4, 1)
     ON CONFLICT (tenant_id, agent_key, name) DO UPDATE SET last_version = prompt_heads.last_version + 1
     RETURNING last_version",
);
static CREATE: Sql = Sql::both(concat!(
    "INSERT INTO prompts (tenant_id, id, agent_id, agent_key, name, version, text, active, metadata, created_at,
         updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
     RETURNING ",
    columns!(),
));
// Takes the lock: an update that changes nothing, since SQLite has no SELECT FOR UPDATE.
pub(super) static LOCK: Sql = Sql::both(
    "UPDATE prompt_heads SET last_version = last_version
     WHERE tenant_id = $1
       AND (agent_key, name) = (SELECT agent_key, name FROM prompts WHERE tenant_id = $1 AND id = $2)
     RETURNING agent_key, name",
);
static DEACTIVATE_OTHERS: Sql = Sql::both(
    "UPDATE prompts SET active = false, updated_at = $5
     WHERE tenant_id = $1 AND agent_key = $2 AND name = $3 AND active AND id <> $4",
);
static ACTIVATE: Sql = Sql::both(concat!(
    "UPDATE prompts SET active = true, updated_at = $3 WHERE tenant_id = $1 AND id = $2 AND NOT active RETURNING ",
    columns!(),
));
static DEACTIVATE: Sql = Sql::both(concat!(
    "UPDATE prompts SET active = false, updated_at = $3 WHERE tenant_id = $1 AND id = $2 AND active RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM prompts WHERE tenant_id = $1 AND id = $2")).short();
static GET_ACTIVE: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM prompts WHERE tenant_id = $1 AND agent_key = $2 AND name = $3 AND active"
))
.short();
static GET_VERSION: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM prompts WHERE tenant_id = $1 AND agent_key = $2 AND name = $3 AND version = $4"
))
.short();
static DELETE: Sql = Sql::both("DELETE FROM prompts WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (
    &TABLE,
    &[
        &NEXT_VERSION,
        &CREATE,
        &LOCK,
        &DEACTIVATE_OTHERS,
        &ACTIVATE,
        &DEACTIVATE,
        &GET,
        &GET_ACTIVE,
        &GET_VERSION,
        &DELETE,
    ],
);

impl Prompts<'_> {
    /// Creates the next version of a prompt: it gets the number after the newest, and is active at once if it
    /// says so.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the id is taken,
    /// [`Error::MissingReference`] when the agent does not exist in this tenant.
    pub async fn create(&self, new: NewPrompt) -> Result<Prompt> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let (tenant, new) = (self.0.tenant, &new);
        let create = |executor: Executor| async move {
            let version = next_version(&executor, tenant, new).await?;
            if new.active {
                deactivate_others(&executor, tenant, (agent_key(new.agent_id), &new.name), id, now).await?;
            }
            let params = params![
                tenant,
                id,
                new.agent_id,
                agent_key(new.agent_id),
                new.name.as_str(),
                version,
                new.text.as_str(),
                new.active,
                new.metadata.clone(),
                now,
            ];
            let held = [("id", Value::from(id)), ("agent_id", Value::from(new.agent_id))];
            write_one(&executor, &TABLE, &CREATE, &params, &held).await
        };
        self.0.executor.transaction(create).await
    }

    /// Makes a version the active one, in place of the version that was. A version that is active already
    /// stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn activate(&self, id: PromptId) -> Result<Prompt> {
        let (tenant, now) = (self.0.tenant, self.0.now());
        let activate = |executor: Executor| async move {
            let not_found = || Error::not_found(TABLE.entity, id);
            let head: Option<(i64, String)> = executor.fetch_optional(&LOCK, &params![tenant, id]).await?;
            let (agent_key, name) = head.ok_or_else(not_found)?;
            deactivate_others(&executor, tenant, (agent_key, &name), id, now).await?;
            let activated = executor.fetch_optional(&ACTIVATE, &params![tenant, id, now]).await?;
            match activated {
                Some(prompt) => Ok(prompt),
                None => executor.fetch_optional(&GET, &params![tenant, id]).await?.ok_or_else(not_found),
            }
        };
        self.0.executor.transaction(activate).await
    }

    /// Makes a version inactive: none of its prompt is active then. A version that is not active stays as it
    /// is.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn deactivate(&self, id: PromptId) -> Result<Prompt> {
        let params = params![self.0.tenant, id, self.0.now()];
        let changed = write(&self.0.executor, &TABLE, &DEACTIVATE, &params, &[]).await?.into_iter().next();
        match changed {
            Some(prompt) => Ok(prompt),
            None => self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id)),
        }
    }

    /// The version with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: PromptId) -> Result<Option<Prompt>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The active version of the prompt that an agent, or none, has under that name; `None` when no version
    /// is active.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_active(&self, agent: Option<AgentId>, name: &str) -> Result<Option<Prompt>> {
        self.0.executor.fetch_optional(&GET_ACTIVE, &params![self.0.tenant, agent_key(agent), name]).await
    }

    /// The version of that number of the prompt that an agent, or none, has under that name; `None` when
    /// there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_version(&self, agent: Option<AgentId>, name: &str, version: i64) -> Result<Option<Prompt>> {
        let params = params![self.0.tenant, agent_key(agent), name, version];
        self.0.executor.fetch_optional(&GET_VERSION, &params).await
    }

    /// One page of the versions of prompts. Filters: id, agent_id, name, version, active, created_at,
    /// updated_at, metadata.PATH. Orders: id, created_at (the default), updated_at, name, version.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Prompt>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes the metadata of a version; its text never changes.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Invalid`].
    pub async fn update(&self, id: PromptId, patch: PromptPatch) -> Result<Prompt> {
        patch.check()?;
        let mut changes = Changes::new(self.0.executor.dialect(), self.0.tenant, id);
        changes.merge("metadata", patch.metadata);
        changes.apply(&self.0.executor, &TABLE, &GET, self.0.now(), &[]).await
    }

    /// Deletes a version. Its number is not given again; when it was active, no version is.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: PromptId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}

async fn next_version(executor: &Executor, tenant: TenantId, new: &NewPrompt) -> Result<i64> {
    let params = params![tenant, agent_key(new.agent_id), new.agent_id, new.name.as_str()];
    let held = [("agent_id", Value::from(new.agent_id))];
    let (version,) = write_one(executor, &TABLE, &NEXT_VERSION, &params, &held).await?;
    Ok(version)
}

/// Under the lock of the head.
async fn deactivate_others(
    executor: &Executor,
    tenant: TenantId,
    (agent_key, name): (i64, &str),
    id: PromptId,
    now: Timestamp,
) -> Result<u64> {
    executor.execute(&DEACTIVATE_OTHERS, &params![tenant, agent_key, name, id, now]).await
}

/// Stands for the agent in the unique key. Agents are numbered from 1.
fn agent_key(agent: Option<AgentId>) -> i64 {
    agent.map_or(0, |agent| agent.0)
}
