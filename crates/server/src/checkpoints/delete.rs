use agentkeep_core::CheckpointId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id},
};

/// Delete a checkpoint.
///
/// Those that name it as their parent stay.
#[utoipa::path(delete, path = "/checkpoints/{id}", tag = "checkpoints",
    params(("id" = CheckpointId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<CheckpointId>) -> Result<Gone> {
    caller.tenant.checkpoints().delete(id).await?;
    Ok(Gone)
}
