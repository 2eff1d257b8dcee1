use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Team, TeamId, TeamPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a team.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away.
#[utoipa::path(patch, path = "/teams/{id}", tag = "teams",
    params(("id" = TeamId, Path, description = "Its id")),
    request_body(content = TeamPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The team", body = Team)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<TeamId>,
    if_match: IfMatch,
    Body(patch): Body<TeamPatch>,
) -> Result<Found<Team>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.teams().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::Team(id), change).await.map(Found)
}
