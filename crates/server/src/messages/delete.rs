use agentkeep::{Lockable, TenantStore};
use agentkeep_core::MessageId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a message with its artifacts.
///
/// Its seq is not given again. Those who watch the session are told.
#[utoipa::path(delete, path = "/messages/{id}", tag = "messages",
    params(("id" = MessageId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<MessageId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.messages().delete(id).await };
    if_match.then(&caller, Lockable::Message(id), delete).await.map(|()| Gone)
}
