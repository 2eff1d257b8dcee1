use agentkeep::TenantStore;
use agentkeep_core::{AgentId, VersionNote};
use serde::Deserialize;
use utoipa::IntoParams;

use super::change;
use crate::{
    auth::Caller,
    error::Result,
    query::Query,
    resource::{Gone, Id, IfMatch},
};

/// How an agent is deleted.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Deletion {
    /// Whether nothing of it is kept.
    #[param(required = false)]
    hard: bool,
    /// Who deletes it; kept with the version that this makes.
    author: Option<String>,
    /// Why.
    note: Option<String>,
}

/// Delete an agent: it is inactive and hidden, its conversations stay readable, and its name is free.
///
/// This makes a version of it, so that it can be restored. With `hard=true` it goes for good, with its versions,
/// memories, prompts, MCP server links and memberships in teams; its sessions stay.
#[utoipa::path(delete, path = "/agents/{id}", tag = "agents",
    params(("id" = AgentId, Path, description = "Its id"), Deletion),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(
    caller: Caller,
    Id(id): Id<AgentId>,
    if_match: IfMatch,
    Query(deletion): Query<Deletion>,
) -> Result<Gone> {
    let Deletion { hard, author, note } = deletion;
    let note = &VersionNote { author, note };
    let delete = |tenant: TenantStore| async move {
        match hard {
            true => tenant.agents().delete(id).await,
            false => tenant.agents().soft_delete(id, note).await.map(|_| ()),
        }
    };
    change(&caller, id, if_match, delete).await.map(|()| Gone)
}
