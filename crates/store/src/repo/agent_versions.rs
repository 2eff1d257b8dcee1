//! The versions of agents. They are written with the change that makes them and never change themselves.

use agentkeep_core::{
    Agent, AgentId, AgentVersion, AgentVersionId, Direction, Error, FieldDifference, ListRequest, Page, Result,
    Timestamp, VersionNote,
};

use super::{
    Agents,
    list::list,
    table::{Field, FieldKind, Table, params, record},
};
use crate::{
    engine::{Executor, Sql},
    store::TenantStore,
};

/// The versions of the agents of a tenant.
pub struct AgentVersions<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, agent_id, number, snapshot, author, note, created_at"
    };
}

record!(AgentVersion, &TABLE, { id, agent_id, number, snapshot, author, note, created_at });

static TABLE: Table = Table {
    entity: "agent version",
    name: "agent_versions",
    from: "agent_versions",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("number", Direction::Descending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("agent_id", FieldKind::Int),
        Field::new("number", FieldKind::Int).sortable(),
        Field::new("author", FieldKind::Text),
        Field::new("note", FieldKind::Text),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("snapshot", FieldKind::Json),
    ],
    unique: &[&["agent_id", "number"]],
    references: &[],
};

static KEEP: Sql = Sql::both(
    "INSERT INTO agent_versions (tenant_id, agent_id, number, id, snapshot, author, note, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
);
static GET: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM agent_versions WHERE tenant_id = $1 AND agent_id = $2 AND number = $3"
))
.short();

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&KEEP, &GET]);

/// Keeps an agent as it is after a change, in the transaction of the change.
pub(super) async fn keep(
    executor: &Executor,
    store: &TenantStore,
    agent: &Agent,
    note: &VersionNote,
    now: Timestamp,
) -> Result<()> {
    let id: AgentVersionId = store.new_id(now);
    let snapshot = agent.snapshot().to_json()?;
    let (author, note) = (note.author.clone(), note.note.clone());
    let params = params![store.tenant, agent.id, agent.version, id, snapshot, author, note, now];
    executor.execute(&KEEP, &params).await.map(|_| ())
}

impl AgentVersions<'_> {
    /// The version of an agent with that number; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, agent: AgentId, number: i64) -> Result<Option<AgentVersion>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, agent, number]).await
    }

    /// One page of the versions, of one agent when filtered by agent_id. Filters: id, agent_id, number,
    /// author, note, created_at, snapshot.PATH. Orders: number (the default, newest first), id, created_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<AgentVersion>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// The fields that differ between two versions of an agent, each with its value in the one and in the
    /// other; empty when they are the same.
    ///
    /// # Errors
    /// [`Error::NotFound`] when one of them does not exist.
    pub async fn diff(&self, agent: AgentId, from: i64, to: i64) -> Result<Vec<FieldDifference>> {
        let from = self.existing(agent, from).await?;
        let to = self.existing(agent, to).await?;
        from.snapshot.diff(&to.snapshot)
    }

    /// Makes an agent as it was in a version, soft deletion included. That is a change as any other: it makes
    /// the next version, unless the agent is just as it was then.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the version does not exist, [`Error::AlreadyExists`] when another agent has
    /// taken the name it had then.
    pub async fn restore(&self, agent: AgentId, number: i64, note: &VersionNote) -> Result<Agent> {
        let version = self.existing(agent, number).await?;
        Agents(self.0).change(agent, note, |_, _| Ok(version.snapshot.clone())).await
    }

    async fn existing(&self, agent: AgentId, number: i64) -> Result<AgentVersion> {
        let found = self.get(agent, number).await?;
        found.ok_or_else(|| Error::not_found(TABLE.entity, format!("{number} of agent {agent}")))
    }
}
