use agentkeep_core::Prompt;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List versions of prompts.
///
/// Filters: id, agent_id, name, version, active, created_at, updated_at, metadata.PATH. Orders: id, created_at (the
/// default), updated_at, name, version.
#[utoipa::path(get, path = "/prompts", tag = "prompts", params(ListParams),
    responses((status = 200, description = "A page of versions of prompts", body = ListOf<Prompt>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Prompt>> {
    Ok(caller.tenant.prompts().list(&request).await?.into())
}
