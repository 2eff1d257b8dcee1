use agentkeep_core::{RoutingDecision, RoutingDecisionId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a routing decision.
#[utoipa::path(get, path = "/routing-decisions/{id}", tag = "routing-decisions",
    params(("id" = RoutingDecisionId, Path, description = "Its id")),
    responses((status = 200, description = "The decision", body = RoutingDecision)))]
pub(super) async fn get(caller: Caller, Id(id): Id<RoutingDecisionId>) -> Result<Found<RoutingDecision>> {
    Found::or_not(caller.tenant.routing_decisions().get(id).await?, id)
}
