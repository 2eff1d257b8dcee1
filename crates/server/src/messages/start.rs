use agentkeep_core::{Message, NewMessage, SessionId};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Created, Id},
};

/// Begin to stream a message in.
///
/// It is appended as streaming and incomplete, and those who watch the session are told so. It grows by deltas until it
/// is finished.
#[utoipa::path(post, path = "/sessions/{id}/messages/stream", tag = "messages",
    params(("id" = SessionId, Path, description = "The id of the session")), request_body = NewMessage,
    responses((status = 201, description = "The message as it began", body = Message)))]
pub(super) async fn start(
    caller: Caller,
    Id(session): Id<SessionId>,
    Body(new): Body<NewMessage>,
) -> Result<Created<Message>> {
    Ok(Created(caller.tenant.messages().start(session, new, None).await?))
}
