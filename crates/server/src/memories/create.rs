use agentkeep_core::{Memory, NewMemory};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a memory.
///
/// One of the same name that has expired makes room for it. 409 when agent and user have a memory of that name, or
/// the id is taken.
#[utoipa::path(post, path = "/memories", tag = "memories", request_body = NewMemory,
    responses((status = 201, description = "The memory", body = Memory)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewMemory>) -> Result<Created<Memory>> {
    Ok(Created(caller.tenant.memories().create(new).await?))
}
