use agentkeep_core::{AgentId, AgentVersion};

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
    resource::Id,
};

/// List the versions of an agent, the newest first.
///
/// Empty when there is no such agent. Filters: id, number, author, note, created_at, snapshot.PATH. Orders: number (the
/// default, newest first), id, created_at.
#[utoipa::path(get, path = "/agents/{id}/versions", tag = "agent-versions",
    params(("id" = AgentId, Path, description = "The agent"), ListParams),
    responses((status = 200, description = "A page of versions", body = ListOf<AgentVersion>)))]
pub(super) async fn list(caller: Caller, Id(agent): Id<AgentId>, query: ListQuery) -> Result<ListOf<AgentVersion>> {
    Ok(caller.tenant.agent_versions().list(&query.only("agent_id", agent)).await?.into())
}
