use agentkeep_core::{ApiKey, ApiKeyId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a key, without its secret.
#[utoipa::path(get, path = "/keys/{id}", tag = "keys",
    params(("id" = ApiKeyId, Path, description = "Its id")),
    responses((status = 200, description = "The key", body = ApiKey)))]
pub(super) async fn get(caller: Caller, Id(id): Id<ApiKeyId>) -> Result<Found<ApiKey>> {
    Found::or_not(caller.tenant.api_keys().get(id).await?, id)
}
