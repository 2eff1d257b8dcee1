use agentkeep_core::{Message, NewMessage, SessionId};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    messages,
    resource::{Created, Id},
};

/// Add a message to a conversation.
#[utoipa::path(post, path = "/conversations/{session_id}/message", tag = "conversations",
    params(("session_id" = SessionId, Path, description = "The id of the conversation")), request_body = NewMessage,
    responses((status = 201, description = "The message", body = Message)))]
pub(super) async fn send(
    caller: Caller,
    Id(session): Id<SessionId>,
    Body(new): Body<NewMessage>,
) -> Result<Created<Message>> {
    messages::appended(&caller, session, new).await.map(Created)
}
