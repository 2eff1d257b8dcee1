use agentkeep_core::Agent;
use utoipa::IntoParams;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// What the list of agents takes beside what every list takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes what `list` reads")]
pub(super) struct Listed {
    /// Whether only agents that are in use are listed.
    active_only: Option<bool>,
    /// Whether those that were soft-deleted are listed too.
    include_deleted: Option<bool>,
}

/// List agents.
///
/// Those that were soft-deleted are left out, unless `include_deleted=true` or a filter asks about `deleted_at`. Filters:
/// id, name, type, model, planner, active, version, run_id, usage_count, last_used_at, deleted_at, created_at,
/// updated_at, config.PATH, persona.PATH, metadata.PATH. Orders: id (the default), name, type, version, run_id,
/// usage_count, created_at, updated_at.
#[utoipa::path(get, path = "/agents", tag = "agents", params(ListParams, Listed),
    responses((status = 200, description = "A page of agents", body = ListOf<Agent>)))]
pub(super) async fn list(caller: Caller, mut query: ListQuery) -> Result<ListOf<Agent>> {
    let agents = caller.tenant.agents();
    let (active_only, include_deleted) = (query.switch("active_only")?, query.switch("include_deleted")?);
    let request = if active_only { query.only("active", true) } else { query.0 };
    let page = match include_deleted {
        true => agents.list_with_deleted(&request).await?,
        false => agents.list(&request).await?,
    };
    Ok(page.into())
}
