use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Memory, MemoryId, MemoryPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a memory.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away.
#[utoipa::path(patch, path = "/memories/{id}", tag = "memories",
    params(("id" = MemoryId, Path, description = "Its id")),
    request_body(content = MemoryPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The memory", body = Memory)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<MemoryId>,
    if_match: IfMatch,
    Body(patch): Body<MemoryPatch>,
) -> Result<Found<Memory>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.memories().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::Memory(id), change).await.map(Found)
}
