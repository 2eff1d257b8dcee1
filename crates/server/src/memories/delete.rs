use agentkeep::{Lockable, TenantStore};
use agentkeep_core::MemoryId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a memory.
#[utoipa::path(delete, path = "/memories/{id}", tag = "memories",
    params(("id" = MemoryId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<MemoryId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.memories().delete(id).await };
    if_match.then(&caller, Lockable::Memory(id), delete).await.map(|()| Gone)
}
