use agentkeep_core::{Delta, MessageId, SessionId};
use axum::{Json, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, resource::Id};

/// What a delta became.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Told {
    /// The number of the event that tells it.
    number: i64,
}

/// Let a message that is streamed in grow.
///
/// 409 when it is not streaming any more.
#[utoipa::path(post, path = "/sessions/{id}/messages/{message_id}/deltas", tag = "messages",
    params(("id" = SessionId, Path, description = "The id of the session"),
        ("message_id" = MessageId, Path, description = "The id of the message")),
    request_body = Delta, responses((status = 201, description = "Its event", body = Told)))]
pub(super) async fn delta(
    caller: Caller,
    Id((session, message)): Id<(SessionId, MessageId)>,
    Body(delta): Body<Delta>,
) -> Result<(StatusCode, Json<Told>)> {
    let number = caller.tenant.messages().delta(session, message, &delta).await?;
    Ok((StatusCode::CREATED, Json(Told { number })))
}
