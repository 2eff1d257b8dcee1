use agentkeep_core::{McpServer, McpServerId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get an MCP server.
///
/// The values of `env` and `headers` are shown as `***`.
#[utoipa::path(get, path = "/mcp-servers/{id}", tag = "mcp-servers",
    params(("id" = McpServerId, Path, description = "Its id")),
    responses((status = 200, description = "The MCP server", body = McpServer)))]
pub(super) async fn get(caller: Caller, Id(id): Id<McpServerId>) -> Result<Found<McpServer>> {
    Found::or_not(caller.tenant.mcp_servers().get(id).await?, id)
}
