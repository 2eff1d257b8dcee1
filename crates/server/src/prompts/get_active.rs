use agentkeep_core::{AgentId, Prompt};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{auth::Caller, error::Result, query::Query, resource::Found};

/// Which prompt.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The agent it is for; absent for a prompt of no agent in particular.
    agent_id: Option<AgentId>,
    /// Its name.
    name: String,
}

/// Get the active version of a prompt by its agent and name.
///
/// 404 when no version is active.
#[utoipa::path(get, path = "/prompts/active", tag = "prompts", params(Wanted),
    responses((status = 200, description = "The version", body = Prompt)))]
pub(super) async fn get_active(caller: Caller, Query(wanted): Query<Wanted>) -> Result<Found<Prompt>> {
    let found = caller.tenant.prompts().get_active(wanted.agent_id, &wanted.name).await?;
    Found::or_not(found, format!("{:?} that is active", wanted.name))
}
