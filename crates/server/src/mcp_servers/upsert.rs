use agentkeep_core::{McpServer, NewMcpServer};

use crate::{auth::Caller, body::Body, error::Result, resource::Found};

/// Create an MCP server, or change the one of that name to what is given here.
///
/// Its status, its last error and its links to agents stay.
#[utoipa::path(put, path = "/mcp-servers", tag = "mcp-servers", request_body = NewMcpServer,
    responses((status = 200, description = "The MCP server", body = McpServer)))]
pub(super) async fn upsert(caller: Caller, Body(new): Body<NewMcpServer>) -> Result<Found<McpServer>> {
    Ok(Found(caller.tenant.mcp_servers().upsert(new).await?))
}
