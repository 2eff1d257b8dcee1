use agentkeep_core::{Session, SessionId, SessionPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a session.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away. With a `revision` in it, 409 when the
/// session has another one by then.
#[utoipa::path(patch, path = "/sessions/{id}", tag = "sessions",
    params(("id" = SessionId, Path, description = "Its id")),
    request_body(content = SessionPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The session", body = Session)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<SessionId>,
    if_match: IfMatch,
    Body(patch): Body<SessionPatch>,
) -> Result<Found<Session>> {
    super::change(&caller, id, patch, if_match).await.map(Found)
}
