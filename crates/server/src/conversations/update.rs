use agentkeep_core::{JsonObject, SessionId, SessionPatch, SessionStatus};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::conversation::Conversation;
use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
    sessions,
};

/// Changes of a conversation; what is left out stays, `null` takes the title away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConversationPatch {
    /// A new title.
    #[serde(deserialize_with = "present")]
    title: Option<Option<String>>,
    /// A legal next status.
    status: Option<SessionStatus>,
    /// A merge patch (RFC 7396) of the metadata.
    metadata: Option<JsonObject>,
}

/// A title that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Change a conversation.
#[utoipa::path(patch, path = "/conversations/{session_id}", tag = "conversations",
    params(("session_id" = SessionId, Path, description = "Its id")),
    request_body(content = ConversationPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The conversation, without its messages", body = Conversation)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<SessionId>,
    if_match: IfMatch,
    Body(ConversationPatch { title, status, metadata }): Body<ConversationPatch>,
) -> Result<Found<Conversation>> {
    let patch = SessionPatch { name: title, status, metadata, ..SessionPatch::default() };
    let session = sessions::change(&caller, id, patch, if_match).await?;
    Ok(Found(session.into()))
}
