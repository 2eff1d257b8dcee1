use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Error, MessageId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a message with its artifacts.
///
/// Its seq is not given again.
#[utoipa::path(delete, path = "/messages/{id}", tag = "messages",
    params(("id" = MessageId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<MessageId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move {
        let message = tenant.messages().get(id).await?.ok_or_else(|| Error::not_found("message", id))?;
        tenant.messages().delete(id).await?;
        Ok(message.session_id)
    };
    let session = if_match.then(&caller, Lockable::Message(id), delete).await?;
    caller.tenant.session_changed(session);
    Ok(Gone)
}
