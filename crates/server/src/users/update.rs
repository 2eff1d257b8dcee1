use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{User, UserId, UserPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a user.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes a value away.
#[utoipa::path(patch, path = "/users/{id}", tag = "users", params(("id" = UserId, Path, description = "Its id")),
    request_body(content = UserPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The user", body = User)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<UserId>,
    if_match: IfMatch,
    Body(patch): Body<UserPatch>,
) -> Result<Found<User>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.users().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::User(id), change).await.map(Found)
}
