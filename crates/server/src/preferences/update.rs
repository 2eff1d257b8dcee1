use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Preference, PreferenceId, PreferencePatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change the preferences of a user in a category.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away. Of two patches at once none is
/// lost.
#[utoipa::path(patch, path = "/preferences/{id}", tag = "preferences",
    params(("id" = PreferenceId, Path, description = "Their id")),
    request_body(content = PreferencePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The preferences", body = Preference)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<PreferenceId>,
    if_match: IfMatch,
    Body(patch): Body<PreferencePatch>,
) -> Result<Found<Preference>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.preferences().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::Preference(id), change).await.map(Found)
}
