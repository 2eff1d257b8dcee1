use agentkeep_core::{Checkpoint, CheckpointId, JsonArray};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// Writes to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingWrites {
    /// The writes, in order.
    pending_writes: JsonArray,
}

/// Add writes behind the pending writes of a checkpoint.
///
/// Of writes that are added at the same time none is lost, and those of one call stay together.
#[utoipa::path(post, path = "/checkpoints/{id}/writes", tag = "checkpoints", request_body = PendingWrites,
    params(("id" = CheckpointId, Path, description = "Its id")),
    responses((status = 200, description = "The checkpoint", body = Checkpoint)))]
pub(super) async fn add_writes(
    caller: Caller,
    Id(id): Id<CheckpointId>,
    Body(new): Body<PendingWrites>,
) -> Result<Found<Checkpoint>> {
    Ok(Found(caller.tenant.checkpoints().add_writes(id, &new.pending_writes).await?))
}
