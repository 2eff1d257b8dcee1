use agentkeep::TenantStore;
use agentkeep_core::{Agent, AgentId, AgentPatch};

use super::change;
use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change an agent. What differs then makes its next version.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away. With a `version` it is changed only if
/// that is still the newest, else 409 with the one that is.
#[utoipa::path(patch, path = "/agents/{id}", tag = "agents", params(("id" = AgentId, Path, description = "Its id")),
    request_body(content = AgentPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<AgentId>,
    if_match: IfMatch,
    Body(patch): Body<AgentPatch>,
) -> Result<Found<Agent>> {
    let update = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.agents().update(id, patch).await }
    };
    change(&caller, id, if_match, update).await.map(Found)
}
