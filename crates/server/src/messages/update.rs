use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Message, MessageId, MessagePatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a message.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away. Those who watch the session are told.
#[utoipa::path(patch, path = "/messages/{id}", tag = "messages",
    params(("id" = MessageId, Path, description = "Its id")),
    request_body(content = MessagePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The message", body = Message)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<MessageId>,
    if_match: IfMatch,
    Body(patch): Body<MessagePatch>,
) -> Result<Found<Message>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.messages().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::Message(id), change).await.map(Found)
}
