use agentkeep_core::RoutingDecisionId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id},
};

/// Delete a routing decision.
#[utoipa::path(delete, path = "/routing-decisions/{id}", tag = "routing-decisions",
    params(("id" = RoutingDecisionId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<RoutingDecisionId>) -> Result<Gone> {
    caller.tenant.routing_decisions().delete(id).await?;
    Ok(Gone)
}
