use agentkeep_core::{NewRoutingDecision, RoutingDecision};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Record which agent a team chose, and why.
///
/// Its session is that of the message when only the message is given. 409 when the id is taken, 422 when team,
/// session, message or agent do not exist.
#[utoipa::path(post, path = "/routing-decisions", tag = "routing-decisions", request_body = NewRoutingDecision,
    responses((status = 201, description = "The decision", body = RoutingDecision)))]
pub(super) async fn record(caller: Caller, Body(new): Body<NewRoutingDecision>) -> Result<Created<RoutingDecision>> {
    Ok(Created(caller.tenant.routing_decisions().record(new).await?))
}
