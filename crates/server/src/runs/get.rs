use agentkeep_core::{Run, RunId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a run.
#[utoipa::path(get, path = "/runs/{id}", tag = "runs", params(("id" = RunId, Path, description = "Its id")),
    responses((status = 200, description = "The run", body = Run)))]
pub(super) async fn get(caller: Caller, Id(id): Id<RunId>) -> Result<Found<Run>> {
    Found::or_not(caller.tenant.runs().get(id).await?, id)
}
