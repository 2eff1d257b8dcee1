use agentkeep_core::{Message, MessageId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a message.
#[utoipa::path(get, path = "/messages/{id}", tag = "messages", params(("id" = MessageId, Path, description = "Its id")),
    responses((status = 200, description = "The message", body = Message)))]
pub(super) async fn get(caller: Caller, Id(id): Id<MessageId>) -> Result<Found<Message>> {
    Found::or_not(caller.tenant.messages().get(id).await?, id)
}
