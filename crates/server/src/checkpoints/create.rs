use agentkeep_core::{Checkpoint, NewCheckpoint};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Put a checkpoint, as PUT does, with a new address.
///
/// With an `Idempotency-Key` one without an id of the caller's can be repeated as well. 422 when session or parent do
/// not exist.
#[utoipa::path(post, path = "/checkpoints", tag = "checkpoints", request_body = NewCheckpoint,
    responses((status = 201, description = "The checkpoint", body = Checkpoint)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewCheckpoint>) -> Result<Created<Checkpoint>> {
    Ok(Created(caller.tenant.checkpoints().put(new).await?))
}
