use agentkeep_core::{Finish, Message, MessageId, SessionId};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// End a message that is streamed in.
///
/// Its content is what it began with and its deltas, unless one is given. With an `error` it stays incomplete. 409 when
/// it is not streaming any more.
#[utoipa::path(post, path = "/sessions/{id}/messages/{message_id}/finish", tag = "messages",
    params(("id" = SessionId, Path, description = "The id of the session"),
        ("message_id" = MessageId, Path, description = "The id of the message")),
    request_body = Finish, responses((status = 200, description = "The message", body = Message)))]
pub(super) async fn finish(
    caller: Caller,
    Id((session, message)): Id<(SessionId, MessageId)>,
    Body(finish): Body<Finish>,
) -> Result<Found<Message>> {
    Ok(Found(caller.tenant.messages().finish(session, message, finish).await?))
}
