use agentkeep_core::{Session, SessionId};
use axum::extract::State;

use crate::{
    app::App,
    auth::Caller,
    cache::{Sent, View},
    error::Result,
    resource::Id,
};

/// Get a session.
#[utoipa::path(get, path = "/sessions/{id}", tag = "sessions", params(("id" = SessionId, Path, description = "Its id")),
    responses((status = 200, description = "The session", body = Session)))]
pub(super) async fn get(State(app): State<App>, caller: Caller, Id(id): Id<SessionId>) -> Result<Sent> {
    let tenant = &caller.tenant;
    app.kept.get(tenant, id, View::Session, || async { Sent::resource(&super::existing(tenant, id).await?) }).await
}
