use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{McpServer, McpServerId, McpServerPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change an MCP server.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away. A secret that is to stay is left
/// out: `***` is refused as a value.
#[utoipa::path(patch, path = "/mcp-servers/{id}", tag = "mcp-servers",
    params(("id" = McpServerId, Path, description = "Its id")),
    request_body(content = McpServerPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The MCP server", body = McpServer)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<McpServerId>,
    if_match: IfMatch,
    Body(patch): Body<McpServerPatch>,
) -> Result<Found<McpServer>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.mcp_servers().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::McpServer(id), change).await.map(Found)
}
