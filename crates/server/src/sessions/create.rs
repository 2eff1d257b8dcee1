use agentkeep_core::{NewSession, Session};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a session.
///
/// 409 when the chat or the id is taken.
#[utoipa::path(post, path = "/sessions", tag = "sessions", request_body = NewSession,
    responses((status = 201, description = "The session", body = Session)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewSession>) -> Result<Created<Session>> {
    Ok(Created(caller.tenant.sessions().create(new).await?))
}
