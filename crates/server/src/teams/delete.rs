use agentkeep::{Lockable, TenantStore};
use agentkeep_core::TeamId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a team with its memberships and routing decisions.
///
/// Its agents and sessions stay.
#[utoipa::path(delete, path = "/teams/{id}", tag = "teams",
    params(("id" = TeamId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<TeamId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.teams().delete(id).await };
    if_match.then(&caller, Lockable::Team(id), delete).await.map(|()| Gone)
}
