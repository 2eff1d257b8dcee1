use agentkeep_core::{ApiKey, ApiKeyId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Revoke a key: from here on it opens nothing.
///
/// One that was revoked before stays as it is.
#[utoipa::path(post, path = "/keys/{id}/revoke", tag = "keys",
    params(("id" = ApiKeyId, Path, description = "Its id")),
    responses((status = 200, description = "The key", body = ApiKey)))]
pub(super) async fn revoke(caller: Caller, Id(id): Id<ApiKeyId>) -> Result<Found<ApiKey>> {
    Ok(Found(caller.tenant.api_keys().revoke(id).await?))
}
