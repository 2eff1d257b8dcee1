use agentkeep::TenantStore;
use agentkeep_core::{AgentId, Session, SessionId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Make an agent the one that leads a session.
///
/// 404 when there is no such session, 422 when there is no such agent.
#[utoipa::path(put, path = "/agents/{id}/sessions/{session_id}", tag = "agent-sessions",
    params(("id" = AgentId, Path, description = "The agent"), ("session_id" = SessionId, Path, description = "The session")),
    responses((status = 200, description = "The session", body = Session)))]
pub(super) async fn link(caller: Caller, Id((agent, session)): Id<(AgentId, SessionId)>) -> Result<Found<Session>> {
    let link = |tenant: TenantStore| async move {
        let linked = tenant.agents().link_session(agent, session).await?;
        tenant.session_changed(session);
        Ok(linked)
    };
    Ok(Found(caller.tenant.transaction(link).await?))
}
