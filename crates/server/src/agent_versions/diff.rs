use agentkeep_core::{AgentId, FieldDifference};
use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{auth::Caller, error::Result, query::Query, resource::Id};

/// What a version is compared with.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ComparedWith {
    /// The number of the other version.
    to: i64,
}

/// What differs between two versions of an agent.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentVersionDifferences {
    /// The number of the version compared from.
    from: i64,
    /// The number of the version compared with.
    to: i64,
    /// The fields that differ; empty when none does.
    differences: Vec<FieldDifference>,
}

/// Compare two versions of an agent, field by field.
///
/// 404 when one of them does not exist.
#[utoipa::path(get, path = "/agents/{id}/versions/{number}/diff", tag = "agent-versions",
    params(("id" = AgentId, Path, description = "The agent"), ("number" = i64, Path, description = "Its number"),
        ComparedWith),
    responses((status = 200, description = "What differs", body = AgentVersionDifferences)))]
pub(super) async fn diff(
    caller: Caller,
    Id((agent, from)): Id<(AgentId, i64)>,
    Query(ComparedWith { to }): Query<ComparedWith>,
) -> Result<Json<AgentVersionDifferences>> {
    let differences = caller.tenant.agent_versions().diff(agent, from, to).await?;
    Ok(Json(AgentVersionDifferences { from, to, differences }))
}
