use agentkeep_core::{Memory, MemoryId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a memory, expired or not.
#[utoipa::path(get, path = "/memories/{id}", tag = "memories",
    params(("id" = MemoryId, Path, description = "Its id")),
    responses((status = 200, description = "The memory", body = Memory)))]
pub(super) async fn get(caller: Caller, Id(id): Id<MemoryId>) -> Result<Found<Memory>> {
    Found::or_not(caller.tenant.memories().get(id).await?, id)
}
