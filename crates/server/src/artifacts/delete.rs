use agentkeep::{Lockable, TenantStore};
use agentkeep_core::ArtifactId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete an artifact.
#[utoipa::path(delete, path = "/artifacts/{id}", tag = "artifacts",
    params(("id" = ArtifactId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<ArtifactId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.artifacts().delete(id).await };
    if_match.then(&caller, Lockable::Artifact(id), delete).await.map(|()| Gone)
}
