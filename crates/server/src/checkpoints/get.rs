use agentkeep_core::{Checkpoint, CheckpointId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a checkpoint.
#[utoipa::path(get, path = "/checkpoints/{id}", tag = "checkpoints",
    params(("id" = CheckpointId, Path, description = "Its id")),
    responses((status = 200, description = "The checkpoint", body = Checkpoint)))]
pub(super) async fn get(caller: Caller, Id(id): Id<CheckpointId>) -> Result<Found<Checkpoint>> {
    Found::or_not(caller.tenant.checkpoints().get(id).await?, id)
}
