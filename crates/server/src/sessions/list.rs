use agentkeep_core::Session;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List sessions.
///
/// Filters: id, user_id, agent_id, team_id, kind, name, platform, chat_id, status, message_count, last_message_at,
/// created_at, updated_at, state.PATH, metadata.PATH. Orders: id, created_at (the default), updated_at,
/// last_message_at, message_count.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(ListParams),
    responses((status = 200, description = "A page of sessions", body = ListOf<Session>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Session>> {
    Ok(caller.tenant.sessions().list(&request).await?.into())
}
