use agentkeep_core::{SessionId, SessionPatch, SessionStatus};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
    sessions,
};

/// Mark a conversation as deleted: it is listed no longer, and can still be read.
///
/// 409 when it was finished or deleted before. `DELETE /sessions/{id}` removes it for good.
#[utoipa::path(delete, path = "/conversations/{session_id}", tag = "conversations",
    params(("session_id" = SessionId, Path, description = "Its id")),
    responses((status = 204, description = "It is marked as deleted")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<SessionId>, if_match: IfMatch) -> Result<Gone> {
    let patch = SessionPatch { status: Some(SessionStatus::Deleted), ..SessionPatch::default() };
    sessions::change(&caller, id, patch, if_match).await.map(|_| Gone)
}
