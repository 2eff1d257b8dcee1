use agentkeep_core::McpServer;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List MCP servers.
///
/// Filters: id, name, transport, url, enabled, status, created_at, updated_at, metadata.PATH. Orders: id, name,
/// created_at (the default), updated_at.
#[utoipa::path(get, path = "/mcp-servers", tag = "mcp-servers", params(ListParams),
    responses((status = 200, description = "A page of MCP servers", body = ListOf<McpServer>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<McpServer>> {
    Ok(caller.tenant.mcp_servers().list(&request).await?.into())
}
