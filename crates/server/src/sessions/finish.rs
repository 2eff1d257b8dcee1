use agentkeep_core::{Session, SessionId, SessionPatch, SessionStatus};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Finish a session.
///
/// 409 when it is not active.
#[utoipa::path(post, path = "/sessions/{id}/finish", tag = "sessions",
    params(("id" = SessionId, Path, description = "Its id")),
    responses((status = 200, description = "The session", body = Session)))]
pub(super) async fn finish(caller: Caller, Id(id): Id<SessionId>, if_match: IfMatch) -> Result<Found<Session>> {
    let patch = SessionPatch { status: Some(SessionStatus::Finished), ..SessionPatch::default() };
    super::change(&caller, id, patch, if_match).await.map(Found)
}
