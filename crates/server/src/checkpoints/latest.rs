use agentkeep_core::{Checkpoint, SessionId};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{auth::Caller, error::Result, query::Query, resource::Found};

/// Of which run.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// The session of the run.
    session_id: SessionId,
    /// The part of the run; absent for the run itself.
    #[serde(default)]
    #[param(required = false)]
    namespace: String,
}

/// Get the newest checkpoint of a session in a namespace.
///
/// 404 when there is none.
#[utoipa::path(get, path = "/checkpoints/latest", tag = "checkpoints", params(Run),
    responses((status = 200, description = "The checkpoint", body = Checkpoint)))]
pub(super) async fn latest(caller: Caller, Query(run): Query<Run>) -> Result<Found<Checkpoint>> {
    let found = caller.tenant.checkpoints().latest(run.session_id, &run.namespace).await?;
    Found::or_not(found, format!("of session {} in the namespace {:?}", run.session_id, run.namespace))
}
