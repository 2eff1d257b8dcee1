use agentkeep_core::{Memory, NewMemory};

use crate::{auth::Caller, body::Body, error::Result, resource::Found};

/// Create a memory, or change the one that agent and user have of that name to what is given here.
#[utoipa::path(put, path = "/memories", tag = "memories", request_body = NewMemory,
    responses((status = 200, description = "The memory", body = Memory)))]
pub(super) async fn upsert(caller: Caller, Body(new): Body<NewMemory>) -> Result<Found<Memory>> {
    Ok(Found(caller.tenant.memories().upsert(new).await?))
}
