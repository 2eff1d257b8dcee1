use agentkeep_core::{Message, SessionId};

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
    resource::Id,
    sessions,
};

/// List the messages of a session.
///
/// Filters: id, seq, role, type, content, tool_name, tool_call_id, author_user_id, agent_id, platform_message_id,
/// is_streaming, is_complete, created_at, updated_at, metadata.PATH. Orders: seq (the default), id, created_at,
/// updated_at.
#[utoipa::path(get, path = "/sessions/{id}/messages", tag = "messages",
    params(("id" = SessionId, Path, description = "The id of the session"), ListParams),
    responses((status = 200, description = "A page of messages", body = ListOf<Message>)))]
pub(super) async fn list(caller: Caller, Id(session): Id<SessionId>, query: ListQuery) -> Result<ListOf<Message>> {
    let page = caller.tenant.messages().list(&query.only("session_id", session)).await?;
    if page.items.is_empty() {
        sessions::existing(&caller.tenant, session).await?;
    }
    Ok(page.into())
}
