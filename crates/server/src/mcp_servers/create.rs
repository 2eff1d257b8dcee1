use agentkeep_core::{McpServer, NewMcpServer};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create an MCP server.
///
/// The values of `env` and `headers` are secrets: they are kept, and shown as `***` ever after. 409 when the name or
/// the id is taken.
#[utoipa::path(post, path = "/mcp-servers", tag = "mcp-servers", request_body = NewMcpServer,
    responses((status = 201, description = "The MCP server", body = McpServer)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewMcpServer>) -> Result<Created<McpServer>> {
    Ok(Created(caller.tenant.mcp_servers().create(new).await?))
}
