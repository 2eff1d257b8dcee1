use agentkeep_core::SessionId;
use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, resource::Deleted};

/// Which checkpoints go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PruneCheckpoints {
    /// The session of the run.
    session_id: SessionId,
    /// The part of the run; absent for the run itself.
    #[serde(default)]
    namespace: String,
    /// How many of the newest stay.
    keep: u32,
}

/// Delete all checkpoints of a session in a namespace but the newest.
#[utoipa::path(post, path = "/checkpoints/prune", tag = "checkpoints", request_body = PruneCheckpoints,
    responses((status = 200, description = "How many went", body = Deleted)))]
pub(super) async fn prune(caller: Caller, Body(prune): Body<PruneCheckpoints>) -> Result<Json<Deleted>> {
    let PruneCheckpoints { session_id, namespace, keep } = prune;
    let deleted = caller.tenant.checkpoints().keep_newest(session_id, &namespace, keep).await?;
    Ok(Json(Deleted { deleted }))
}
