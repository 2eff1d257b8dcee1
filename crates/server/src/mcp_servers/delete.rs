use agentkeep::{Lockable, TenantStore};
use agentkeep_core::McpServerId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete an MCP server with its links to agents.
#[utoipa::path(delete, path = "/mcp-servers/{id}", tag = "mcp-servers",
    params(("id" = McpServerId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<McpServerId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.mcp_servers().delete(id).await };
    if_match.then(&caller, Lockable::McpServer(id), delete).await.map(|()| Gone)
}
