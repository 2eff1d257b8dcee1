use agentkeep::{Lockable, TenantStore};
use agentkeep_core::ApiKeyId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a key: from here on it opens nothing, and nothing tells that it was there.
#[utoipa::path(delete, path = "/keys/{id}", tag = "keys",
    params(("id" = ApiKeyId, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<ApiKeyId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.api_keys().delete(id).await };
    if_match.then(&caller, Lockable::ApiKey(id), delete).await.map(|()| Gone)
}
