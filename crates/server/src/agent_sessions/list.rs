use agentkeep_core::{AgentId, Direction, Session};

use crate::{
    auth::Caller,
    error::{ApiError, Result},
    query::{ListOf, ListParams, ListQuery},
    resource::Id,
};

/// List the conversations of an agent, the newest first; those of a soft-deleted one too.
///
/// Filters and orders are those of sessions.
#[utoipa::path(get, path = "/agents/{id}/conversations", tag = "agent-sessions",
    params(("id" = AgentId, Path, description = "The agent"), ListParams),
    responses((status = 200, description = "A page of sessions", body = ListOf<Session>)))]
pub(super) async fn list(caller: Caller, Id(agent): Id<AgentId>, query: ListQuery) -> Result<ListOf<Session>> {
    if caller.tenant.agents().get(agent).await?.is_none() {
        return Err(ApiError::not_found("agent", agent));
    }
    let mut request = query.only("agent_id", agent);
    request.order.get_or_insert_with(|| ("created_at".to_owned(), Direction::Descending));
    Ok(caller.tenant.sessions().list(&request).await?.into())
}
