use agentkeep_core::{Message, NewMessage, SessionId};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Created, Id},
};

/// Append a message to a session.
///
/// It gets the next seq, without gap, whatever races. A `platform_message_id` that the session has already gives the
/// first message back.
#[utoipa::path(post, path = "/sessions/{id}/messages", tag = "messages",
    params(("id" = SessionId, Path, description = "The id of the session")), request_body = NewMessage,
    responses((status = 201, description = "The message", body = Message)))]
pub(super) async fn append(
    caller: Caller,
    Id(session): Id<SessionId>,
    Body(new): Body<NewMessage>,
) -> Result<Created<Message>> {
    super::appended(&caller, session, new).await.map(Created)
}
