use agentkeep_core::{Agent, AgentId, AgentPatch};

use super::update::update;
use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change an agent, as PATCH does: what is left out stays.
#[utoipa::path(put, path = "/agents/{id}", tag = "agents", params(("id" = AgentId, Path, description = "Its id")),
    request_body = AgentPatch, responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn put(
    caller: Caller,
    id: Id<AgentId>,
    if_match: IfMatch,
    patch: Body<AgentPatch>,
) -> Result<Found<Agent>> {
    update(caller, id, if_match, patch).await
}
