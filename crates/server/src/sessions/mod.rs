//! Sessions.

mod context;
mod create;
mod delete;
mod events;
mod finish;
mod get;
mod list;
mod update;
mod upsert;

use agentkeep::TenantStore;
use agentkeep_core::{Session, SessionId, SessionPatch};
use utoipa_axum::routes;

use crate::{
    auth::Caller,
    error::{ApiError, Result},
    resource::IfMatch,
    routes::Routes,
};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list::list, create::create, upsert::upsert))
        .routes(routes!(get::get, update::update, delete::delete))
        .routes(routes!(finish::finish))
        .routes(routes!(context::context))
        .routes(routes!(events::events))
}

/// The session with that id.
///
/// # Errors
/// 404 when there is none.
pub(crate) async fn existing(tenant: &TenantStore, id: SessionId) -> Result<Session> {
    tenant.sessions().get(id).await?.ok_or_else(|| ApiError::not_found("session", id))
}

/// Changes a session, and tells those who watch it.
///
/// # Errors
/// 412 when the caller named another revision, and what the repository tells.
pub(crate) async fn change(caller: &Caller, id: SessionId, patch: SessionPatch, if_match: IfMatch) -> Result<Session> {
    let patch = SessionPatch { revision: if_match.0.or(patch.revision), ..patch };
    let session = caller.tenant.sessions().update(id, patch).await.map_err(|error| match if_match.0 {
        Some(_) => ApiError::from(error).as_precondition(),
        None => error.into(),
    })?;
    caller.tenant.session_changed(id);
    Ok(session)
}
