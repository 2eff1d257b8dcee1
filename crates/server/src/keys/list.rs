use agentkeep_core::ApiKey;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List keys.
///
/// Those that are expired or revoked are among them; no secret is. Filters: id, name, prefix, expires_at,
/// last_used_at, revoked_at, created_at, updated_at, metadata.PATH. Orders: id, name, prefix, created_at (the
/// default), updated_at.
#[utoipa::path(get, path = "/keys", tag = "keys", params(ListParams),
    responses((status = 200, description = "A page of keys", body = ListOf<ApiKey>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<ApiKey>> {
    Ok(caller.tenant.api_keys().list(&request).await?.into())
}
