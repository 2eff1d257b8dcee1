//! MCP servers.

#[cfg(doc)]
use agentkeep_core::Error;
use agentkeep_core::{
    Direction, JsonArray, ListRequest, McpServer, McpServerId, McpServerPatch, NewMcpServer, Page, Result, SecretObject,
};

use super::{
    list::list,
    table::{Changes, Field, FieldKind, Table, delete, params, record, write_one},
};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The MCP servers of a tenant.
pub struct McpServers<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, name, transport, command, url, env, headers, enabled, status, last_error, metadata, created_at, updated_at"
    };
}

macro_rules! insert {
    ($conflict:literal) => {
        concat!(
            "INSERT INTO mcp_servers (tenant_id, id, name, transport, command, url, env, headers, enabled, status, \
             metadata, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'stopped', $10, $11, $11) ",
            $conflict,
            " RETURNING ",
            columns!()
        )
    };
}

record!(McpServer, &TABLE, {
    id, name, transport, command, url, env, headers, enabled, status, last_error, metadata, created_at, updated_at,
});

// Nothing is filtered by env or headers: that would tell secrets by guessing.
static TABLE: Table = Table {
    entity: "MCP server",
    name: "mcp_servers",
    from: "mcp_servers",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("created_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("transport", FieldKind::Text),
        Field::new("url", FieldKind::Text),
        Field::new("enabled", FieldKind::Bool),
        Field::new("status", FieldKind::Text),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("updated_at", FieldKind::Time).sortable(),
        Field::new("metadata", FieldKind::Json),
    ],
    unique: &[&["name"]],
    references: &[],
};

static CREATE: Sql = Sql::both(insert!(""));
// What the server was last seen doing is not part of what is given, and stays.
static UPSERT: Sql = Sql::both(insert!(
    "ON CONFLICT (tenant_id, name) DO UPDATE SET
         transport = excluded.transport, command = excluded.command, url = excluded.url, env = excluded.env,
         headers = excluded.headers, enabled = excluded.enabled, metadata = excluded.metadata,
         updated_at = excluded.updated_at"
));
static GET: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM mcp_servers WHERE tenant_id = $1 AND id = $2")).short();
static GET_BY_NAME: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM mcp_servers WHERE tenant_id = $1 AND name = $2")).short();
static DELETE: Sql = Sql::both("DELETE FROM mcp_servers WHERE tenant_id = $1 AND id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&CREATE, &UPSERT, &GET, &GET_BY_NAME, &DELETE]);

impl McpServers<'_> {
    /// Creates an MCP server; its status is `stopped`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::AlreadyExists`] when the name or the id is
    /// taken.
    pub async fn create(&self, new: NewMcpServer) -> Result<McpServer> {
        self.insert(&CREATE, new).await
    }

    /// Creates an MCP server, or changes the one of that name to what is given here. Its status and last error
    /// stay, and so do its links to agents.
    ///
    /// # Errors
    /// As [`McpServers::create`], the taken name excepted.
    pub async fn upsert(&self, new: NewMcpServer) -> Result<McpServer> {
        self.insert(&UPSERT, new).await
    }

    async fn insert(&self, sql: &Sql, new: NewMcpServer) -> Result<McpServer> {
        new.check()?;
        let now = self.0.now();
        let id = new.id.unwrap_or_else(|| self.0.new_id(now));
        let held = [("id", Value::from(id)), ("name", Value::from(new.name.as_str()))];
        let command = JsonArray::from_serialize("command", &new.command)?;
        let params = params![
            self.0.tenant,
            id,
            new.name,
            new.transport,
            command,
            new.url,
            new.env,
            new.headers,
            new.enabled.unwrap_or(true),
            new.metadata,
            now,
        ];
        write_one(&self.0.executor, &TABLE, sql, &params, &held).await
    }

    /// The MCP server with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: McpServerId) -> Result<Option<McpServer>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// The MCP server of that name; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get_by_name(&self, name: &str) -> Result<Option<McpServer>> {
        self.0.executor.fetch_optional(&GET_BY_NAME, &params![self.0.tenant, name]).await
    }

    /// One page of the MCP servers. Filters: id, name, transport, url, enabled, status, created_at,
    /// updated_at, metadata.PATH. Orders: id, name, created_at (the default), updated_at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<McpServer>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Changes an MCP server; what the patch leaves out stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AlreadyExists`] when the new name is taken, or [`Error::Invalid`], also
    /// when the server could not be reached any more with the transport it has then.
    pub async fn update(&self, id: McpServerId, patch: McpServerPatch) -> Result<McpServer> {
        patch.check()?;
        let (tenant, patch) = (self.0.tenant, &patch);
        let update = |executor: Executor| async move {
            let held = [("name", Value::from(patch.name.clone()))];
            let changes = changes(Changes::new(executor.dialect(), tenant, id), patch.clone())?;
            let server: McpServer = changes.apply(&executor, &TABLE, &GET, self.0.now(), &held).await?;
            server.check()?;
            Ok(server)
        };
        self.0.executor.transaction(update).await
    }

    /// Deletes an MCP server with its links to agents.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: McpServerId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }
}

fn changes(mut changes: Changes, patch: McpServerPatch) -> Result<Changes> {
    let command = patch.command.map(|command| JsonArray::from_serialize("command", &command)).transpose()?;
    changes.set("name", patch.name);
    changes.set("transport", patch.transport);
    changes.set("command", command);
    changes.set("url", patch.url);
    changes.merge("env", patch.env.map(SecretObject::into_revealed));
    changes.merge("headers", patch.headers.map(SecretObject::into_revealed));
    changes.set("enabled", patch.enabled);
    changes.set("status", patch.status);
    changes.set("last_error", patch.last_error);
    changes.merge("metadata", patch.metadata);
    Ok(changes)
}
