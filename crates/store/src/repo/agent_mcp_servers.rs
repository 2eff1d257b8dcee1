//! Which agent uses which MCP server, with which of its tools.

use agentkeep_core::{
    AgentId, AgentMcpServer, AgentMcpServerPatch, AssignedMcpServer, Direction, Error, JsonArray, ListRequest,
    McpServer, McpServerId, Page, Result, limits,
};

use super::{
    list::list,
    table::{Field, FieldKind, Record, Reference, Table, params, record, write_one},
};
use crate::{
    engine::{FromRow, RowRef, Sql, Value},
    store::TenantStore,
};

/// The links between the agents and the MCP servers of a tenant.
pub struct AgentMcpServers<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "agent_id, mcp_server_id, enabled, tools, created_at, updated_at"
    };
}

record!(AgentMcpServer, &TABLE, { agent_id, mcp_server_id, enabled, tools, created_at, updated_at });

/// A link, and the server behind it.
impl FromRow for AssignedMcpServer {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self { link: AgentMcpServer::read(row, 0)?, server: McpServer::read(row, AgentMcpServer::WIDTH)? })
    }
}

static TABLE: Table = Table {
    entity: "MCP server of an agent",
    name: "agent_mcp_servers",
    from: "agent_mcp_servers",
    tenant: "tenant_id = $1",
    columns: columns!(),
    // An agent is linked to a server once, so the two order all links.
    key: "mcp_server_id",
    order: ("agent_id", Direction::Ascending),
    fields: &[
        Field::new("agent_id", FieldKind::Int).sortable(),
        Field::new("mcp_server_id", FieldKind::Uuid),
        Field::new("enabled", FieldKind::Bool),
        Field::new("created_at", FieldKind::Time),
        Field::new("updated_at", FieldKind::Time),
    ],
    unique: &[],
    references: &[
        Reference::new("agent_id", "agent", "agents"),
        Reference::new("mcp_server_id", "MCP server", "mcp_servers"),
    ],
};

static ASSIGN: Sql = Sql::both(concat!(
    "INSERT INTO agent_mcp_servers (tenant_id, agent_id, mcp_server_id, enabled, tools, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $6)
     ON CONFLICT (tenant_id, agent_id, mcp_server_id) DO UPDATE SET
         enabled = excluded.enabled, tools = excluded.tools, updated_at = excluded.updated_at
     RETURNING ",
    columns!(),
));
static GET: Sql = Sql::both(concat!(
    "SELECT ",
    columns!(),
    " FROM agent_mcp_servers WHERE tenant_id = $1 AND agent_id = $2 AND mcp_server_id = $3"
))
.short();
static UPDATE: Sql = Sql::both(concat!(
    "UPDATE agent_mcp_servers SET
         enabled = COALESCE($4, enabled), tools = CASE WHEN $5 THEN $6 ELSE tools END, updated_at = $7
     WHERE tenant_id = $1 AND agent_id = $2 AND mcp_server_id = $3
     RETURNING ",
    columns!(),
));
static OF_AGENT: Sql = Sql::both(
    "SELECT l.agent_id, l.mcp_server_id, l.enabled, l.tools, l.created_at, l.updated_at,
            s.id, s.name, s.transport, s.command, s.url, s.env, s.headers, s.enabled, s.status, s.last_error,
            s.metadata, s.created_at, s.updated_at
     FROM agent_mcp_servers l JOIN mcp_servers s ON s.tenant_id = l.tenant_id AND s.id = l.mcp_server_id
     WHERE l.tenant_id = $1 AND s.tenant_id = $1 AND l.agent_id = $2
     ORDER BY s.name",
)
.short();
static AGENT: Sql = Sql::both("SELECT id FROM agents WHERE tenant_id = $1 AND id = $2").short();
static DELETE: Sql =
    Sql::both("DELETE FROM agent_mcp_servers WHERE tenant_id = $1 AND agent_id = $2 AND mcp_server_id = $3");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&ASSIGN, &GET, &UPDATE, &OF_AGENT, &AGENT, &DELETE]);

impl AgentMcpServers<'_> {
    /// Lets an agent use an MCP server, with these of its tools, or with all. A link that is there already is
    /// changed to that.
    ///
    /// # Errors
    /// [`Error::MissingReference`] when agent or server do not exist in this tenant, [`Error::Invalid`] for a
    /// tool without a name.
    pub async fn assign(
        &self,
        agent: AgentId,
        server: McpServerId,
        enabled: bool,
        tools: Option<Vec<String>>,
    ) -> Result<AgentMcpServer> {
        let tools = tools_param(tools)?;
        let held = [("agent_id", Value::from(agent)), ("mcp_server_id", Value::from(server))];
        let params = params![self.0.tenant, agent, server, enabled, tools, self.0.now()];
        write_one(&self.0.executor, &TABLE, &ASSIGN, &params, &held).await
    }

    /// The link of an agent to an MCP server; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, agent: AgentId, server: McpServerId) -> Result<Option<AgentMcpServer>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, agent, server]).await
    }

    /// Changes a link; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the agent does not have the server, [`Error::Invalid`] for a tool without a
    /// name.
    pub async fn update(
        &self,
        agent: AgentId,
        server: McpServerId,
        patch: AgentMcpServerPatch,
    ) -> Result<AgentMcpServer> {
        let found = if patch == AgentMcpServerPatch::default() {
            self.get(agent, server).await?
        } else {
            let changes_tools = patch.tools.is_some();
            let tools = tools_param(patch.tools.flatten())?;
            let params = params![self.0.tenant, agent, server, patch.enabled, changes_tools, tools, self.0.now()];
            self.0.executor.fetch_optional(&UPDATE, &params).await?
        };
        found.ok_or_else(|| not_linked(agent, server))
    }

    /// Takes an MCP server away from an agent.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the agent does not have it.
    pub async fn remove(&self, agent: AgentId, server: McpServerId) -> Result<()> {
        match self.0.executor.execute(&DELETE, &params![self.0.tenant, agent, server]).await? {
            0 => Err(not_linked(agent, server)),
            _ => Ok(()),
        }
    }

    /// The MCP servers of an agent by name, each with its link, the disabled ones too; empty when it has none.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such agent.
    pub async fn list_by_agent(&self, agent: AgentId) -> Result<Vec<AssignedMcpServer>> {
        let params = params![self.0.tenant, agent];
        let servers = self.0.executor.fetch_all(&OF_AGENT, &params).await?;
        if servers.is_empty() && self.0.executor.fetch_optional::<(AgentId,)>(&AGENT, &params).await?.is_none() {
            return Err(Error::not_found("agent", agent));
        }
        Ok(servers)
    }

    /// One page of the links: the agents that use a server, when filtered by mcp_server_id. Filters: agent_id,
    /// mcp_server_id, enabled, created_at, updated_at. Orders: agent_id (the default).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<AgentMcpServer>> {
        list(&self.0.executor, self.0.tenant, request).await
    }
}

fn not_linked(agent: AgentId, server: McpServerId) -> Error {
    Error::not_found(TABLE.entity, format!("{server} of agent {agent}"))
}

fn tools_param(tools: Option<Vec<String>>) -> Result<Option<JsonArray>> {
    let Some(tools) = tools else { return Ok(None) };
    for (index, tool) in tools.iter().enumerate() {
        limits::check_name(&format!("tools[{index}]"), tool)?;
    }
    JsonArray::from_serialize("tools", &tools).map(Some)
}
