use agentkeep_core::Memory;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List memories.
///
/// Those that have expired are left out, unless `include_expired=true` or a filter asks about `expires_at`.
/// `user_id=null` finds the global ones, `agent_id=ID&user_id=ID&name=NAME` the one of that name. Filters: id, agent_id,
/// user_id, session_id, name, read_mode, access, expires_at, created_at, updated_at, metadata.PATH. Orders: id,
/// created_at (the default), updated_at, name.
#[utoipa::path(get, path = "/memories", tag = "memories",
    params(ListParams, ("include_expired" = Option<bool>, Query, description = "Whether those that have expired are listed too")),
    responses((status = 200, description = "A page of memories", body = ListOf<Memory>)))]
pub(super) async fn list(caller: Caller, mut query: ListQuery) -> Result<ListOf<Memory>> {
    let memories = caller.tenant.memories();
    let page = match query.switch("include_expired")? {
        true => memories.list_with_expired(&query.0).await?,
        false => memories.list(&query.0).await?,
    };
    Ok(page.into())
}
