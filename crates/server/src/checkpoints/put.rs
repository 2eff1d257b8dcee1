use agentkeep_core::{Checkpoint, NewCheckpoint};

use crate::{auth::Caller, body::Body, error::Result, resource::Found};

/// Put a checkpoint.
///
/// One that is there already under this id, in the same session and namespace, gets the parent, channel values and
/// metadata given here and keeps its pending writes. 409 when the id is taken by a checkpoint of another session or
/// namespace.
#[utoipa::path(put, path = "/checkpoints", tag = "checkpoints", request_body = NewCheckpoint,
    responses((status = 200, description = "The checkpoint", body = Checkpoint)))]
pub(super) async fn put(caller: Caller, Body(new): Body<NewCheckpoint>) -> Result<Found<Checkpoint>> {
    Ok(Found(caller.tenant.checkpoints().put(new).await?))
}
