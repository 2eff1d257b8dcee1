use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{ApiKey, ApiKeyId, ApiKeyPatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change the name and the metadata of a key.
///
/// What it allows, and until when, never changes: create another one. A merge patch (RFC 7396): what it leaves out
/// stays, `null` takes a value away.
#[utoipa::path(patch, path = "/keys/{id}", tag = "keys",
    params(("id" = ApiKeyId, Path, description = "Its id")),
    request_body(content = ApiKeyPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The key", body = ApiKey)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<ApiKeyId>,
    if_match: IfMatch,
    Body(patch): Body<ApiKeyPatch>,
) -> Result<Found<ApiKey>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.api_keys().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::ApiKey(id), change).await.map(Found)
}
