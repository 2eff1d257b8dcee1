use agentkeep_core::{Run, RunId};
use axum::extract::State;

use crate::{
    app::App,
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Cancel a run.
///
/// It fails with the code `cancelled`, and so does the message that it is at. 409 when it is over already, or when
/// another server is at it.
#[utoipa::path(post, path = "/runs/{id}/cancel", tag = "runs", params(("id" = RunId, Path, description = "Its id")),
    responses((status = 200, description = "The run", body = Run)))]
pub(super) async fn cancel(State(app): State<App>, caller: Caller, Id(id): Id<RunId>) -> Result<Found<Run>> {
    app.answers.cancel(&app.store()?.tenant(caller.tenant_id()), id).await.map(Found)
}
