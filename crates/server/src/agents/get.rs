use agentkeep_core::{Agent, AgentId};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    auth::Caller,
    error::Result,
    query::Query,
    resource::{Found, Id},
};

/// Which agents are shown.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Shown {
    /// Whether an agent that was soft-deleted is shown too.
    #[param(required = false)]
    include_deleted: bool,
}

/// Get an agent.
///
/// 404 for one that was soft-deleted, unless `include_deleted=true`.
#[utoipa::path(get, path = "/agents/{id}", tag = "agents",
    params(("id" = AgentId, Path, description = "Its id"), Shown),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn get(caller: Caller, Id(id): Id<AgentId>, Query(shown): Query<Shown>) -> Result<Found<Agent>> {
    let found = caller.tenant.agents().get(id).await?;
    Found::or_not(found.filter(|agent| shown.include_deleted || agent.deleted_at.is_none()), id)
}
