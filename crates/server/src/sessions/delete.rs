use agentkeep::{Lockable, TenantStore};
use agentkeep_core::SessionId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a session with its messages, artifacts, checkpoints and events.
///
/// Streams of it end with the event `session.deleted`.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions",
    params(("id" = SessionId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<SessionId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.sessions().delete(id).await };
    if_match.then(&caller, Lockable::Session(id), delete).await?;
    caller.tenant.session_changed(id);
    Ok(Gone)
}
