use agentkeep_core::RoutingDecision;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List routing decisions.
///
/// Filters: id, team_id, session_id, message_id, agent_id, latency_ms, created_at, metadata.PATH. Orders: id,
/// created_at (the default).
#[utoipa::path(get, path = "/routing-decisions", tag = "routing-decisions", params(ListParams),
    responses((status = 200, description = "A page of routing decisions", body = ListOf<RoutingDecision>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<RoutingDecision>> {
    Ok(caller.tenant.routing_decisions().list(&request).await?.into())
}
