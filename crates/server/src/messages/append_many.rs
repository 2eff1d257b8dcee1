use agentkeep_core::{Message, NewMessage, SessionId, limits};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::{ApiError, Result},
    query::ListOf,
    resource::Id,
    sessions,
};

/// Messages to append.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMessages {
    /// 1,000 at most, in order.
    #[schema(max_items = 1000)]
    messages: Vec<NewMessage>,
}

/// Append many messages to a session, in order: all of them or none.
///
/// 409 when one of them is there already, its `platform_message_id` included.
#[utoipa::path(post, path = "/sessions/{id}/messages/batch", tag = "messages",
    params(("id" = SessionId, Path, description = "The id of the session")), request_body = NewMessages,
    responses((status = 201, description = "The messages", body = ListOf<Message>)))]
pub(super) async fn append_many(
    caller: Caller,
    Id(session): Id<SessionId>,
    Body(NewMessages { messages }): Body<NewMessages>,
) -> Result<Response> {
    if messages.len() > limits::PAGE_ITEMS as usize {
        let reason = format!("has {} items; at most {} are allowed", messages.len(), limits::PAGE_ITEMS);
        return Err(ApiError::invalid("messages", reason));
    }
    if messages.is_empty() {
        sessions::existing(&caller.tenant, session).await?;
    }
    let messages = caller.tenant.messages().append_many(session, messages).await?;
    caller.tenant.session_changed(session);
    Ok((StatusCode::CREATED, ListOf::whole(messages)).into_response())
}
